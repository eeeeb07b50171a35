"""OpenAI's speech endpoint: a sentence in, streamed samples out."""

from collections.abc import AsyncGenerator, Sequence

import orjson

from voicechat.audio.riff import SIGNATURE_BYTES, HeaderParser, may_be_clip
from voicechat.audio.samples import SampleEncoding, SampleLayout, to_mono_s16
from voicechat.audio.signatures import SIGNATURE_BYTES as CERTAIN_BYTES
from voicechat.audio.signatures import is_refused, known_container
from voicechat.errors import FailureKind, ProviderError, RemoteProtocolError
from voicechat.providers.interfaces import AudioChunk, SynthesizerProvider, VoiceOptions
from voicechat.providers.openai_http import PROVIDER, OpenAIEndpoint, refuse_json

VOICES = tuple("alloy ash ballad cedar coral echo fable marin nova onyx sage shimmer verse".split())
"""The voices of OpenAI's own models."""
RATE_HZ = 24_000
"""OpenAI's ``pcm``: 24 kHz, 16 bits, little-endian, no header ("Text to speech" guide,
supported output formats).
"""
SLOWEST, FASTEST = 0.25, 4.0
"""``speed`` (API reference, "Create speech")."""

_HEADERS = {"Content-Type": "application/json"}
_SAMPLE_TYPES = frozenset(
    """audio/pcm audio/x-pcm audio/l16 audio/raw audio/x-raw audio/wav audio/x-wav audio/wave
    audio/vnd.wave application/octet-stream binary/octet-stream""".split()
)
"""Content types that servers use for raw samples and WAV files."""
_TEXT_BYTES = 64
"""The first samples are not mistaken for text within this many bytes."""
_PRINTABLE = bytes((9, 10, 13, *range(32, 127)))


class OpenAISynthesizer(SynthesizerProvider):
    """A `SpeechSynthesizer` over HTTP."""

    def __init__(
        self,
        endpoint: OpenAIEndpoint,
        fields: dict[str, object],
        *,
        voices: Sequence[str],
        rate_hz: int,
        obeys_speed: bool,
    ) -> None:
        """``fields`` are sent with every request, such as the model and the format."""
        self._endpoint = endpoint
        self._fields = fields
        self._voices = tuple(voices)
        self._rate_hz = rate_hz
        self._obeys_speed = obeys_speed

    @property
    def voices(self) -> tuple[str, ...]:
        """The names that a client may request. The first is the default."""
        return self._voices

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """Return whether the endpoint supports both rates; it has no pitch."""
        return self._obeys_speed and pitch_rate == 1 and SLOWEST <= speech_rate <= FASTEST

    async def start(self) -> None:
        """Warm up a connection, as `OpenAIEndpoint.start`."""
        await self._endpoint.start()

    async def probe(self) -> None:
        """Check whether the service answers, as `OpenAIEndpoint.probe`."""
        await self._endpoint.probe()

    async def aclose(self) -> None:
        """Close all connections; sentences in progress fail."""
        await self._endpoint.aclose()

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncGenerator[AudioChunk, None]:
        """Speak. Text without a letter or digit yields no chunk.

        Cancelling closes the connection. Raises `ProviderError`, besides what
        `OpenAIEndpoint.post` raises: REJECTED for an unknown voice and for text with
        lone surrogates, BROKEN for an answer that is not audio.
        """
        name = voice.voice or self._voices[0]
        if name not in self._voices:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, f"no voice {name!r}")
        if not any(map(str.isalnum, text)):
            return
        asked = self._fields | {"input": text, "voice": name}
        if voice.speech_rate != 1:
            asked["speed"] = voice.speech_rate
        try:
            body = orjson.dumps(asked)
        except orjson.JSONEncodeError as error:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, "the text is no JSON") from error
        async with self._endpoint.post("audio/speech", body, _HEADERS) as response:
            await refuse_json(response, "audio")
            samples = SpokenSamples(self._rate_hz, response.content_type)
            async for piece in response.content.iter_any():
                if pcm := samples.push_bytes(piece):
                    yield AudioChunk(pcm, samples.rate_hz)
            if pcm := samples.finish_audio():
                yield AudioChunk(pcm, samples.rate_hz)


