"""JSON lines over plain TCP. Up: ``{"key", "agent"}`` first, then ``{"audio": base64}``
(16 kHz s16le), ``{"text"}``, ``{"tool": id, "answer"}``.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress

from voicechat.agents import Arrival
from voicechat.dialects import base
from voicechat.errors import RemoteProtocolError, Status
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.events import AudioReceived
from voicechat.session.types import ChatSettings, InputSettings, Settings

LAMP = {"type": "function", "function": {"name": "lamp", "parameters": {"type": "object"}}}
CHAT = ChatSettings(options={"tools": [LAMP]}, answers_tools=True)
SETTINGS = Settings(input=InputSettings(silence_allowed=True), chat=CHAT, lead_ms=500)


class Lines(base.Framing):
    _rest = b""

    def push(self, data: bytes) -> Sequence[base.Frame]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > 65_536:
            raise RemoteProtocolError(Status.TOO_LARGE, "a line is too long")
        return [line.decode(errors="replace") for line in lines]

    def write(self, frame: base.Frame) -> bytes:
        return str(frame).encode() + b"\n"


class LinesDialect(base.Dialect):
    def open(self, now_ms: int) -> Iterable[base.Reaction]:
        yield cmd.Begin()

    def receive(self, frame: base.Frame, now_ms: int) -> Iterable[base.Reaction]:
        with suppress(ValueError):
            match json.loads(frame):
                case {"audio": str(encoded)}:
                    yield AudioReceived(base64.b64decode(encoded))
                case {"text": str(text)}:
                    yield cmd.CommitTurn(text)
                case {"tool": str(call_id), "answer": str(answer)}:
                    yield cmd.AnswerTool(call_id, answer)
                case _:
                    pass

    def notify(self, notice: nt.Notice, now_ms: int) -> Iterable[base.Reaction]:
        match notice:
            case nt.UserSaid(item):
                yield _tell(heard=item.message["content"])
            case nt.SentenceBegun(reply, _, text):
                yield _tell(reply=reply, sentence=text)
            case nt.ReplyAudio(reply, packets):
                yield _tell(reply=reply, audio=[base64.b64encode(p).decode() for p in packets])
            case nt.ReplyToolCall(reply, call) if call.id:
                yield _tell(reply=reply, call=call.id, name=call.name)
            case nt.ReplyCut(reply, text):
                yield _tell(reply=reply, cut_to=text)
            case nt.TurnCompleted(outcome):
                yield _tell(over=outcome.value)
            case _:
                pass


class LinesEndpoint(base.Endpoint):
    greeting_frames = 1
    port: int | None = 0

    def framing(self) -> base.Framing:
        return Lines()

    def identify(self, handshake: object, frames: Sequence[base.Frame]) -> base.Caller | None:
        if not frames:
            return None
        try:
            said = json.loads(frames[0])
            return base.Caller(key=str(said["key"]), arrival=Arrival(agent=str(said["agent"])))
        except (ValueError, TypeError, KeyError):
            raise RemoteProtocolError(Status.MALFORMED, "name a key and an agent first") from None

    def open(self, connection: base.Connection) -> base.Opening:
        settings = base.with_agent(SETTINGS, connection.agent)
        return base.Opening(dialect=LinesDialect(), settings=settings)

    def refuse(self, status: Status, message: str, *, restarting: bool) -> base.Refused:
        return base.Refused((json.dumps({"refused": int(status), "why": message}),))


def open_endpoint() -> LinesEndpoint:
    return LinesEndpoint()


def _tell(**said: object) -> base.Tell:
    return base.Tell(json.dumps(said))
