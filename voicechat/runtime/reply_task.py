"""One reply: the chat model's text in, encoded speech out. Cancelling the task is the
only way to stop it.

The next sentence is synthesised while the previous one is encoded and sent; audio
leaves in order. The chains (`voicechat.runtime.fallback`) enforce the deadlines of the
model and the synthesiser: this module times nothing.
"""

import asyncio
import unicodedata
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias, assert_never

from voicechat.audio.encode import Encoder, Packets
from voicechat.audio.formats import parse_voice_format
from voicechat.audio.gain import Gain
from voicechat.audio.speech_level import LevelControl, VoiceLevels
from voicechat.errors import BrokenOffError, FailureKind, Fault, ProviderError
from voicechat.providers.interfaces import (
    AudioChunk,
    ChatModel,
    ChatRequest,
    Extras,
    ReplyFinished,
    ReplyPart,
    SpeechSynthesizer,
    TextDelta,
    ThoughtDelta,
    ToolsStarted,
)
from voicechat.runtime.delta_coalescer import DeltaCoalescer
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.prosody import ProsodySynthesizer
from voicechat.runtime.provider_deadlines import closing, next_item, provider_errors
from voicechat.session.effects import AdoptReply, ContinueReply, FinishSpeech, Speak, StartReply
from voicechat.session.events import (
    ReplyCited,
    ReplyFailed,
    ReplyTextArrived,
    ReplyTextEnded,
    SentenceSynthesized,
    SpeechEnded,
    SpeechSynthesized,
    ToolCalled,
    ToolsUsed,
)
from voicechat.session.reply import ReplyMade
from voicechat.session.types import SourcesCited, ToolCall, ToolExchange, Usage

SENTENCES_AHEAD = 2
"""How many sentences are in synthesis or waiting to be sent: the current one and the
next.
"""
VOICES_TRIED = 4
"""How many voices may break off in one sentence before the sentence is skipped."""
AHEAD_MS = 5_000
"""Backpressure: the synthesiser waits once this much audio of a sentence is buffered.
"""
FIRST_PIECE_MS = 50
"""Length of the first piece of a compressed reply (longer if the codec needs more input
for its first packet). The listener waits for it; the rest is encoded while it is on its
way.
"""
IN_PLACE_MS = 80
"""This much of the beginning, and the piece that it ends in, is encoded on the event
loop. The first piece is short, so the next one must not wait for a thread.
"""
IN_HAND_S = 0.3
"""While the listener has this much audio left, only whole pieces are sent. A
synthesiser that yields 20 ms at a time would otherwise cause five times as many
messages.
"""
PIECES_AT_ONCE = 5
"""Pieces encoded in one call if that many wait: 2 ms of LAME's time. Waking a thread
costs half as much as encoding a piece.
"""
REPLY_CHARACTERS = 100_000
"""A model that sends more than this is stopped, as if it had run out of tokens."""
THOUGHT_CHARACTERS = 1_000_000
"""The same for thoughts. The conversation does not keep them, so the limit is higher.
"""


ReplyEffect: TypeAlias = Speak | FinishSpeech | AdoptReply | ContinueReply
OnSound: TypeAlias = Callable[[int, bytes, int], None]
"""Called with the reply's number, s16le mono samples and their rate in Hz."""
OnSpeech: TypeAlias = Callable[[int, bytes, int, int], None]
"""Called with the reply's number, s16le mono samples, their rate in Hz, and the
position in the reply at their end in milliseconds.
"""


async def _never_late(_: float) -> bool:
    return False


class _SentenceAudio:
    """A bounded buffer for the audio of one sentence, between the synthesiser and the
    encoder.
    """

    def __init__(self, number: int, text: str, piece_ms: int) -> None:
        self.number = number
        self._piece_ms = piece_ms
        self.text = text
        self.leaving = False
        """Whether some of its audio has been sent, so that the sentence cannot be
        started over.
        """
        self._pcm = bytearray()
        self._rate_hz = 0
        self._ended = False
        self._arrived = asyncio.Event()
        self._left = asyncio.Event()

    def add(self, chunk: AudioChunk) -> bool:
        """Add synthesised audio; returns whether ``AHEAD_MS`` or more is buffered now.
        All chunks have the same rate.
        """
        self._pcm += chunk.pcm
        self._rate_hz = chunk.rate_hz
        self._arrived.set()
        return len(self._pcm) >= chunk.rate_hz * AHEAD_MS // 1000 * 2

    async def room(self) -> None:
        """Wait until less than ``AHEAD_MS`` is buffered."""
        while len(self._pcm) >= _piece_bytes(self._rate_hz, AHEAD_MS):
            self._left.clear()
            await self._left.wait()

    def forget(self) -> None:
        """Discard the buffered audio, because the sentence is started over."""
        self._pcm.clear()

    def end(self) -> None:
        """Mark the end: no more audio follows."""
        self._ended = True
        self._arrived.set()

    async def audio(self, *, at_once: bool) -> AudioChunk | None:
        """Return the next audio, at most ``PIECES_AT_ONCE`` pieces; None at the end.

        ``at_once``: return as soon as there is any audio. Otherwise wait for whole
        pieces or for the end.
        """
        while not self._ended and len(self._pcm) < (
            1 if at_once else max(1, _piece_bytes(self._rate_hz, self._piece_ms))
        ):
            self._arrived.clear()
            await self._arrived.wait()
        piece_bytes = _piece_bytes(self._rate_hz, self._piece_ms)
        size_bytes = min(len(self._pcm), piece_bytes * PIECES_AT_ONCE)
        if not (at_once or self._ended):
            size_bytes -= size_bytes % piece_bytes
        pcm = bytes(self._pcm[:size_bytes])
        del self._pcm[:size_bytes]
        self._left.set()
        return AudioChunk(pcm, self._rate_hz) if pcm else None


