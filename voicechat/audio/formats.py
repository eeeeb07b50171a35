"""The audio formats of the wire contract, by name: what a client may send and what it may ask for.

Parsing a name costs nothing and touches no codec, so that a bad name is refused before any audio flows.
"""

import re
from dataclasses import dataclass
from enum import Enum

from voicechat.errors import RemoteProtocolError, Status

LOWEST_RATE_HZ = 8000
HIGHEST_RATE_HZ = 192000
OUTPUT_RATES_HZ = (8000, 16000, 22050, 24000, 44100, 48000)

_OUTPUT_NAME = re.compile(r"(WAV|PCM|MP3|OGG_OPUS)_([0-9]{1,6})(HZ|KHZ)_MONO_([0-9]{1,4})(BIT|KBPS)")
_OUTPUT_GRAMMAR = (
    "WAV_<rate>HZ_MONO_16BIT, PCM_<rate>HZ_MONO_16BIT or MP3_<rate>HZ_MONO_<n>KBPS, "
    f"rate one of {', '.join(map(str, OUTPUT_RATES_HZ))}"
)
_COMPRESSED_INPUTS = frozenset({"mp3", "opus", "opus_raw", "speex", "aac", "amr"})

# The bit rates, in kbit/s, of layer III: ISO/IEC 11172-3 (MPEG-1, rates from 32 kHz), ISO/IEC 13818-3 (MPEG-2, the
# rates of half that) and their customary continuation MPEG-2.5 (8 kHz), which LAME ends at 64.
_MPEG1_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG25_KBPS = (8, 16, 24, 32, 40, 48, 56, 64)
_MPEG2_SUBSTITUTE_KBPS = 128


class Container(Enum):
    """How encoded speech is wrapped."""

    WAV = "wav"
    PCM = "pcm"
    MP3 = "mp3"


_CONTENT_TYPES = {Container.WAV: "audio/wav", Container.PCM: "audio/pcm", Container.MP3: "audio/mpeg"}


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What a reply's audio is encoded to: always mono; ``bitrate_bps`` is None for 16-bit samples."""

    name: str
    container: Container
    rate_hz: int
    bitrate_bps: int | None

    @property
    def content_type(self) -> str:
        """The media type for an HTTP answer."""
        return _CONTENT_TYPES[self.container]


class InputContainer(Enum):
    """How a client's audio is wrapped."""

    WAV = "wav"
    PCM = "pcm"


@dataclass(frozen=True, slots=True)
class InputFormat:
    """What a client declares its audio to be; ``rate_hz`` holds for samples that no header describes."""

    container: InputContainer
    rate_hz: int


def parse_output_format(name: str) -> OutputFormat:
    """Understand an output format name such as ``MP3_22050HZ_MONO_256KBPS``.

    A bit rate that layer III does not have at the sample rate is replaced by the nearest it has (of two equally near,
    the lower), except that above MPEG-2's limit of 160 kbit/s the substitute is 128.

    Raises ``RemoteProtocolError``: ``INVALID_PARAMETER`` for a name outside the grammar, ``UNSUPPORTED_FORMAT`` for
    one inside it that is not offered.
    """
    parts = _OUTPUT_NAME.fullmatch(name)
    if parts is None:
        raise _unknown_output(name)
    kind, rate_text, rate_unit, depth_text, depth_unit = parts.groups()
    rate_hz = int(rate_text) * (1000 if rate_unit == "KHZ" else 1)
    depth = int(depth_text)
    if kind == "OGG_OPUS":
        if rate_hz not in (8000, 16000, 24000, 48000) or depth_unit != "KBPS" or depth == 0:
            raise _unknown_output(name)
        raise RemoteProtocolError(
            Status.UNSUPPORTED_FORMAT, f"format {name!r}: Ogg Opus is not offered; allowed: {_OUTPUT_GRAMMAR}"
        )
    container = Container(kind.lower())
    compressed = container is Container.MP3
    depth_known = (depth_unit == "KBPS" and depth > 0) if compressed else (depth_unit == "BIT" and depth == 16)
    if rate_hz not in OUTPUT_RATES_HZ or not depth_known:
        raise _unknown_output(name)
    return OutputFormat(name, container, rate_hz, _mp3_kbps(rate_hz, depth) * 1000 if compressed else None)


def parse_input_format(name: str, sample_rate_hz: int) -> InputFormat:
    """Understand what a client declares its audio to be; an empty name means ``wav``.

    Raises ``RemoteProtocolError``: ``UNSUPPORTED_FORMAT`` for compressed audio, ``INVALID_PARAMETER`` for an unknown
    name or a sample rate outside 8000 to 192000 Hz.
    """
    if name in _COMPRESSED_INPUTS:
        raise RemoteProtocolError(
            Status.UNSUPPORTED_FORMAT,
            f"format {name!r} comes as compressed audio, which this version does not decode; send pcm or wav",
        )
    try:
        container = InputContainer(name or "wav")
    except ValueError:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"format {_quoted(name)} is not known; allowed: pcm, wav"
        ) from None
    if not LOWEST_RATE_HZ <= sample_rate_hz <= HIGHEST_RATE_HZ:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER,
            f"sample_rate {sample_rate_hz} is not allowed; allowed: {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ}",
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
    # A message goes back over the wire: a hostile name must not make it long.
    return repr(name if len(name) <= 60 else name[:60] + "...")
