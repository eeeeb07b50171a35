"""The audio formats of the wire contract, by name: the input and output formats.

Parsing a name opens no codec, so that an invalid name is refused before any audio is
sent.
"""

import re
from dataclasses import dataclass
from enum import Enum

from voicechat.errors import Fault, RemoteProtocolError

LOWEST_RATE_HZ = 8000
HIGHEST_RATE_HZ = 192000
OUTPUT_RATES_HZ = (8000, 16000, 22050, 24000, 44100, 48000)

_OUTPUT_NAME = re.compile(
    r"(WAV|PCM|MP3|OGG_OPUS)_([0-9]{1,6})(HZ|KHZ)_MONO_([0-9]{1,4})(BIT|KBPS)"
)
_PACKET_NAME = re.compile(
    r"(OPUS|PCM|MU_LAW|A_LAW)_([0-9]{4,6})HZ(?:_([0-9]{4,6})BPS)?_([0-9]{2,3})MS"
)
_SAMPLE_PACKET_MS = (20, 40, 60)
OPUS_RATES_HZ = (8000, 16000, 24000, 48000)
_OUTPUT_GRAMMAR = (
    "WAV_<rate>HZ_MONO_16BIT, PCM_<rate>HZ_MONO_16BIT or MP3_<rate>HZ_MONO_<n>KBPS, "
    f"rate one of {', '.join(map(str, OUTPUT_RATES_HZ))}; "
    "OGG_OPUS_<rate>KHZ_MONO_<n>KBPS, rate one of "
    f"{', '.join(str(rate // 1000) for rate in OPUS_RATES_HZ)}"
)

# The bit rates, in kbit/s, of layer III: ISO/IEC 11172-3 (MPEG-1, rates from 32 kHz),
# ISO/IEC 13818-3 (MPEG-2, the rates of half that) and their customary continuation
# MPEG-2.5 (8 kHz), which LAME ends at 64.
_MPEG1_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG25_KBPS = (8, 16, 24, 32, 40, 48, 56, 64)
_MPEG2_SUBSTITUTE_KBPS = 128
_OPUS_KBPS = (6, 256)
"""The range of bit rates for one channel (RFC 6716, section 2.1.1). A requested rate
outside is clamped.
"""


class Container(Enum):
    """The container of encoded speech; the codec, if the audio is bare packets."""

    WAV = "wav"
    PCM = "pcm"
    """16-bit little-endian samples, as a stream or in packets."""
    MP3 = "mp3"
    OGG_OPUS = "ogg_opus"
    OPUS = "opus"
    """Bare Opus packets (RFC 6716)."""
    MU_LAW = "mulaw"
    """G.711 in packets."""
    A_LAW = "alaw"

    @property
    def compressed(self) -> bool:
        """Whether a codec compresses the samples, which takes milliseconds."""
        return self in (Container.MP3, Container.OGG_OPUS, Container.OPUS)


_CONTENT_TYPES = {
    Container.WAV: "audio/wav",
    Container.PCM: "audio/pcm",
    Container.MP3: "audio/mpeg",
    Container.OGG_OPUS: "audio/ogg; codecs=opus",
    Container.OPUS: "audio/opus",
    Container.MU_LAW: "audio/pcmu",
    Container.A_LAW: "audio/pcma",
}


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The format of a reply's audio, always mono. ``bitrate_bps`` is None for samples,
    16-bit or G.711.
    """

    name: str
    container: Container
    rate_hz: int
    bitrate_bps: int | None
    packet_ms: int | None = None
    """The length of each packet; None: the audio is a stream without packets."""

    @property
    def content_type(self) -> str:
        """The media type for HTTP."""
        return _CONTENT_TYPES[self.container]


class InputContainer(Enum):
    """The codec and container of a client's audio. The value is the wire name."""

    PCM = "pcm"
    """Raw 16-bit samples."""
    WAV = "wav"
    MU_LAW = "mulaw"
    """Raw G.711 mu-law."""
    A_LAW = "alaw"
    G722 = "g722"
    """Raw G.722 at 64 kbit/s."""
    MP3 = "mp3"
    OPUS = "opus"
    """In Ogg."""
    OPUS_RAW = "opus_raw"
    """One packet per frame."""
    SPEEX = "speex"
    """In Ogg."""
    AAC = "aac"
    """In ADTS."""
    AMR = "amr"
    """Narrow-band or wide-band, according to its magic number."""
    FLAC = "flac"
    WEBM = "webm"
    """Opus in WebM."""
    MP4 = "mp4"
    """AAC, Opus or FLAC in fragmented MP4."""

    @property
    def compressed(self) -> bool:
        """Whether it needs a codec. Then the stream itself declares rate and channels,
        and it is decoded in a separate process.
        """
        return self not in _SAMPLES


_OTHER_NAMES = {"": "wav", "m4a": "mp4"}
_SAMPLES = frozenset(
    {InputContainer.PCM, InputContainer.WAV, InputContainer.MU_LAW, InputContainer.A_LAW}
)


@dataclass(frozen=True, slots=True)
class InputFormat:
    """The declared format of a client's audio. ``rate_hz`` applies to samples without a
    header.
    """

    container: InputContainer
    rate_hz: int