class ReplyTask:
    """Makes one reply and posts its events."""

    def __init__(
        self,
        start: StartReply,
        model: ChatModel,
        synthesizer: SpeechSynthesizer,
        *,
        threads: EncodingThreads,
        post: Callable[[ReplyMade | ReplyFailed], None],
        room: Callable[[], Awaitable[None]],
        give_way: Callable[[float], Awaitable[bool]] = _never_late,
        levels: VoiceLevels | None = None,
    ) -> None:
        """``start`` must name an audio format that ``parse_voice_format`` accepts.

        ``room`` is awaited before each piece of audio. ``give_way`` is awaited before
        audio is taken from the synthesiser once the reply is heard, with the seconds of
        audio that the listener has left. It returns True while the event loop is late;
        up to ``PIECES_AT_ONCE`` pieces are then sent as one. ``levels``: the levels of
        the synthesiser's voices as measured in earlier replies.
        """
        self._start = start
        self._model = model
        self._synthesizer = synthesizer
        self._speech = ProsodySynthesizer(synthesizer, start.voice, threads)
        self._gain = Gain(start.voice.volume)
        self._level: LevelControl | None = None
        if start.voice.level_dbov is not None:
            known = (levels or VoiceLevels()).level_of(start.voice.model, start.voice.voice)
            self._level = LevelControl(start.voice.level_dbov, known)
        self._threads = threads
        self._post = post
        self._format = parse_voice_format(start.voice.format)
        self._room = room
        self._give_way = give_way
        self._loop = asyncio.get_running_loop()
        self._group = asyncio.TaskGroup()
        self._sentences: asyncio.Queue[_SentenceAudio | None] = asyncio.Queue()
        """Sentences in the order of playback; None marks the end."""
        self._waiting: deque[_SentenceAudio] = deque()
        """Sentences whose synthesis has not started."""
        self._ahead = 0
        self._made_us = 0
        self._heard_from_s = 0.0
        """Loop time at which the first audio was sent."""
        self._running = False
        """Whether sentences may be synthesised: false before `run` and after the voice
        has failed.
        """
        self._requests: asyncio.Queue[ChatRequest | None] = asyncio.Queue()
        """Requests to the model after the first one; None marks the end."""
        self._text = DeltaCoalescer(lambda text: post(ReplyTextArrived(start.reply, text)))
        self._characters = 0
        self._answered = False
        """Whether the model has sent anything to hear or see, or called a tool."""
        self._adopted = asyncio.Event()
        if not start.preemptive:
            self._adopted.set()
        self.on_speech: OnSpeech | None = None
        """Called with each piece of speech before it is encoded, for the echo detector.
        It must not block.
        """
        self.on_sound: OnSound | None = None
        """Called with the same speech at the level at which it is encoded, for the
        record of the conversation.
        """

    def perform(self, effect: ReplyEffect) -> None:
        """Carry out an effect of the kernel on this reply. Never waits."""
        match effect:
            case Speak():
                self.speak(effect.sentence, effect.text)
            case FinishSpeech():
                self.finish_speech()
            case AdoptReply():
                self.adopt()
            case ContinueReply():
                self.continue_reply(effect)
            case _:
                assert_never(effect)

    def speak(self, sentence: int, text: str) -> None:
        """Queue the next sentence to be spoken."""
        item = _SentenceAudio(sentence, text, self._start.voice.piece_ms)
        self._waiting.append(item)
        self._synthesize_ahead()  # first, because nothing can be sent before it is synthesised
        self._sentences.put_nowait(item)

    def finish_speech(self) -> None:
        """Mark the end of the sentences and of the requests to the model."""
        self._sentences.put_nowait(None)
        self._requests.put_nowait(None)

    def continue_reply(self, effect: ContinueReply) -> None:
        """Ask the model again, with the answers of the client's tools."""
        self._requests.put_nowait(ChatRequest(messages=effect.messages, options=effect.options))

    def adopt(self) -> None:
        """Commit a preemptive reply: the user's turn has ended, so side effects such as
        tool calls are allowed now.
        """
        self._adopted.set()

    async def run(self) -> None:
        """Make the reply. A provider's failure is posted as ``ReplyFailed``. Cancelling
        releases the model and the synthesiser.
        """
        reply = self._start.reply
        try:
            async with self._group as group:
                self._running = True
                if self._start.voiced:
                    group.create_task(self._talk(), name=f"reply-{reply}-talk")
                    self._synthesize_ahead()
                if not self._start.scripted:
                    await self._think()
        except* ProviderError as failures:
            failure = _first(failures)
            message = f"speech synthesis failed: {failure.kind.value}"
            self._post(ReplyFailed(reply, Fault.TTS_FAILED, message, failure))
        finally:
            self._text.close()

    # --- the model --------------------------------------------------------------------

    async def _think(self) -> None:
        start = self._start
        if start.awaits_tools:
            request = await self._requests.get()
        else:
            request = ChatRequest(messages=start.messages, options=start.chat.options)
        try:
            while request is not None:
                await self._take_parts(self._model.reply(request))
                request = await self._requests.get()
        except ProviderError as failure:
            # Speech continues: the session stops the reply, or speaks a fallback
            # message.
            message = f"the chat model failed: {failure.kind.value}"
            self._post(ReplyFailed(self._start.reply, Fault.LLM_FAILED, message, failure))

    async def _take_parts(self, parts: AsyncIterator[ReplyPart]) -> None:
        reply = self._start.reply
        finish_reason, usage, thought = "stop", None, 0
        async with closing(parts):
            while (part := await next_item(parts)) is not None:
                if not isinstance(part, TextDelta):
                    self._text.flush()
                match part:
                    case TextDelta(text=""):
                        pass
                    case TextDelta(text=text):
                        self._answered = self._answered or any(map(_is_said, text))
                        self._characters += len(text)
                        await self._text.add_text(text, at_once=self._awaited)
                    case ToolCall():
                        self._answered = True
                        self._characters += len(part.arguments) + len(part.name or "") + 1
                        self._post(ToolCalled(reply, part))
                    case ToolsStarted():
                        await self._adopted.wait()
                    case ToolExchange():
                        self._answered = True
                        self._post(ToolsUsed(reply, part))
                    case SourcesCited():
                        self._post(ReplyCited(reply, part.sources))
                    case ReplyFinished():
                        finish_reason, usage = part.finish_reason, _usage(part)
                    case ThoughtDelta():
                        thought += len(part.text)  # neither spoken nor sent
                    case Extras():
                        pass
                if self._characters > REPLY_CHARACTERS or thought > THOUGHT_CHARACTERS:
                    finish_reason = "length"
                    break
        self._text.flush()
        if not self._answered:
            # Nothing to hear: the model spent its tokens on thoughts, its answer was
            # withheld, or it consists of punctuation.
            raise ProviderError("chat model", FailureKind.BROKEN, "answered without a word")
        self._post(ReplyTextEnded(reply, finish_reason, usage))

    # --- the voice --------------------------------------------------------------------

    def _synthesize_ahead(self) -> None:
        """Start the synthesis of queued sentences, up to ``SENTENCES_AHEAD`` at once.
        After a failure none is started.
        """
        while self._running and self._waiting and self._ahead < SENTENCES_AHEAD:
            self._ahead += 1
            work = self._synthesize(self._waiting.popleft())
            self._group.create_task(work, name=f"reply-{self._start.reply}-synthesize")

    async def _synthesize(self, sentence: _SentenceAudio) -> None:
        """Synthesise a sentence. If the voice breaks off before any of it was sent,
        start it over, with at most ``VOICES_TRIED`` voices; else end it there.
        """
        for _ in range(VOICES_TRIED):
            try:
                await self._take_chunks(sentence)
                break
            except BrokenOffError:
                if sentence.leaving:
                    break
                sentence.forget()
            except ProviderError:
                self._running = False
                raise
        sentence.end()

    async def _take_chunks(self, sentence: _SentenceAudio) -> None:
        chunks = self._speech.synthesize(sentence.text)
        # Not next_item for each: chunks may be of 20 ms, five to a packet.
        with provider_errors():
            async with closing(chunks):
                async for chunk in chunks:
                    if sentence.add(chunk):
                        await sentence.room()

    async def _talk(self) -> None:
        """Encode and send the audio of the sentences in order, each piece as soon as it
        is available.
        """
        reply = self._start.reply
        encoder = await self._threads.open(self._format)
        said, last = 0, 0
        while (sentence := await self._sentences.get()) is not None:
            await self._say(encoder, sentence)
            self._post(SentenceSynthesized(reply, sentence.number))
            said, last = said + 1, sentence.number
            self._ahead -= 1
            self._synthesize_ahead()
        if said and not self._made_us:
            raise ProviderError(
                type(self._synthesizer).__name__, FailureKind.BROKEN, "made no audio at all"
            )
        if said:
            self._give_out(last, await self._threads.finish_encoder(encoder))
        self._post(SpeechEnded(reply))

    async def _say(self, encoder: Encoder, sentence: _SentenceAudio) -> None:
        sentence.leaving = True
        rate_hz = 0
        while True:
            late = self._made_us > 0 and await self._give_way(self._in_hand_s)
            chunk = await sentence.audio(at_once=self._awaited)
            if chunk is None:
                break
            rate_hz = chunk.rate_hz
            # Clients count packets of a fixed length, so these are sent at most one
            # piece at a time.
            joined = late and self._format.packet_ms is None
            pieces = [chunk.pcm] if joined else self._cut(encoder, chunk)
            while pieces:
                count = 1 if self._begins else PIECES_AT_ONCE
                await self._encode(encoder, sentence.number, pieces[:count], rate_hz)
                del pieces[:count]
        if rate_hz and encoder.held_back_ms:
            # Push the end of the sentence out of the encoder. Otherwise it would stay
            # there until the next sentence.
            silence = bytes(rate_hz * encoder.held_back_ms // 1000 * 2)
            await self._encode(encoder, sentence.number, [silence], rate_hz)

    def _cut(self, encoder: Encoder, chunk: AudioChunk) -> list[bytes]:
        """Split audio into the pieces in which it is sent."""
        pcm = chunk.pcm
        piece_bytes = _piece_bytes(chunk.rate_hz, self._start.voice.piece_ms)
        first_bytes = 0
        if not self._made_us:
            first_ms = max(FIRST_PIECE_MS, encoder.first_ms) if encoder.heavy else encoder.first_ms
            first_bytes = _piece_bytes(chunk.rate_hz, first_ms)
        first = [pcm[:first_bytes]] if first_bytes else []
        return first + [
            pcm[start : start + piece_bytes] for start in range(first_bytes, len(pcm), piece_bytes)
        ]

    @property
    def _begins(self) -> bool:
        """Whether less than ``IN_PLACE_MS`` of audio has been sent."""
        return self._made_us < IN_PLACE_MS * 1000

    async def _encode(
        self, encoder: Encoder, sentence: int, pieces: list[bytes], rate_hz: int
    ) -> None:
        await self._room()
        levelled = pieces
        if self._level is not None:
            levelled = [self._level.apply(pcm, rate_hz) for pcm in pieces]
        loudened = [self._gain.apply(pcm) for pcm in levelled]
        encoded = await self._threads.encode(encoder, loudened, rate_hz, at_once=self._begins)
        for pcm, loud, packets in zip(pieces, loudened, encoded, strict=True):
            await self._room()
            if not self._made_us:
                self._heard_from_s = self._loop.time()
            self._made_us += len(pcm) // 2 * 1_000_000 // rate_hz
            if self.on_speech is not None:
                self.on_speech(self._start.reply, pcm, rate_hz, self._made_us // 1000)
            if self.on_sound is not None:
                self.on_sound(self._start.reply, loud, rate_hz)
            self._give_out(sentence, packets)

    @property
    def _awaited(self) -> bool:
        """Whether the listener has less than ``IN_HAND_S`` of audio left."""
        return self._in_hand_s < IN_HAND_S

    @property
    def _in_hand_s(self) -> float:
        """How much audio the listener has left; negative when it waits for more."""
        heard_s = self._loop.time() - self._heard_from_s
        return self._made_us / 1_000_000 - heard_s

    def _give_out(self, sentence: int, packets: Packets) -> None:
        self._post(SpeechSynthesized(self._start.reply, sentence, packets, self._made_us // 1000))


def _piece_bytes(rate_hz: int, length_ms: int) -> int:
    return rate_hz * length_ms // 1000 * 2


def _usage(finished: ReplyFinished) -> Usage | None:
    """Return the token usage that the model's server reported, or None."""
    if finished.prompt_tokens is None and finished.completion_tokens is None:
        return None
    return Usage(finished.prompt_tokens or 0, finished.completion_tokens or 0)


def _is_said(char: str) -> bool:
    """Return whether a character is spoken or shown: a letter, a digit or an emoji, but
    not punctuation or space.
    """
    return char.isalnum() or unicodedata.category(char) == "So"


def _first(failures: BaseExceptionGroup[ProviderError]) -> ProviderError:
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    assert isinstance(failure, ProviderError)
    return failure
