"""Synthesis by a Wyoming service."""

from collections.abc import AsyncGenerator, Iterable

from wyoming.audio import AudioChunk as WyomingAudio
from wyoming.audio import AudioStop
from wyoming.info import TtsVoice
from wyoming.tts import Synthesize, SynthesizeVoice

from voicechat.audio.formats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import AudioChunk, SynthesizerProvider, VoiceOptions
from voicechat.providers.wyoming_link import (
    PROVIDER,
    WyomingService,
    describe,
    read_data,
    unless_away,
)

WIDTH_BYTES = 2
RATES_HZ = range(LOWEST_RATE_HZ, HIGHEST_RATE_HZ + 1)
SPEAKER_MARK = "#"
"""Separates a voice and one of its speakers: ``name#speaker``."""
UNNAMED = "default"
"""The voice of a service that has no names for voices."""


class WyomingSynthesizer(SynthesizerProvider):
    """A `SpeechSynthesizer`. Each sentence is one request."""

    def __init__(self, service: WyomingService, voice: str) -> None:
        self._service = service
        self._voice = voice
        self._voices: tuple[str, ...] = (voice or UNNAMED,)
        self._asked = False

    @property
    def voices(self) -> tuple[str, ...]:
        """The names that a client may request, known after `start`. The first is the
        default.
        """
        return self._voices

    async def start(self) -> None:
        """Request the service's voices: REJECTED if it lacks the configured one.

        If the service is unreachable, the request is repeated before the first
        sentence.
        """
        await unless_away(self._learn_voices())

    async def _learn_voices(self) -> None:
        info = await describe(self._service)
        if not info.tts:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, "the service offers no synthesis")
        voices = [voice for program in info.tts for voice in program.voices]
        # Only installed voices: a client must not make the service download one.
        offered = _names(voice for voice in voices if voice.installed)
        known = offered + _names(voice for voice in voices if not voice.installed)
        if self._voice and known and self._voice not in known:
            message = f"voice: there is no {self._voice!r}; the service has {', '.join(known[:20])}"
            raise ProviderError(PROVIDER, FailureKind.REJECTED, message)
        default = self._voice or (offered[0] if offered else UNNAMED)
        self._voices = (default, *dict.fromkeys(name for name in offered if name != default))
        self._asked = True

    async def probe(self) -> None:
        """Request the service's description, as in `start`. Raises `ProviderError` as
        `describe`.
        """
        await describe(self._service)

    async def aclose(self) -> None:
        """Close all connections; sentences in progress fail."""
        self._service.close()

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncGenerator[AudioChunk, None]:
        """Speak. Text without a letter or digit yields no chunk and opens no
        connection.

        Raises `ProviderError` as `WyomingRecognizer.recognize`, and REJECTED for an
        unknown voice. Cancelling drops the connection.
        """
        if not any(char.isalnum() for char in text):
            return
        if not self._asked:
            await self._learn_voices()
        name = voice.voice or self._voices[0]
        if name not in self._voices:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, f"no voice {name!r}")
        link = await self._service.connect()
        try:
            await link.send(Synthesize(text=text, voice=_wyoming_voice(name)))
            odd_byte, rate_hz = b"", 0
            while not AudioStop.is_type(
                (event := await link.receive_answer(WyomingAudio, AudioStop)).type
            ):
                chunk = read_data(WyomingAudio.from_event, event)
                usable = (chunk.width, chunk.channels) == (
                    WIDTH_BYTES,
                    1,
                ) and chunk.rate in RATES_HZ
                if not usable or chunk.rate != (rate_hz or chunk.rate):
                    raise ProviderError(
                        PROVIDER,
                        FailureKind.BROKEN,
                        "the audio is not of one kind, 16-bit and mono",
                    )
                rate_hz = chunk.rate
                pcm = odd_byte + chunk.audio
                whole_bytes = len(pcm) & ~1
                odd_byte = pcm[whole_bytes:]
                if whole_bytes:
                    yield AudioChunk(pcm[:whole_bytes], rate_hz)
        finally:
            self._service.release(link)


def _names(voices: Iterable[TtsVoice]) -> list[str]:
    names: list[str] = []
    for voice in voices:
        if not voice.name:
            continue
        speakers = [f"{voice.name}{SPEAKER_MARK}{speaker.name}" for speaker in voice.speakers or ()]
        names += [voice.name, *(speakers if len(speakers) > 1 else ())]
    return names


def _wyoming_voice(name: str) -> SynthesizeVoice | None:
    if name == UNNAMED:
        return None
    voice, _, speaker = name.partition(SPEAKER_MARK)
    return SynthesizeVoice(name=voice, speaker=speaker or None)
