"""The messages of the xiaozhi protocol, read and written, and the three forms of its
audio frames.

Source: xiaozhi-esp32, ``docs/websocket.md`` and ``main/protocols``.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from voicechat.audio.formats import OPUS_RATES_HZ
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import shown, write_json

VERSIONS = (1, 2, 3)
"""Versions of the binary frames: bare packets, and two with a header."""
PACKET_MS = (20, 40, 60, 120)
"""Lengths of the packets that a device may ask for."""
USUAL_RATE_HZ = 24_000
USUAL_PACKET_MS = 60
"""What the firmware expects unless the server's hello says otherwise."""
MAX_PACKET_BYTES = 6 * 1_275 + 14
"""Longer packets are dropped. 120 ms of Opus are at most six frames of 20 ms, 1,275
bytes each, and their lengths (RFC 6716, section 3.2.5).
"""
MAX_TEXT_CHARACTERS = 2_000
"""The longest wake word or typed text that is read from a device."""

_V2 = struct.Struct(">HHIII")
"""Version, type, reserved, time stamp in ms, size."""
_V3 = struct.Struct(">BBH")
"""Type, reserved, size."""
_OPUS = 0
_SILENCE = 2
"""Packets of at most this many bytes hold no sound: an encoder with DTX produces them.
"""
_SILENT_BYTES = b"\xff\xfe"
"""After a table-of-contents byte of CELT: a frame of silence."""
_SILENT_20_MS = b"\xf8" + _SILENT_BYTES


class Mode(Enum):
    """How a device listens, as it says in ``listen``."""

    AUTO = "auto"
    """The server finds the end of the turn; the microphone is off while the device
    speaks.
    """
    MANUAL = "manual"
    """A button is held while the user speaks."""
    REALTIME = "realtime"
    """The microphone is always on, and the user may interrupt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a device says of itself. A value that cannot be used is replaced by the
    usual one.
    """

    version: int
    """The version of the binary frames, in both directions."""
    raw_input: bool = False
    """It sends s16le samples in place of Opus."""
    input_rate_hz: int = 16_000
    packet_ms: int = USUAL_PACKET_MS
    rate_hz: int = USUAL_RATE_HZ
    """The sample rate of the packets that the device receives."""
    mcp: bool = False
    """It has tools."""
    echo: bool = False
    """It leaves the echo of its loudspeaker to the server, and returns time stamps."""


@dataclass(frozen=True, slots=True)
class AudioFrame:
    """One packet of a device's microphone. ``stamp_ms`` is the time stamp of the audio
    that its loudspeaker was playing; 0: unknown.
    """

    packet: bytes
    stamp_ms: int = 0


@dataclass(slots=True)
class FrameCodec:
    """Binary frames of one connection, both ways, in the version that was agreed."""

    version: int = field(default=1)

    def read(self, frame: bytes) -> AudioFrame | None:
        """Return the packet of a frame; None when it holds no audio.

        A frame with a whole header of version 2 is read as version 2 whatever was
        agreed: the chance that a packet looks like one is 1 in 2**80. Other frames that
        do not fit the version are dropped.
        """
        packet, stamp_ms, kind = frame, 0, _OPUS
        if _is_v2(frame):
            _, kind, _, stamp_ms, _ = _V2.unpack_from(frame)
            packet = frame[_V2.size :]
        elif self.version == 2:
            return None
        elif self.version == 3:
            if len(frame) < _V3.size:
                return None
            kind, _, size = _V3.unpack_from(frame)
            packet = frame[_V3.size :]
            if size != len(packet):
                return None
        if kind != _OPUS or not packet or len(packet) > MAX_PACKET_BYTES:
            return None
        return AudioFrame(packet, stamp_ms)

    def write(self, packet: bytes, stamp_ms: int) -> bytes:
        """Return the frame of a packet; the device returns ``stamp_ms`` while it plays
        the packet.
        """
        match self.version:
            case 2:
                return _V2.pack(2, _OPUS, 0, stamp_ms & 0xFFFFFFFF, len(packet)) + packet
            case 3:
                return _V3.pack(_OPUS, 0, len(packet)) + packet
            case _:
                return packet