class SpokenSamples:
    """Converts the body of an answer, received in arbitrary pieces, to s16le mono. No
    I/O.

    A body that begins like a WAV file is parsed as one, whatever format was requested;
    any other is raw samples. Raises `ProviderError` (BROKEN) for another content type,
    for a beginning like compressed audio or a page, because it would be a burst of
    noise, and for an unusable WAV header.
    """

    def __init__(self, rate_hz: int, content_type: str = "application/octet-stream") -> None:
        """``rate_hz`` of raw samples. ``content_type``: the server's label."""
        self.rate_hz = rate_hz
        self._content_type = content_type
        self._start: bytes | None = b""
        self._header: HeaderParser | None = None
        self._layout = SampleLayout(SampleEncoding.S16, 1)
        self._left_bytes: int | None = None
        self._cut_sample = b""

    def push_bytes(self, body: bytes) -> bytes:
        """Add bytes, of any number; returns whole samples, perhaps none."""
        if self._start is None:
            return self._read(body)
        body = self._start + body
        needed_bytes = _needed_bytes(body)
        if len(body) < needed_bytes:
            self._start = body
            return b""
        return self._begin(body, needed_bytes)

    def finish_audio(self) -> bytes:
        """End the body; returns samples that were too short to be identified. Half a
        sample at the end is dropped.
        """
        return self._begin(self._start, len(self._start)) if self._start else b""

    def _begin(self, body: bytes, certain_bytes: int) -> bytes:
        """Identify the format by the first ``certain_bytes``, and parse them."""
        self._start, start = None, body[:certain_bytes]
        if len(start) >= SIGNATURE_BYTES and may_be_clip(start):
            self._header = HeaderParser()
        elif self._content_type.lower() not in _SAMPLE_TYPES:
            raise _unusable(self._content_type)
        elif start.startswith(b"ID3") or known_container(start) is not None:
            raise _unusable("compressed audio")
        elif is_refused(start) or (
            len(start) == _TEXT_BYTES and not start.translate(None, _PRINTABLE)
        ):
            raise _unusable("a text or an archive")
        return self._read(body)

    def _read(self, body: bytes) -> bytes:
        if self._header is not None:
            try:
                parsed = self._header.push_bytes(body)
            except RemoteProtocolError as error:
                raise ProviderError(PROVIDER, FailureKind.BROKEN, error.message) from error
            if parsed is None:
                return b""
            header, body = parsed
            self._header = None
            # A server that streams cannot know the size yet; some write 0.
            self.rate_hz, self._layout, self._left_bytes = (
                header.rate_hz,
                header.layout,
                header.data_bytes or None,
            )
        return self._samples(body)

    def _samples(self, data: bytes) -> bytes:
        if self._left_bytes is not None:
            data = data[: self._left_bytes]  # other chunks, such as tags, may follow
            self._left_bytes -= len(data)
        data = self._cut_sample + data
        whole_bytes = len(data) - len(data) % self._layout.frame_bytes
        self._cut_sample = data[whole_bytes:]
        return to_mono_s16(data[:whole_bytes], self._layout) if whole_bytes else b""


def _needed_bytes(start: bytes) -> int:
    """Return how many bytes with this beginning identify the format."""
    # Samples may look like one frame of MPEG audio, AAC or AC-3, or one packet of a
    # transport stream, by chance, but not like two.
    framed = (start[:1] in (b"\xff", b"\x56") and start[1:2] >= b"\xe0") or (
        start.startswith((b"G", b"\x0b\x77"))
    )
    return CERTAIN_BYTES if framed else _TEXT_BYTES


def _unusable(what: str) -> ProviderError:
    message = (
        f"the server answers with {what}; set response_format to pcm or wav, whichever it can make"
    )
    return ProviderError(PROVIDER, FailureKind.BROKEN, message)
