"""The bench's scripted services through the public plug-in seam: ``provider =
"peer_services:open_recognizer"``.

Delays and shapes come from the bench's own module ``delays``, which every engine under
test imports.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import Any

from voicechat.providers.interfaces import (
    AudioChunk,
    ChatRequest,
    RecognitionOptions,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    VoiceOptions,
)
from voicechat.session.types import Transcript

delays: Any = importlib.import_module("delays")
TOKENS: tuple[str, ...] = tuple(delays.tokens())
SENTENCE: bytes = delays.sentence_pcm()
CHUNK_BYTES = int(delays.RATE * delays.TTS_CHUNK_S) * 2


class _Recognizer:
    """Understands the same whatever was said, a while after the audio has ended."""

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        heard_bytes = 0
        async for pcm in audio:
            heard_bytes += len(pcm)
        if heard_bytes:
            await asyncio.sleep(delays.STT_FINAL_S)
            yield Transcript(delays.TRANSCRIPT, 0, heard_bytes * 1000 // (2 * delays.RATE))


class _Model:
    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        for token in TOKENS:
            await asyncio.sleep(delays.LLM_TOKEN_S)
            yield TextDelta(token)
        yield ReplyFinished("stop")


class _Synthesizer:
    voices = ("tone",)

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        await asyncio.sleep(delays.TTS_FIRST_S)
        for start in range(0, len(SENTENCE), CHUNK_BYTES):
            yield AudioChunk(SENTENCE[start : start + CHUNK_BYTES], delays.RATE)


def open_recognizer() -> _Recognizer:
    """Open the bench's recogniser."""
    return _Recognizer()


def open_chat_model() -> _Model:
    """Open the bench's chat model."""
    return _Model()


def open_synthesizer() -> _Synthesizer:
    """Open the bench's synthesiser."""
    return _Synthesizer()
