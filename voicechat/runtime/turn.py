"""One reply: the chat model's text in, encoded speech out. It owns its tasks; cancelling it is the only way to stop.

The next sentence is synthesised while the last one is encoded and sent, and their audio is given out in order.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from voicechat.audio.encode import Encoder
from voicechat.audio.formats import parse_output_format
from voicechat.audio.loudness import Gain
from voicechat.errors import BrokenOffError, FailureKind, ProviderError, Status
from voicechat.providers.interfaces import (
    AudioChunk,
    ChatModel,
    ChatRequest,
    ReplyFinished,
    ReplyPart,
    SpeechSynthesizer,
    TextDelta,
    ToolsStarted,
)
from voicechat.runtime.edge import closing, next_item
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.shaping import ShapedSpeech
from voicechat.session.effects import ContinueReply, StartReply
from voicechat.session.events import (
    Event,
    ReplyFailed,
    ReplyTextArrived,
    ReplyTextEnded,
    SentenceSynthesized,
    SpeechEnded,
    SpeechSynthesized,
    ToolCalled,
    ToolsUsed,
)
from voicechat.session.limits import SessionLimits
from voicechat.session.vocabulary import ToolCall, ToolExchange

SENTENCES_AHEAD = 2
"""Sentences being synthesised or waiting to be sent: the one that is leaving, and the next."""
VOICES_TRIED = 4
"""Voices that may break off in one sentence before it is left out."""
CHUNKS_AHEAD = 256
"""Synthesised chunks that wait for the one before them to be sent."""
PIECE_MS = 100
"""Audio is given out in pieces of this length: what an interruption can be late by, and what pacing can measure."""
TELL_CHARACTERS = 160
"""Text that is split into sentences at once: a millisecond's work; a model that gives all in one piece has more."""
REPLY_CHARACTERS = 100_000
"""A model that never stops is stopped here, as one that ran out of tokens."""


OnSpeech: TypeAlias = Callable[[int, bytes, int, int], None]
"""Reply, s16le mono samples, their rate in Hz, and the position in the reply after them in milliseconds."""


