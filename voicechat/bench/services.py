"""The bench's scripted services as plug-ins: ``provider =
"voicechat.bench.services:open_recognizer"``.

Each call uses a new script: scripts record their requests, and one that served a whole
bench would grow like a leak of the server.
"""

from collections.abc import AsyncIterator
from pathlib import Path

from voicechat.bench.script import (
    CHUNK_MS,
    DELAYS,
    FIRST_DELTAS,
    MS_PER_CHARACTER,
    WORD_MS,
    reply_to,
    turn_named_in,
    turn_of,
    words_of,
)
from voicechat.bench.timestamps import TIMESTAMPS, Moment
from voicechat.providers.interfaces import (
    AudioChunk,
    ChatModel,
    ChatRequest,
    RecognitionOptions,
    ReplyPart,
    SpeechRecognizer,
    SpeechSynthesizer,
    VoiceOptions,
)
from voicechat.runtime.provider_deadlines import closing
from voicechat.session.types import Transcript
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer


class _Recognizer:
    def __init__(self, timestamps: str) -> None:
        self._folder = timestamps

    async def aclose(self) -> None:
        """Write the timestamps of all three services."""
        if self._folder:
            TIMESTAMPS.write_to(Path(self._folder))

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        first = await anext(audio, b"")
        turn = turn_of(first)
        script = ScriptedRecognizer(
            texts=(words_of(turn),), word_ms=WORD_MS, final_ms=DELAYS.asr_final_ms
        )
        results = script.recognize(TIMESTAMPS.mark_end_of(_with(first, audio), turn), options)
        async with closing(results):
            async for result in results:
                TIMESTAMPS.mark(turn, Moment.UNDERSTOOD)
                yield result


async def _with(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for pcm in rest:
        yield pcm


class _Model:
    def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        turn = turn_named_in(str(request.messages[-1]["content"])) or 0
        script = ScriptedModel(
            (reply_to(turn),), first_ms=DELAYS.first_token_ms, delta_ms=DELAYS.delta_ms
        )
        return TIMESTAMPS.mark_items(
            script.reply(request), turn, Moment.ASKED, Moment.SENTENCE, FIRST_DELTAS
        )


RATE_HZ = 22_050
"""The rate of the embedded synthesiser and of the default output: no resampling."""


class _Synthesizer:
    voices = ("scripted",)

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        script = ScriptedSynthesizer(
            rate_hz=RATE_HZ,
            ms_per_character=MS_PER_CHARACTER,
            first_ms=DELAYS.tts_first_ms,
            chunk_delay_ms=DELAYS.tts_chunk_ms,
            chunk_ms=CHUNK_MS,
        )
        turn = turn_named_in(text)
        chunks = script.synthesize(text, voice)
        return (
            chunks
            if turn is None
            else TIMESTAMPS.mark_items(chunks, turn, Moment.SPEAK, Moment.SAMPLES)
        )


def open_recognizer(*, timestamps: str = "") -> SpeechRecognizer:
    """Open the recogniser with the scripted transcript. ``timestamps`` is the folder
    for the timestamps.
    """
    return _Recognizer(timestamps)


def open_chat_model() -> ChatModel:
    """Open the model with the scripted reply."""
    return _Model()


def open_synthesizer() -> SpeechSynthesizer:
    """Open the synthesiser of a constant signal."""
    return _Synthesizer()
