"""Wrappers around providers, and adapters for services that do not derive from
`Provider`.
"""

from collections.abc import AsyncIterator
from copy import copy
from typing import Any, Generic, TypeVar

from voicechat.providers.interfaces import (
    AudioChunk,
    ChatModel,
    ChatRequest,
    Provider,
    RecognitionOptions,
    RecognizerProvider,
    ReplyPart,
    SpeechRecognizer,
    SpeechSynthesizer,
    SynthesizerProvider,
    VoiceOptions,
)
from voicechat.session.types import Transcript

S_co = TypeVar("S_co", covariant=True)


def as_provider(service: object) -> Provider:
    """Return the service itself if it is a `Provider`, or else an adapter with the
    defaults for what it lacks.
    """
    return service if isinstance(service, Provider) else _Foreign(service)


def as_recognizer(service: SpeechRecognizer) -> RecognizerProvider:
    """Return a recogniser as a `RecognizerProvider`, by an adapter if necessary."""
    return service if isinstance(service, RecognizerProvider) else _ForeignRecognizer(service)


def as_synthesizer(service: SpeechSynthesizer) -> SynthesizerProvider:
    """Return a synthesiser as a `SynthesizerProvider`, by an adapter if necessary."""
    return service if isinstance(service, SynthesizerProvider) else _ForeignSynthesizer(service)


class Wrapping(Provider, Generic[S_co]):
    """A provider around another one. It delegates what it does not override."""

    def __init__(self, inner: S_co) -> None:
        self._inner = inner
        self._life = as_provider(inner)

    async def start(self) -> None:
        """Start the inner provider."""
        await self._life.start()

    async def aclose(self) -> None:
        """Close the inner provider."""
        await self._life.aclose()

    async def probe(self) -> None:
        """Probe the inner provider."""
        await self._life.probe()

    @property
    def has_probe(self) -> bool:
        """Whether the inner provider has a probe."""
        return self._life.has_probe

    @property
    def waiting_streams(self) -> int:
        """How many uses wait in the inner provider."""
        return self._life.waiting_streams

    @property
    def real_time_factor(self) -> float:
        """The real-time factor of the inner provider."""
        return self._life.real_time_factor

    @property
    def patience_s(self) -> float:
        """The patience of the inner provider."""
        return self._life.patience_s


class WrappingModel(Wrapping[ChatModel]):
    """A `ChatModel` around another one."""

    def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        """Delegate to the inner model."""
        return self._inner.reply(request)

    async def prepare(self, request: ChatRequest) -> None:
        """Delegate to the inner model."""
        await self._life.prepare(request)

    @property
    def can_prepare(self) -> bool:
        """Whether the inner model can prepare."""
        return self._life.can_prepare


class WrappingRecognizer(Wrapping[RecognizerProvider], RecognizerProvider):
    """A `SpeechRecognizer` around another one."""

    def __init__(self, inner: SpeechRecognizer) -> None:
        super().__init__(as_recognizer(inner))

    def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        """Delegate to the inner recogniser."""
        return self._inner.recognize(audio, options)

    @property
    def first_use_grace_s(self) -> float:
        """The grace of the inner recogniser."""
        return self._inner.first_use_grace_s


class WrappingSynthesizer(Wrapping[SynthesizerProvider], SynthesizerProvider):
    """A `SpeechSynthesizer` around another one."""

    def __init__(self, inner: SpeechSynthesizer) -> None:
        super().__init__(as_synthesizer(inner))

    @property
    def voices(self) -> tuple[str, ...]:
        """The voices of the inner synthesiser."""
        return self._inner.voices

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """Delegate to the inner synthesiser."""
        return self._inner.synthesize(text, voice)

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """Return whether the inner synthesiser supports these rates."""
        return self._inner.shapes_prosody(speech_rate, pitch_rate)

    def for_one_reply(self) -> SpeechSynthesizer:
        """Return a copy of this wrapper around the inner synthesiser for one reply. It
        shares all other state.
        """
        inner = self._inner.for_one_reply()
        if inner is self._inner:
            return self
        around = copy(self)
        around._inner = as_synthesizer(inner)
        return around


class _Foreign(Provider):
    """An adapter for a service that has some of a provider's attributes, or none."""

    def __init__(self, service: object) -> None:
        self._service: Any = service

    async def start(self) -> None:
        if hasattr(self._service, "start"):
            await self._service.start()

    async def aclose(self) -> None:
        if hasattr(self._service, "aclose"):
            await self._service.aclose()

    async def probe(self) -> None:
        await self._service.probe()

    @property
    def has_probe(self) -> bool:
        return hasattr(self._service, "probe")

    async def prepare(self, request: ChatRequest) -> None:
        await self._service.prepare(request)

    @property
    def can_prepare(self) -> bool:
        return bool(getattr(self._service, "can_prepare", hasattr(self._service, "prepare")))

    @property
    def waiting_streams(self) -> int:
        return int(getattr(self._service, "waiting_streams", 0))

    @property
    def real_time_factor(self) -> float:
        return float(getattr(self._service, "real_time_factor", 0.0))

    @property
    def patience_s(self) -> float:
        return float(getattr(self._service, "patience_s", 0.0))


class _ForeignRecognizer(_Foreign, RecognizerProvider):
    def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        results: AsyncIterator[Transcript] = self._service.recognize(audio, options)
        return results


class _ForeignSynthesizer(_Foreign, SynthesizerProvider):
    @property
    def voices(self) -> tuple[str, ...]:
        voices: tuple[str, ...] = self._service.voices
        return voices

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        chunks: AsyncIterator[AudioChunk] = self._service.synthesize(text, voice)
        return chunks

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        if not hasattr(self._service, "shapes_prosody"):
            return False
        return bool(self._service.shapes_prosody(speech_rate, pitch_rate))

    def for_one_reply(self) -> SpeechSynthesizer:
        if not hasattr(self._service, "for_one_reply"):
            return self
        synthesizer: SpeechSynthesizer = self._service.for_one_reply()
        return synthesizer
