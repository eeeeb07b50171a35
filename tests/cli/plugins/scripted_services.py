"""A plug-in as somebody outside would write it: factories that a configuration
names.
"""

import asyncio
from collections.abc import AsyncIterator

import numpy as np

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import (
    AudioChunk,
    EmbeddingRequest,
    Embeddings,
    TextEmbedder,
    VoiceOptions,
)
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer


def open_recognizer(*, text: str, word_ms: int = 100) -> ScriptedRecognizer:
    return ScriptedRecognizer(texts=(text,), word_ms=word_ms)


def open_chat_model(*, reply: list[str]) -> ScriptedModel:
    return ScriptedModel(replies=(tuple(reply),))


def open_synthesizer() -> ScriptedSynthesizer:
    return ScriptedSynthesizer()


class _ScriptedEmbedder(TextEmbedder):
    identity = "scripted/2"

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        return Embeddings(np.array([[0.6, 0.8]] * len(request.texts), np.float32))


def open_embedder() -> _ScriptedEmbedder:
    return _ScriptedEmbedder()


class _SlowSynthesizer(ScriptedSynthesizer):
    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """Speak 10 ms, which take 50."""
        await asyncio.sleep(0.05)
        yield AudioChunk(bytes(320), 16_000)


def open_slow_synthesizer() -> ScriptedSynthesizer:
    return _SlowSynthesizer()


class _Unstartable(ScriptedModel):
    async def start(self) -> None:
        raise ProviderError("scripted", FailureKind.BROKEN, "no model file")


def open_unstartable() -> ScriptedModel:
    return _Unstartable()


def sound_the_siren() -> None:
    """Do something that cannot be undone."""
    raise AssertionError("nobody asked for it")