def parse_output_format(name: str) -> OutputFormat:
    """Parse the name of an output format such as ``MP3_22050HZ_MONO_256KBPS``.

    A bit rate that layer III does not have at the sample rate is replaced by the
    nearest it has (of two equally near, the lower), except that above MPEG-2's limit of
    160 kbit/s the substitute is 128.

    Raises ``RemoteProtocolError`` (``INVALID_PARAMETER``) for a name outside the
    grammar.
    """
    parts = _OUTPUT_NAME.fullmatch(name)
    if parts is None:
        raise _unknown_output(name)
    kind, rate_text, rate_unit, depth_text, depth_unit = parts.groups()
    container = Container(kind.lower())
    rate_hz = int(rate_text) * (1000 if rate_unit == "KHZ" else 1)
    depth = int(depth_text)
    rates_hz = OPUS_RATES_HZ if container is Container.OGG_OPUS else OUTPUT_RATES_HZ
    compressed = container in (Container.MP3, Container.OGG_OPUS)
    depth_known = (
        (depth_unit == "KBPS" and depth > 0)
        if compressed
        else (depth_unit == "BIT" and depth == 16)
    )
    if rate_hz not in rates_hz or not depth_known:
        raise _unknown_output(name)
    bitrate_bps: int | None
    match container:
        case Container.MP3:
            bitrate_bps = _mp3_kbps(rate_hz, depth) * 1000
        case Container.OGG_OPUS:
            bitrate_bps = min(max(depth, _OPUS_KBPS[0]), _OPUS_KBPS[1]) * 1000
        case _:
            bitrate_bps = None
    return OutputFormat(name, container, rate_hz, bitrate_bps)


def packet_format(
    container: Container, rate_hz: int, packet_ms: int, bitrate_bps: int | None = None
) -> OutputFormat:
    """Return the format of audio that a dialect sends in packets of ``packet_ms``.

    PCM, mu-law and A-law allow packets of 20, 40 or 60 ms and no ``bitrate_bps``. Opus
    allows 20, 40, 60 or 120 ms, at 8, 16, 24 or 48 kHz, with a ``bitrate_bps`` of 6,000
    to 256,000. The format's ``name`` is the value for ``VoiceSettings.format``.

    Raises ``ValueError`` for anything else.
    """
    match container:
        case Container.OPUS:
            possible = (
                packet_ms in (*_SAMPLE_PACKET_MS, 120)
                and rate_hz in OPUS_RATES_HZ
                and bitrate_bps is not None
                and _OPUS_KBPS[0] <= bitrate_bps / 1000 <= _OPUS_KBPS[1]
            )
        case Container.PCM | Container.MU_LAW | Container.A_LAW:
            # At a multiple of 50 Hz, 20 ms are a whole number of samples.
            possible = (
                packet_ms in _SAMPLE_PACKET_MS
                and LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ
                and rate_hz % 50 == 0
                and bitrate_bps is None
            )
        case _:
            possible = False
    if not possible:
        raise ValueError(
            f"{container.value} of {rate_hz} Hz and {bitrate_bps} bit/s cannot be sent "
            f"in packets of {packet_ms} ms"
        )
    bitrate = "" if bitrate_bps is None else f"_{bitrate_bps}BPS"
    name = f"{container.name}_{rate_hz}HZ{bitrate}_{packet_ms}MS"
    return OutputFormat(name, container, rate_hz, bitrate_bps, packet_ms)


def parse_voice_format(name: str) -> OutputFormat:
    """Parse a value of ``VoiceSettings.format``: a name that ``parse_output_format``
    accepts, or the name of a ``packet_format``.

    Raises ``RemoteProtocolError`` as ``parse_output_format`` does, and ``ValueError``
    as ``packet_format`` does.
    """
    packets = _PACKET_NAME.fullmatch(name)
    if packets is None:
        return parse_output_format(name)
    kind, rate_text, bitrate_text, packet_text = packets.groups()
    bitrate_bps = None if bitrate_text is None else int(bitrate_text)
    return packet_format(Container[kind], int(rate_text), int(packet_text), bitrate_bps)


def parse_input_format(name: str, sample_rate_hz: int) -> InputFormat:
    """Parse the declared format of a client's audio. An empty name means ``wav``,
    ``m4a`` means ``mp4``.

    Raises ``RemoteProtocolError`` (``INVALID_PARAMETER``) for an unknown name or a
    sample rate outside 8000 to 192000 Hz.
    """
    try:
        container = InputContainer(_OTHER_NAMES.get(name, name))
    except ValueError:
        allowed = ", ".join(container.value for container in InputContainer)
        raise RemoteProtocolError(
            Fault.INVALID_PARAMETER, f"format {_quoted(name)} is not known; allowed: {allowed}"
        ) from None
    if not LOWEST_RATE_HZ <= sample_rate_hz <= HIGHEST_RATE_HZ:
        raise RemoteProtocolError(
            Fault.INVALID_PARAMETER,
            f"sample_rate {sample_rate_hz} is not allowed; "
            f"allowed: {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ}",
        )
    return InputFormat(container, sample_rate_hz)


def _mp3_kbps(rate_hz: int, wished_kbps: int) -> int:
    allowed: tuple[int, ...]
    if rate_hz >= 32000:
        allowed = _MPEG1_KBPS
    elif rate_hz >= 16000:
        if wished_kbps > _MPEG2_KBPS[-1]:
            return _MPEG2_SUBSTITUTE_KBPS
        allowed = _MPEG2_KBPS
    else:
        allowed = _MPEG25_KBPS
    return min(allowed, key=lambda kbps: (abs(kbps - wished_kbps), kbps))


def _unknown_output(name: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        Fault.INVALID_PARAMETER, f"format {_quoted(name)} is not known; allowed: {_OUTPUT_GRAMMAR}"
    )


def _quoted(name: str) -> str:
    # The message is sent to the client: a hostile name must not make it long.
    return repr(name if len(name) <= 60 else name[:60] + "...")