def _is_v2(frame: bytes) -> bool:
    if len(frame) < _V2.size:
        return False
    version, kind, reserved, _, size = _V2.unpack_from(frame)
    return version == 2 and kind in (0, 1) and reserved == 0 and size == len(frame) - _V2.size


def audible(packet: bytes, packet_ms: int) -> bytes:
    """Return an Opus packet in a form that every decoder accepts: a packet that DTX
    emptied becomes a packet of silence of the same length.
    """
    return silence(packet_ms) if len(packet) <= _SILENCE else packet


def silence(length_ms: int) -> bytes:
    """Return one Opus packet of silence: ``length_ms`` is a multiple of 20 up to 120.

    Several frames of 20 ms, of one size (RFC 6716, section 3.2.5).
    """
    frames = length_ms // 20
    return _SILENT_20_MS if frames == 1 else bytes((0xFB, frames)) + _SILENT_BYTES * frames


# --- what is read ---------------------------------------------------------------------


def read_hello(message: Mapping[str, object], header_version: str) -> Hello:
    """Read a device's hello. ``header_version`` is its ``Protocol-Version``.

    Raises ``RemoteProtocolError`` for an audio format other than Opus and samples: the
    server cannot decode it.
    """
    features, params = _mapping(message.get("features")), _mapping(message.get("audio_params"))
    audio_format = params.get("format", "opus")
    if audio_format not in ("opus", "pcm"):
        raise RemoteProtocolError(
            Status.UNSUPPORTED_FORMAT,
            f"audio_params.format: {shown(audio_format)} is not known; allowed: opus, pcm",
        )
    asked_hz = _number(params.get("sample_rate"), 16_000)
    return Hello(
        version=_version(message.get("version"), header_version),
        raw_input=audio_format == "pcm",
        input_rate_hz=asked_hz if 8_000 <= asked_hz <= 48_000 else 16_000,
        packet_ms=_one_of(params.get("frame_duration"), PACKET_MS, USUAL_PACKET_MS),
        mcp=features.get("mcp") is True,
        echo=features.get("aec") is True,
    )


def _version(said: object, in_header: str) -> int:
    number = int(in_header) if in_header.isdecimal() and len(in_header) < 4 else 0
    if number in VERSIONS:
        return number
    return _one_of(said, VERSIONS, 1)


def _one_of(value: object, allowed: tuple[int, ...], otherwise: int) -> int:
    number = _number(value, otherwise)
    return number if number in allowed else otherwise


def _number(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def read_mode(message: Mapping[str, object], otherwise: Mode) -> Mode:
    """Return the mode of a ``listen`` message; ``otherwise`` for none or an unknown
    one.
    """
    said = message.get("mode")
    return next((mode for mode in Mode if mode.value == said), otherwise)


# --- what is written ------------------------------------------------------------------


class MessageWriter:
    """Writes the messages of one connection, each with its ``session_id``."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id

    def _write(self, kind: str, **values: object) -> str:
        return write_json({"type": kind, "session_id": self._session_id, **values})

    def hello(self, hello: Hello) -> str:
        """Answer a hello: state the parameters of the Opus that the server sends."""
        params = {
            "format": "opus",
            "sample_rate": hello.rate_hz,
            "channels": 1,
            "frame_duration": hello.packet_ms,
        }
        return self._write(
            "hello", version=hello.version, transport="websocket", audio_params=params
        )

    def stt(self, text: str) -> str:
        """What the user said."""
        return self._write("stt", text=text)

    def tts(self, state: str, text: str | None = None) -> str:
        """Return a ``tts`` message: ``start``, ``sentence_start`` with the sentence, or
        ``stop``.
        """
        return self._write("tts", state=state, **({} if text is None else {"text": text}))

    def emotion(self, emotion: str, emoji: str) -> str:
        """The face to show."""
        return self._write("llm", text=emoji, emotion=emotion)

    def alert(self, status: str, message: str, emotion: str) -> str:
        """A message for the display, with a sound."""
        return self._write("alert", status=status, message=message, emotion=emotion)

    def mcp(self, payload: Mapping[str, object]) -> str:
        """A JSON-RPC message for the device's tools."""
        return self._write("mcp", payload=payload)


assert USUAL_RATE_HZ in OPUS_RATES_HZ