class _Sentence:
    """A sentence on its way: chunks go in at one end while they leave at the other."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text
        self.chunks: asyncio.Queue[AudioChunk | None] = asyncio.Queue(CHUNKS_AHEAD)
        self.leaving = False
        """Its audio is on its way to the client: it cannot be begun again."""


class Turn:
    """Makes one reply and posts what it makes."""

    def __init__(
        self,
        start: StartReply,
        model: ChatModel,
        synthesizer: SpeechSynthesizer,
        *,
        threads: EncodingThreads,
        limits: SessionLimits,
        post: Callable[[Event], None],
        room: Callable[[], Awaitable[None]],
    ) -> None:
        """``start`` must name an audio format that ``parse_output_format`` accepts.

        ``room`` is awaited before each piece of audio: it returns when the client has taken enough.
        """
        self._start = start
        self._model = model
        self._synthesizer = synthesizer
        self._speech = ShapedSpeech(synthesizer, start.voice, threads)
        self._gain = Gain(start.voice.volume)
        self._threads = threads
        self._limits = limits
        self._post = post
        self._room = room
        self._sentences: asyncio.Queue[_Sentence | None] = asyncio.Queue()
        self._made_us = 0
        self._requests: asyncio.Queue[ChatRequest | None] = asyncio.Queue()
        self._requests.put_nowait(ChatRequest(messages=start.messages, options=start.chat.options))
        self._characters = 0
        self._adopted = asyncio.Event()
        if not start.early:
            self._adopted.set()
        self.on_speech: OnSpeech | None = None
        """Told of each piece of speech before it is encoded; must not wait. For finding its echo in the microphone."""

    def speak(self, sentence: int, text: str) -> None:
        """The next sentence to be spoken."""
        self._sentences.put_nowait(_Sentence(sentence, text))

    def finish_speech(self) -> None:
        """No more sentences will come."""
        self._sentences.put_nowait(None)
        self._requests.put_nowait(None)

    def go_on(self, effect: ContinueReply) -> None:
        """The client's tools have answered: ask the model again."""
        self._requests.put_nowait(ChatRequest(messages=effect.messages, options=effect.options))

    def adopt(self) -> None:
        """The user had finished: a reply that was begun early may now do what cannot be undone."""
        self._adopted.set()

    async def run(self) -> None:
        """Make the reply. A provider's failure is posted; cancelling releases the model and the synthesiser."""
        reply = self._start.reply
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._think(), name=f"reply-{reply}-think")
                group.create_task(self._talk(), name=f"reply-{reply}-talk")
        except* ProviderError as failures:
            message = f"speech synthesis failed: {_kind(failures)}"
            self._post(ReplyFailed(reply, Status.TTS_FAILED, message))

    # --- the model ---------------------------------------------------------------------------------------------

    async def _think(self) -> None:
        try:
            while (request := await self._requests.get()) is not None:
                await self._take_parts(self._model.reply(request))
        except ProviderError as failure:
            # The voice stays: the session stops the reply, or has something to say about it.
            message = f"the chat model failed: {failure.kind.value}"
            self._post(ReplyFailed(self._start.reply, Status.LLM_FAILED, message))

    async def _take_parts(self, parts: AsyncIterator[ReplyPart]) -> None:
        loop, reply = asyncio.get_running_loop(), self._start.reply
        finish_reason = "stop"
        tools_until_s = 0.0
        deadline_s = loop.time() + self._limits.first_token_ms / 1000
        async with closing(parts):
            while (part := await next_item(parts, deadline_s, "the model said nothing in time")) is not None:
                match part:
                    case ReplyFinished():
                        finish_reason = part.finish_reason
                        continue
                    case TextDelta(""):
                        continue  # an empty piece is no sign of life: the deadline stands
                    case TextDelta():
                        self._characters += len(part.text)
                        await self._tell(part.text)
                    case ToolCall():
                        self._characters += len(part.arguments) + len(part.name or "") + 1
                        self._post(ToolCalled(reply, part))
                    case ToolsStarted():
                        await self._adopted.wait()
                        tools_until_s = loop.time() + part.within_s
                    case ToolExchange():
                        tools_until_s = 0.0
                        self._post(ToolsUsed(reply, part))
                if self._characters > REPLY_CHARACTERS:
                    finish_reason = "length"
                    break
                # After a tool's answer the model thinks as it does at the beginning.
                limits_ms = (self._limits.between_tokens_ms, self._limits.first_token_ms)
                patience_s = limits_ms[isinstance(part, ToolExchange)] / 1000
                deadline_s = max(loop.time(), tools_until_s) + patience_s
        self._post(ReplyTextEnded(reply, finish_reason))

    async def _tell(self, text: str) -> None:
        """Post what the model said; a long piece in parts, because splitting it into sentences takes time."""
        for start in range(0, len(text), TELL_CHARACTERS):
            if start:
                await asyncio.sleep(0)
            self._post(ReplyTextArrived(self._start.reply, text[start : start + TELL_CHARACTERS]))

    # --- the voice ---------------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        """Start the synthesis of sentences, ``SENTENCES_AHEAD`` at once, and give their audio out in order."""
        encoder = await self._threads.open(parse_output_format(self._start.voice.format))
        ready: asyncio.Queue[_Sentence | None] = asyncio.Queue()
        ahead = asyncio.Semaphore(SENTENCES_AHEAD)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._say_all(encoder, ready, ahead), name=f"reply-{self._start.reply}-say")
            while (sentence := await self._sentences.get()) is not None:
                await ahead.acquire()
                ready.put_nowait(sentence)
                group.create_task(self._synthesize(sentence), name=f"reply-{self._start.reply}-synthesize")
            ready.put_nowait(None)

    async def _synthesize(self, sentence: _Sentence) -> None:
        """Synthesise a sentence. One that breaks off is begun again while nobody has heard any of it, else it ends."""
        for _ in range(VOICES_TRIED):
            try:
                await self._take_chunks(sentence)
                break
            except BrokenOffError:
                if sentence.leaving:
                    break
                while not sentence.chunks.empty():
                    sentence.chunks.get_nowait()
        await sentence.chunks.put(None)

    async def _take_chunks(self, sentence: _Sentence) -> None:
        loop, limits = asyncio.get_running_loop(), self._limits
        chunks = self._speech.of(sentence.text)
        deadline_s = loop.time() + limits.first_audio_ms / 1000
        async with closing(chunks):
            while (chunk := await next_item(chunks, deadline_s, "no audio came in time")) is not None:
                await sentence.chunks.put(chunk)
                deadline_s = loop.time() + limits.between_audio_ms / 1000

    async def _say_all(
        self, encoder: Encoder, ready: "asyncio.Queue[_Sentence | None]", ahead: asyncio.Semaphore
    ) -> None:
        reply = self._start.reply
        said, last = 0, 0
        while (sentence := await ready.get()) is not None:
            await self._say(encoder, sentence)
            self._post(SentenceSynthesized(reply, sentence.number))
            said, last = said + 1, sentence.number
            ahead.release()
        if said and not self._made_us:
            raise ProviderError(type(self._synthesizer).__name__, FailureKind.BROKEN, "made no audio at all")
        if said:
            self._give_out(last, await self._threads.finish(encoder))
        self._post(SpeechEnded(reply))

    async def _say(self, encoder: Encoder, sentence: _Sentence) -> None:
        sentence.leaving = True
        rate_hz = 0
        while (chunk := await sentence.chunks.get()) is not None:
            rate_hz = chunk.rate_hz
            piece_bytes = rate_hz * PIECE_MS // 1000 * 2
            for start in range(0, len(chunk.pcm), piece_bytes):
                await self._encode(encoder, sentence.number, chunk.pcm[start : start + piece_bytes], rate_hz)
        if rate_hz and encoder.held_back_ms:
            # The end of a sentence must not stay in the encoder until the next sentence pushes it out.
            silence = bytes(rate_hz * encoder.held_back_ms // 1000 * 2)
            await self._encode(encoder, sentence.number, silence, rate_hz)

    async def _encode(self, encoder: Encoder, sentence: int, pcm: bytes, rate_hz: int) -> None:
        await self._room()
        payload = await self._threads.encode(encoder, self._gain.apply(pcm), rate_hz)
        self._made_us += len(pcm) // 2 * 1_000_000 // rate_hz
        if self.on_speech is not None:
            self.on_speech(self._start.reply, pcm, rate_hz, self._made_us // 1000)
        self._give_out(sentence, payload)

    def _give_out(self, sentence: int, payload: bytes) -> None:
        self._post(SpeechSynthesized(self._start.reply, sentence, payload, self._made_us // 1000))


def _kind(failure: BaseException) -> str:
    """What the client is told of a failure: its kind, never the provider's own words."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure.kind.value if isinstance(failure, ProviderError) else "failure"
