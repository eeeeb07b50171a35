"""The audio formats of the wire contract, by name: the input and output formats.

Parsing a name opens no codec, so that an invalid name is refused before any audio is
sent.
"""

import re
from dataclasses import dataclass
from enum import Enum

from voicechat.errors import RemoteProtocolError, Status

LOWEST_RATE_HZ = 8000
HIGHEST_RATE_HZ = 192000
OUTPUT_RATES_HZ = (8000, 16000, 22050, 24000, 44100, 48000)

_OUTPUT_NAME = re.compile(
    r"(WAV|PCM|MP3|OGG_OPUS)_([0-9]{1,6})(HZ|KHZ)_MONO_([0-9]{1,4})(BIT|KBPS)"
)
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
    """The container of encoded speech."""

    WAV = "wav"
    PCM = "pcm"
    MP3 = "mp3"
    OGG_OPUS = "ogg_opus"

    @property
    def compressed(self) -> bool:
        """Whether a codec compresses the samples, which takes milliseconds."""
        return self in (Container.MP3, Container.OGG_OPUS)


_CONTENT_TYPES = {
    Container.WAV: "audio/wav",
    Container.PCM: "audio/pcm",
    Container.MP3: "audio/mpeg",
    Container.OGG_OPUS: "audio/ogg; codecs=opus",
}


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The format of a reply's audio, always mono. ``bitrate_bps`` is None for 16-bit
    samples.
    """

    name: str
    container: Container
    rate_hz: int
    bitrate_bps: int | None

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
        case Container.PCM | Container.WAV:
            bitrate_bps = None
    return OutputFormat(name, container, rate_hz, bitrate_bps)


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
            Status.INVALID_PARAMETER, f"format {_quoted(name)} is not known; allowed: {allowed}"
        ) from None
    if not LOWEST_RATE_HZ <= sample_rate_hz <= HIGHEST_RATE_HZ:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER,
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
        Status.INVALID_PARAMETER, f"format {_quoted(name)} is not known; allowed: {_OUTPUT_GRAMMAR}"
    )


def _quoted(name: str) -> str:
    # The message is sent to the client: a hostile name must not make it long.
    return repr(name if len(name) <= 60 else name[:60] + "...")
