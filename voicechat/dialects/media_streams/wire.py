"""What all media streams say, whoever writes it: a stream starts, audio comes, a key is
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
"""Of 20 ms in one frame: Asterisk takes 65,500 bytes, a second at 32 kHz."""
STREAM_PARAMETERS = 50
MAX_PARAMETER_CHARACTERS = 2_000
"""Parameters of a stream beyond that are cut. Twilio's limit is 500 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStarted:
    """The call is there. ``parameters`` are those that the operator gave the stream,
    the numbers among them where the vendor says them by itself.
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
    """The audio before that mark has been played, or cleared."""

    name: str


@dataclass(frozen=True, slots=True)
class StreamStopped:
    """The caller has hung up, or the stream is over."""


Said: TypeAlias = StreamStarted | MediaReceived | KeyPressed | MarkReached | StreamStopped
"""What a vendor's messages mean."""


class Wire(ABC):
    """How one vendor writes all that. One object serves one connection."""

    protocols: ClassVar[tuple[str, ...]] = ()
    """Subprotocols of its WebSocket."""
    marks: ClassVar[bool] = True
    """False: the far end knows no marks, and ``mark`` is not called."""

    @abstractmethod
    def read(self, frame: Frame) -> Said | None:
        """Understand a frame; None: it means nothing here, as what a vendor may add.

        Raises ``RemoteProtocolError`` for what is no frame of this vendor.
        """

    @abstractmethod
    def audio(self, packets: Sequence[bytes]) -> Iterable[Frame]:
        """Write audio, to be played after all before it."""

    def spoken(self, packets: Sequence[bytes]) -> Iterable[Frame]:
        """Write all the audio of a sentence, in frames that every far end takes."""
        for start in range(0, len(packets), MOST_PACKETS):
            yield from self.audio(packets[start : start + MOST_PACKETS])

    def audio_end(self) -> Iterable[Frame]:
        """Write what ``audio`` kept for a larger frame: a reply has come to its end."""
        return ()

    @abstractmethod
    def mark(self, name: str) -> Frame:
        """Write a mark, to be returned when all audio before it has been played."""

    @abstractmethod
    def clear(self) -> Frame:
        """Write that all audio that has not been played is void, and forget what
        ``audio`` kept.
        """

    def hang_up(self) -> Iterable[Frame]:
        """Write that the call is over, where closing the socket does not say it."""
        return ()


class JsonWire(Wire):
    """A vendor that writes everything as JSON in text frames, and audio in base64."""

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
        # "inbound" is what comes from the caller; a stream of both tracks also has what
        # the caller hears, which is us.
        if media.get("track", "inbound") not in ("inbound", "inbound_track"):
            return None
        return MediaReceived(decoded(media))


def decoded(media: Mapping[str, Any]) -> bytes:
    """Decode ``payload``. Raises ``RemoteProtocolError`` for what is not base64."""
    payload = text(media, "payload")
    try:
        return pybase64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise RemoteProtocolError(Status.MALFORMED, "media.payload: is not base64") from None


def encoded(packets: Sequence[bytes]) -> str:
    """Write packets as one text of base64."""
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
    """Return the parameters in an object: numbers and truth values as text, anything
    else left out.
    """
    if not isinstance(value, dict):
        return {}
    return {
        str(name)[:MAX_PARAMETER_CHARACTERS]: str(given)[:MAX_PARAMETER_CHARACTERS]
        for name, given in list(value.items())[:STREAM_PARAMETERS]
        if isinstance(given, str | int | float)
    }
