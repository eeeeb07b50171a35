"""Providers around providers, and services that were not derived from `Provider`."""

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
from voicechat.session.vocabulary import Transcript

S_co = TypeVar("S_co", covariant=True)


def as_provider(service: object) -> Provider:
    """Give a service as a `Provider`: itself if it is one, else with the defaults for
    what it lacks.
    """
    return service if isinstance(service, Provider) else _Foreign(service)


def as_recognizer(service: SpeechRecognizer) -> RecognizerProvider:
    """Give a recogniser as a `RecognizerProvider`, likewise."""
    return service if isinstance(service, RecognizerProvider) else _ForeignRecognizer(service)


def as_synthesizer(service: SpeechSynthesizer) -> SynthesizerProvider:
    """Give a synthesiser as a `SynthesizerProvider`, likewise."""
    return service if isinstance(service, SynthesizerProvider) else _ForeignSynthesizer(service)


class Wrapping(Provider, Generic[S_co]):
    """A provider around another one: in everything that it does not override it is the
    inner one.
    """

    def __init__(self, inner: S_co) -> None:
        self._inner = inner
        self._life = as_provider(inner)

    async def start(self) -> None:
        """See `Provider`."""
        await self._life.start()

    async def aclose(self) -> None:
        """See `Provider`."""
        await self._life.aclose()

    async def probe(self) -> None:
        """See `Provider`."""
        await self._life.probe()

    @property
    def has_probe(self) -> bool:
        """See `Provider`."""
        return self._life.has_probe

    @property
    def waiting_streams(self) -> int:
        """See `Provider`."""
        return self._life.waiting_streams


class WrappingModel(Wrapping[ChatModel]):
    """A `ChatModel` around another one."""

    def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        """See `ChatModel`."""
        return self._inner.reply(request)


class WrappingRecognizer(Wrapping[RecognizerProvider], RecognizerProvider):
    """A `SpeechRecognizer` around another one."""

    def __init__(self, inner: SpeechRecognizer) -> None:
        super().__init__(as_recognizer(inner))

    def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        """See `SpeechRecognizer`."""
        return self._inner.recognize(audio, options)

    @property
    def first_use_grace_s(self) -> float:
        """See `RecognizerProvider`."""
        return self._inner.first_use_grace_s


class WrappingSynthesizer(Wrapping[SynthesizerProvider], SynthesizerProvider):
    """A `SpeechSynthesizer` around another one."""

    def __init__(self, inner: SpeechSynthesizer) -> None:
        super().__init__(as_synthesizer(inner))

    @property
    def voices(self) -> tuple[str, ...]:
        """See `SpeechSynthesizer`."""
        return self._inner.voices

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """See `SpeechSynthesizer`."""
        return self._inner.synthesize(text, voice)

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """See `SynthesizerProvider`."""
        return self._inner.shapes_prosody(speech_rate, pitch_rate)

    def for_one_reply(self) -> SpeechSynthesizer:
        """See `SynthesizerProvider`: a copy around the inner one for one reply, which
        shares all else with this one.
        """
        inner = self._inner.for_one_reply()
        if inner is self._inner:
            return self
        around = copy(self)
        around._inner = as_synthesizer(inner)
        return around


class _Foreign(Provider):
    """A service that has some of a provider's attributes, and need not have any."""

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

    @property
    def waiting_streams(self) -> int:
        return int(getattr(self._service, "waiting_streams", 0))


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
