"""The wires of Twilio, Telnyx, Plivo, Exotel and Vonage. The facts are from the
vendors' pages that each class names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from typing_extensions import override

from voicechat.audio.formats import Container
from voicechat.dialects.base import Frame
from voicechat.dialects.media_streams.wire import (
    JsonWire,
    KeyPressed,
    MarkReached,
    MediaReceived,
    Said,
    StreamStarted,
    Wire,
    encoded,
    parameters_of,
    part,
    text,
)
from voicechat.dialects.telephony import MU_LAW, LineFormat, line_format
from voicechat.schema.json_text import read_object, write_json


class TwilioWire(JsonWire):
    """twilio.com/docs/voice/media-streams/websocket-messages. Fonoster uses it, too."""

    @override
    def started(self, message: Mapping[str, Any]) -> StreamStarted:
        start = part(message, "start")
        media = start.get("mediaFormat")
        return StreamStarted(
            stream_id=text(start if "streamSid" in start else message, "streamSid"),
            call_id=str(start.get("callSid", "")),
            line=_line(media, "sampleRate"),
            parameters=parameters_of(start.get("customParameters")),
        )

    @override
    def audio(self, packets: Sequence[bytes]) -> Iterable[Frame]:
        media = {"payload": encoded(packets)}
        yield write_json({"event": "media", "streamSid": self.stream_id, "media": media})

    @override
    def mark(self, name: str) -> Frame:
        return write_json({"event": "mark", "streamSid": self.stream_id, "mark": {"name": name}})

    @override
    def clear(self) -> Frame:
        return write_json({"event": "clear", "streamSid": self.stream_id})


class TelnyxWire(JsonWire):
    """developers.telnyx.com/docs/voice/programmable-voice/media-streaming, with
    ``stream_bidirectional_mode`` ``rtp``. Audio is returned in the encoding that came.
    """

    @override
    def started(self, message: Mapping[str, Any]) -> StreamStarted:
        start = part(message, "start")
        numbers = {
            "called": str(start.get("to") or ""),
            "caller": str(start.get("from") or ""),
        }
        return StreamStarted(
            stream_id=text(message, "stream_id"),
            call_id=str(start.get("call_control_id", "")),
            line=_line(start.get("media_format"), "sample_rate"),
            parameters={**numbers, **parameters_of(start.get("custom_parameters"))},
        )

    @override
    def audio(self, packets: Sequence[bytes]) -> Iterable[Frame]:
        yield write_json({"event": "media", "media": {"payload": encoded(packets)}})

    @override
    def mark(self, name: str) -> Frame:
        return write_json({"event": "mark", "mark": {"name": name}})

    @override
    def clear(self) -> Frame:
        return write_json({"event": "clear"})


class PlivoWire(JsonWire):
    """plivo.com/docs/voice-agents/audio-streaming/concepts/audio-streaming-reference.
    Its marks are checkpoints; a clear does not return them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._line = MU_LAW

    @override
    def read(self, frame: Frame) -> Said | None:
        said = super().read(frame)
        if said is None and isinstance(frame, str) and "playedStream" in frame:
            message = read_object(frame)
            if message.get("event") == "playedStream":
                return MarkReached(text(message, "name"))
        return said

    @override
    def started(self, message: Mapping[str, Any]) -> StreamStarted:
        start = part(message, "start")
        self._line = _line(start.get("mediaFormat"), "sampleRate")
        headers = message.get("extra_headers", start.get("extra_headers"))
        return StreamStarted(
            stream_id=text(start, "streamId"),
            call_id=str(start.get("callId", "")),
            line=self._line,
            parameters=_header_parameters(headers),
        )

    @override
    def audio(self, packets: Sequence[bytes]) -> Iterable[Frame]:
        media = {
            "contentType": _MEDIA_TYPES[self._line.container],
            "sampleRate": self._line.rate_hz,
            "payload": encoded(packets),
        }
        yield write_json({"event": "playAudio", "streamId": self.stream_id, "media": media})

    @override
    def mark(self, name: str) -> Frame:
        return write_json({"event": "checkpoint", "streamId": self.stream_id, "name": name})

    @override
    def clear(self) -> Frame:
        return write_json({"event": "clearAudio", "streamId": self.stream_id})


