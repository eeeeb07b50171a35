"""What the messages of all media streams mean: a stream starts, audio comes, a key is
pressed, a mark is reached, the stream stops.
"""

import binascii
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import pybase64

from voicechat.dialects.base import Frame
from voicechat.dialects.telephony import MU_LAW, LineFormat
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import read_object, shown

MOST_PACKETS = 50
"""The most packets of 20 ms in one frame: Asterisk accepts 65,500 bytes, a second at 32
kHz.
"""
STREAM_PARAMETERS = 50
MAX_PARAMETER_CHARACTERS = 2_000
"""The most parameters of a stream, and the most characters of each name and value; the
rest is cut off. Twilio's limit is 500 characters.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStarted:
    """The call has begun. ``parameters`` are those that the operator gave the stream,
    and the telephone numbers where the vendor states them.
    """

    stream_id: str = ""
    call_id: str = ""
    line: LineFormat = MU_LAW
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class MediaReceived:
    """Audio of the caller."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class KeyPressed:
    """The caller pressed a key of the keypad: 0 to 9, ``*``, ``#`` or A to D."""

    key: str


@dataclass(frozen=True, slots=True)
class MarkReached:
    """The audio before the mark of that name has been played, or cleared."""

    name: str


@dataclass(frozen=True, slots=True)
class StreamStopped:
    """The caller has hung up, or the stream is over."""


Said: TypeAlias = StreamStarted | MediaReceived | KeyPressed | MarkReached | StreamStopped
"""What a message of a vendor means."""


class Wire(ABC):
    """How one vendor writes its messages. One object serves one connection."""

    protocols: ClassVar[tuple[str, ...]] = ()
    """Subprotocols of its WebSocket."""
    marks: ClassVar[bool] = True
    """False: the far end does not know marks, and ``mark`` is not called."""

    @abstractmethod
    def read(self, frame: Frame) -> Said | None:
        """Read a frame; None: the frame means nothing here, for example a message that
        the vendor has added.

        Raises ``RemoteProtocolError`` for anything that is no frame of this vendor.
        """

    @abstractmethod
    def audio(self, packets: Sequence[bytes]) -> Iterable[Frame]:
        """Return frames that make the far end play audio after all earlier audio."""

    def spoken(self, packets: Sequence[bytes]) -> Iterable[Frame]:
        """Return the frames for all the audio of a sentence, in sizes that every far
        end accepts.
        """
        for start in range(0, len(packets), MOST_PACKETS):
            yield from self.audio(packets[start : start + MOST_PACKETS])

    def audio_end(self) -> Iterable[Frame]:
        """Return the frames for what ``audio`` kept for a larger frame: the reply has
        ended.
        """
        return ()

    @abstractmethod
    def mark(self, name: str) -> Frame:
        """Return a mark, which the far end returns when it has played all earlier
        audio.
        """

    @abstractmethod
    def clear(self) -> Frame:
        """Return the frame that discards all audio that has not been played, and forget
        what ``audio`` kept.
        """

    def hang_up(self) -> Iterable[Frame]:
        """Return the frames that end the call, where closing the socket does not end
        it.
        """
        return ()


class JsonWire(Wire):
    """A vendor that writes all messages as JSON in text frames, and audio in base64."""

    def __init__(self) -> None:
        self.stream_id = ""

    def read(self, frame: Frame) -> Said | None:
        """See ``Wire.read``."""
        if isinstance(frame, bytes):
            raise RemoteProtocolError(Status.MALFORMED, "media must be text frames of JSON")
        message = read_object(frame)
        event = message.get("event")
        match event:
            case "start":
                started = self.started(message)
                self.stream_id = started.stream_id
                return started
            case "media":
                return self._media(part(message, "media"))
            case "dtmf":
                return KeyPressed(text(part(message, "dtmf"), "digit"))
            case "mark":
                return MarkReached(text(part(message, "mark"), "name"))
            case "stop":
                return StreamStopped()
            case _:
                return None

    @abstractmethod
    def started(self, message: Mapping[str, Any]) -> StreamStarted:
        """Read the message ``start``."""

    @staticmethod
    def _media(media: Mapping[str, Any]) -> MediaReceived | None:
        # "inbound" is the caller's audio; a stream of both tracks also contains the
        # audio that the caller hears, which is the server's.
        if media.get("track", "inbound") not in ("inbound", "inbound_track"):
            return None
        return MediaReceived(decoded(media))


def decoded(media: Mapping[str, Any]) -> bytes:
    """Decode ``payload``. Raises ``RemoteProtocolError`` if it is not base64."""
    payload = text(media, "payload")
    try:
        return pybase64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise RemoteProtocolError(Status.MALFORMED, "media.payload: is not base64") from None


def encoded(packets: Sequence[bytes]) -> str:
    """Return packets as one base64 text."""
    return pybase64.b64encode_as_string(b"".join(packets))


def part(message: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object ``name`` of a message. Raises ``RemoteProtocolError``."""
    value = message.get(name)
    if not isinstance(value, dict):
        raise RemoteProtocolError(Status.MALFORMED, f"{name}: {shown(value)} is no object")
    return value


def text(message: Mapping[str, Any], name: str) -> str:
    """Return the text ``name`` of a message. Raises ``RemoteProtocolError``."""
    value = message.get(name)
    if not isinstance(value, str):
        raise RemoteProtocolError(Status.MALFORMED, f"{name}: {shown(value)} is no text")
    return value


def parameters_of(value: object) -> dict[str, str]:
    """Return the parameters in an object: numbers and truth values as text; other types
    are left out.
    """
    if not isinstance(value, dict):
        return {}
    return {
        str(name)[:MAX_PARAMETER_CHARACTERS]: str(given)[:MAX_PARAMETER_CHARACTERS]
        for name, given in list(value.items())[:STREAM_PARAMETERS]
        if isinstance(given, str | int | float)
    }
