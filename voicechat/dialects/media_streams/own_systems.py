"""The wires of self-hosted telephone systems: Asterisk's ``chan_websocket`` and
jambonz' ``listen``. Their audio is binary, and a stream begins with a text message.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from typing_extensions import override

from voicechat.dialects.base import Frame
from voicechat.dialects.media_streams.wire import (
    KeyPressed,
    MarkReached,
    MediaReceived,
    Said,
    StreamStarted,
    Wire,
    parameters_of,
    text,
)
from voicechat.dialects.telephony import line_format
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import read_object, write_json

_SLIN_HZ = {
    "slin": 8_000,
    "slin12": 12_000,
    "slin16": 16_000,
    "slin24": 24_000,
    "slin32": 32_000,
    "slin44": 44_100,
    "slin48": 48_000,
    "slin96": 96_000,
    "slin192": 192_000,
}
MAX_PLAIN_CHARACTERS = 8_192
"""The longest event of plain text; Asterisk's are far shorter."""


class AsteriskWire(Wire):
    """docs.asterisk.org/Configuration/Channel-Drivers/WebSocket.

    Events and commands are JSON, or plain words, whichever Asterisk begins with. Older
    versions do not know marks and ignore the command; then only the clock says what was
    heard. ``MEDIA_XOFF``, which Asterisk sends from 18 s in its queue on, never comes,
    because less is sent ahead.
    """

    protocols: ClassVar[tuple[str, ...]] = ("media",)

    def __init__(self) -> None:
        self._plain = False

    @override
    def read(self, frame: Frame) -> Said | None:
        if isinstance(frame, bytes):
            return MediaReceived(frame)
        self._plain = not frame.lstrip().startswith("{")
        event = _plain_event(frame) if self._plain else read_object(frame)
        match event.get("event"):
            case "MEDIA_START":
                coding = str(event.get("format", ""))
                rate_hz = _SLIN_HZ.get(coding, 8_000)
                return StreamStarted(
                    call_id=str(event.get("channel_id", "")),
                    line=line_format("slin" if coding in _SLIN_HZ else coding, rate_hz),
                    parameters=parameters_of(event.get("channel_variables")),
                )
            case "DTMF_END":
                return KeyPressed(text(event, "digit"))
            case "MEDIA_MARK_PROCESSED":
                return MarkReached(text(event, "correlation_id"))
            case _:
                return None

    @override
    def audio(self, packets: Sequence[bytes]) -> Iterable[Frame]:
        # A message must be a whole number of Asterisk's frames, which are 20 ms long.
        yield b"".join(packets)

    @override
    def mark(self, name: str) -> Frame:
        return self._command("MARK_MEDIA", name)

    @override
    def clear(self) -> Frame:
        return self._command("FLUSH_MEDIA")

    @override
    def hang_up(self) -> Iterable[Frame]:
        yield self._command("HANGUP")

    def _command(self, command: str, correlation_id: str = "") -> Frame:
        if self._plain:
            return f"{command} {correlation_id}".rstrip()
        named = {"correlation_id": correlation_id} if correlation_id else {}
        return write_json({"command": command, **named})


class JambonzWire(Wire):
    """docs.jambonz.org/verbs/verbs/listen, with ``bidirectionalAudio.streaming``.

    It returns no marks: only the clock says what was heard.
    """

    protocols: ClassVar[tuple[str, ...]] = ("audio.jambonz.org",)
    marks = False

    def __init__(self) -> None:
        self._started = False

    @override
    def read(self, frame: Frame) -> Said | None:
        if isinstance(frame, bytes):
            return MediaReceived(frame)
        message = read_object(frame)
        if message.get("event") == "dtmf":
            return KeyPressed(text(message, "dtmf"))
        if self._started or "sampleRate" not in message:
            return None
        self._started = True
        mix = message.get("mixType", "mono")
        if mix != "mono":
            raise RemoteProtocolError(
                Status.UNSUPPORTED_FORMAT, f"mixType: {str(mix)[:20]!r} is not mono"
            )
        return StreamStarted(
            call_id=str(message.get("callSid", "")),
            line=line_format("l16", message["sampleRate"]),
            parameters={**parameters_of(message), **parameters_of(message.get("metadata"))},
        )

    @override
    def audio(self, packets: Sequence[bytes]) -> Iterable[Frame]:
        yield b"".join(packets)

    @override
    def mark(self, name: str) -> Frame:
        raise NotImplementedError("this wire has no marks")

    @override
    def clear(self) -> Frame:
        return write_json({"type": "killAudio"})

    @override
    def hang_up(self) -> Iterable[Frame]:
        yield write_json({"type": "disconnect"})


def _plain_event(text: str) -> Mapping[str, Any]:
    """Read an event of plain words: ``MEDIA_START format:ulaw channel_id:17``, or with
    a bare id, ``MEDIA_MARK_PROCESSED 17``.
    """
    event, *words = text[:MAX_PLAIN_CHARACTERS].split() or [""]
    pairs = (word.partition(":") for word in words)
    fields = {name: value for name, colon, value in pairs if colon}
    bare = next((word for word in words if ":" not in word), "")
    return {"correlation_id": words[0] if words else bare, **fields, "event": event}