class ExotelWire(JsonWire):
    """developer.exotel.com/docs/agentstream/stream-voicebot-applet. Audio is sent in
    frames of at least 3,200 bytes, a multiple of 320; silence fills the last one.
    """

    LEAST_BYTES = 3_200

    def __init__(self) -> None:
        super().__init__()
        self._line = LineFormat(Container.PCM)
        self._kept = b""

    @override
    def started(self, message: Mapping[str, Any]) -> StreamStarted:
        start = part(message, "start")
        media = start.get("media_format")
        if isinstance(media, dict):
            # For samples Exotel sends "base64", the encoding of the text.
            coding = str(media.get("encoding") or "slin")
            coding = "slin" if coding == "base64" else coding
            self._line = line_format(coding, media.get("sample_rate") or 8_000)
        numbers = {
            "called": str(start.get("to") or ""),
            "caller": str(start.get("from") or ""),
        }
        return StreamStarted(
            stream_id=text(message if "stream_sid" in message else start, "stream_sid"),
            call_id=str(start.get("call_sid", "")),
            line=self._line,
            parameters={**numbers, **parameters_of(start.get("custom_parameters"))},
        )

    @override
    def audio(self, packets: Sequence[bytes]) -> Iterable[Frame]:
        self._kept += b"".join(packets)
        whole_bytes = len(self._kept) - len(self._kept) % 320
        if whole_bytes >= self.LEAST_BYTES:
            media, self._kept = self._kept[:whole_bytes], self._kept[whole_bytes:]
            yield self._frame(media)

    @override
    def audio_end(self) -> Iterable[Frame]:
        media, self._kept = self._kept, b""
        if media:
            silent = b"\xff" if self._line.container is Container.MU_LAW else b"\0"
            yield self._frame(media.ljust(self.LEAST_BYTES, silent))

    def _frame(self, media: bytes) -> Frame:
        return write_json(
            {
                "event": "media",
                "stream_sid": self.stream_id,
                "media": {"payload": encoded((media,))},
            }
        )

    @override
    def mark(self, name: str) -> Frame:
        return write_json({"event": "mark", "stream_sid": self.stream_id, "mark": {"name": name}})

    @override
    def clear(self) -> Frame:
        self._kept = b""
        return write_json({"event": "clear", "stream_sid": self.stream_id})


class VonageWire(Wire):
    """developer.vonage.com/en/voice/voice-api/guides/websockets: audio is binary, 20 ms
    of samples per frame, and a mark is ``notify``. The first message contains the
    headers of the endpoint.
    """

    @override
    def read(self, frame: Frame) -> Said | None:
        if isinstance(frame, bytes):
            return MediaReceived(frame)
        message = read_object(frame)
        match message.get("event"):
            case "websocket:connected":
                coding, _, rate = str(message.pop("content-type", "")).partition(";rate=")
                del message["event"]
                return StreamStarted(
                    line=line_format(coding or "l16", rate or 16_000),
                    call_id=str(message.get("uuid", "")),
                    parameters=parameters_of(message),
                )
            case "websocket:dtmf":
                nested = message.get("dtmf")
                holder: Mapping[str, Any] = nested if isinstance(nested, dict) else message
                return KeyPressed(str(holder.get("digit", "")))
            case "websocket:notify":
                return MarkReached(text(part(message, "payload"), "mark"))
            case _:
                return None

    @override
    def audio(self, packets: Sequence[bytes]) -> Iterable[Frame]:
        return packets

    @override
    def mark(self, name: str) -> Frame:
        return write_json({"action": "notify", "payload": {"mark": name}})

    @override
    def clear(self) -> Frame:
        return write_json({"action": "clear"})


_MEDIA_TYPES = {Container.MU_LAW: "audio/x-mulaw", Container.PCM: "audio/x-l16"}
"""Plivo's names of the encodings that it accepts."""


def _line(media: object, rate: str) -> LineFormat:
    """Return the line for a media format; mu-law where the vendor names none."""
    if not isinstance(media, dict):
        return MU_LAW
    return line_format(str(media.get("encoding") or "mulaw"), media.get(rate) or 8_000)


def _header_parameters(headers: object) -> dict[str, str]:
    """Read Plivo's ``a=1;b=2``, which other versions write as ``{a: 1, b: 2}``."""
    if not isinstance(headers, str):
        return parameters_of(headers)
    pairs = re.findall(r"([^=:;,{}\s]+)\s*[=:]\s*([^;,{}]*)", headers[:2_000])
    return parameters_of({name: value.strip() for name, value in pairs})
