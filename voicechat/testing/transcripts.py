"""Reads golden transcripts and plays them against the kernel and its dialect, exact to
the millisecond.

``protocol/README.md`` describes the form. A missing, extra or mistimed message is a
difference.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from voicechat.dialects.base import (
    Connection,
    Dialect,
    Endpoint,
    Frame,
    Handshake,
    Kind,
    Reaction,
    Tell,
)
from voicechat.dialects.speech_chat.endpoint import SpeechChatEndpoint
from voicechat.dialects.stream_speech.endpoint import StreamSpeechEndpoint
from voicechat.dialects.tool_servers import ToolRequest
from voicechat.errors import Status
from voicechat.names import ServiceNames
from voicechat.session import events as ev
from voicechat.session.effects import (
    Close,
    ContinueReply,
    Effect,
    Route,
    RouteAudio,
    Send,
    StartReply,
)
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.limits import SessionLimits
from voicechat.session.machine import Machine
from voicechat.session.notices import ReplyAudio
from voicechat.session.session import Session
from voicechat.session.transcription_session import TranscriptionSession
from voicechat.session.types import ToolCall, Transcript, Word

AUDIO_RATE_HZ = 16000
EXPECTED = ("server", "close", "model_asked")
"""Keys of the lines that state expected output. All other lines are stimuli."""
_OF_THE_SESSION = ("strict_ping", "apology")
"""Settings of a transcript that are not limits."""
_SESSION_ID = "transcript"
_MODELS = ServiceNames(frozenset({"default", "other"}))
"""Two names, so that an unknown name is refused."""
_REPLY = re.compile(r"<reply (\d+)>")

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class GoldenTranscript:
    """One conversation: its stimuli and the expected output."""

    name: str
    dialect: str
    lines: tuple[Line, ...]
    query: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def limits(self) -> SessionLimits:
        """The session limits of the transcript."""
        known = {name: value for name, value in self.config.items() if name not in _OF_THE_SESSION}
        return replace(SessionLimits(), **known)

    @property
    def expected(self) -> list[Line]:
        """The expected output, in order."""
        return [_comparable(line) for line in self.lines if any(key in line for key in EXPECTED)]

    @property
    def stimuli(self) -> list[Line]:
        """The stimuli in order. The end line is one: no output may follow before it."""
        return [line for line in self.lines if not any(key in line for key in EXPECTED)]


def read_transcript(path: Path) -> GoldenTranscript:
    """Read one ``.jsonl`` file. Raises ``ValueError`` if a line is not JSON."""
    head, *lines = [
        json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()
    ]
    return GoldenTranscript(
        head["transcript"],
        head["dialect"],
        tuple(lines),
        head.get("query", {}),
        head.get("config", {}),
    )


def play_on_kernel(golden: GoldenTranscript) -> list[Line]:
    """Play the stimuli against a new kernel. Returns the output in the form of
    ``expected``.

    The simulated socket accepts every frame at once.
    """
    player = _KernelPlayer(golden)
    for line in golden.stimuli:
        player.wait_until(int(line["at_ms"]))
        player.do(line)
    asked = any("model_asked" in line for line in golden.lines)
    return [line for line in player.followed if asked or "model_asked" not in line]


class _KernelPlayer:
    def __init__(self, golden: GoldenTranscript) -> None:
        self.followed: list[Line] = []
        self._machine, self._dialect = open_machine(golden)
        self._now_ms = 0
        self._route = Route.AWAIT
        self._made_ms: dict[int, int] = {}
        self.react(self._dialect.open(0))
        self.post(ev.Opened())

    def wait_until(self, at_ms: int) -> None:
        """Advance the time to ``at_ms``, waking the session at each deadline before."""
        while (deadline_ms := self._machine.deadline_ms()) is not None and deadline_ms <= at_ms:
            self._now_ms = max(self._now_ms, deadline_ms)
            self.post(ev.Ticked())
        self._now_ms = at_ms

    def do(self, line: Line) -> None:
        """Apply one stimulus."""
        frame = client_frame(line)
        if frame is not None:
            self.react(self._dialect.receive(frame, self._now_ms))
            return
        for event in self._events_of(line):
            self.post(event)

    def _events_of(self, line: Line) -> Iterable[ev.Event]:
        """The session events of a stimulus; none for the end line."""
        if "asr" in line:
            return [recognition_event(line["asr"])]
        if "voice" in line:
            return [speech_event(line["voice"])]
        if "llm" in line:
            return [_model_event(line["llm"])]
        if "tts" in line:
            return [self._voice_event(line["tts"])]
        if "server_drain_ms" in line:
            return [ev.DrainRequested(self._now_ms + int(line["server_drain_ms"]))]
        return [ev.Disconnected()] if "disconnect" in line else []

    def post(self, event: ev.Event | ev.AudioReceived) -> None:
        """Post an event to the session, record its output, and acknowledge sent audio
        as a socket does.

        The client's audio becomes the events that the runtime's audio input sends.
        """
        if isinstance(event, ev.AudioReceived):
            awaited = self._route is Route.AWAIT
            event = ev.AudioStarted() if awaited else ev.AudioArrived(self._now_ms)
        follows: list[Reaction | ev.Event] = []
        for effect in self._machine.receive(event, self._now_ms):
            for said in self._said(effect):
                self.followed.append({"at_ms": self._now_ms, **said})
            if isinstance(effect, Send):
                reactions = self._dialect.notify(effect.notice, self._now_ms)
                for reaction in reactions:
                    if isinstance(reaction, Tell):
                        self._say(reaction.frame)
                    else:
                        follows.append(reaction)
            if isinstance(effect, Send) and isinstance(effect.notice, ReplyAudio):
                follows.append(ev.AudioSent(effect.notice.reply, effect.notice.end_ms))
        self.react(follows)

    def react(self, reactions: "Iterable[Reaction | ev.Event]") -> None:
        """Carry out the reactions of the dialect."""
        for reaction in reactions:
            if isinstance(reaction, Tell):
                self._say(reaction.frame)
            else:
                assert not isinstance(reaction, ToolRequest), "transcripts reach no tool servers"
                self.post(reaction)

    def _say(self, frame: Frame) -> None:
        self.followed.append({"at_ms": self._now_ms, "server": normalised(frame)})

    def _said(self, effect: Effect) -> list[Line]:
        match effect:
            case Close(ended):
                return [{"close": self._dialect.close_code(ended)}]
            case RouteAudio(route):
                self._route = route
                return []
            case StartReply(reply, messages) | ContinueReply(reply, messages):
                return [
                    {
                        "model_asked": {
                            "reply": reply,
                            "messages": [dict(message) for message in messages],
                        }
                    }
                ]
            case _:
                return []

    def _voice_event(self, said: Mapping[str, Any]) -> ev.Event:
        reply = int(said["reply"])
        if "failed" in said:
            return ev.ReplyFailed(reply, Status(said["failed"]).fault, "the synthesiser failed")
        if said.get("ended"):
            return ev.SpeechEnded(reply)
        if said.get("done"):
            return ev.SentenceSynthesized(reply, int(said["sentence"]))
        length_ms = int(said["audio_ms"])
        self._made_ms[reply] = self._made_ms.get(reply, 0) + length_ms
        payload = bytes(length_ms * AUDIO_RATE_HZ // 1000 * 2)
        return ev.SpeechSynthesized(reply, int(said["sentence"]), (payload,), self._made_ms[reply])


def open_machine(golden: GoldenTranscript) -> tuple[Machine, Dialect]:
    """Open the machine and the dialect for the transcript's connection, as a server
    does.

    Raises ``ValueError`` for a dialect that has no transcripts.
    """
    endpoint = _endpoint_of(golden)
    handshake = Handshake(query=golden.query)
    connection = Connection(handshake=handshake, session_id=_SESSION_ID, models=_MODELS)
    opening = endpoint.open(connection)
    if endpoint.kind is Kind.RECOGNITION:
        return TranscriptionSession(opening.settings.input, golden.limits), opening.dialect
    session = Session(
        opening.settings,
        golden.limits,
        audio_shows_life=opening.dialect.audio_shows_life,
        fallback_message=FallbackMessage() if golden.config.get("apology") else None,
    )
    return session, opening.dialect


def _endpoint_of(golden: GoldenTranscript) -> Endpoint:
    match golden.dialect:
        case "speech_chat":
            strict_ping = bool(golden.config.get("strict_ping"))
            most_errors = golden.limits.protocol_errors
            return SpeechChatEndpoint(strict_ping=strict_ping, most_errors=most_errors)
        case "stream_speech":
            return StreamSpeechEndpoint()
        case _:
            known = "speech_chat or stream_speech"
            raise ValueError(f"dialect: {golden.dialect!r} is not {known}")


def client_frame(line: Line) -> Frame | None:
    """Return the client's frame of a line; None if the line is not the client's."""
    if "client" in line:
        return _REPLY.sub(
            rf"chatcmpl-{_SESSION_ID}-\1", json.dumps(line["client"], ensure_ascii=False)
        )
    if "client_text" in line:
        return str(line["client_text"])
    if "client_audio_ms" in line:
        return bytes(int(line["client_audio_ms"]) * AUDIO_RATE_HZ // 1000 * 2)
    return None


def recognition_event(said: Mapping[str, Any]) -> ev.Event:
    """Return the session event of a recogniser line."""
    stream = int(said["stream"])
    if "failed" in said:
        return ev.RecognitionFailed(
            stream, Status(said["failed"]).fault, "it failed", bool(said.get("retryable"))
        )
    if said.get("ended"):
        return ev.RecognitionEnded(stream)
    words = tuple(Word(**word) for word in said.get("words", []))
    return ev.Transcribed(stream, Transcript(said["text"], said["begin_ms"], said["end_ms"], words))


def speech_event(said: Mapping[str, Any]) -> ev.SpeechStarted | ev.SpeechStopped:
    """Return the session event of a voice detection line."""
    event = ev.SpeechStarted if said["speech"] == "started" else ev.SpeechStopped
    return event(int(said["audio_ms"]), int(said["ago_ms"]))


def _model_event(said: Mapping[str, Any]) -> ev.Event:
    reply = int(said["reply"])
    if "failed" in said:
        return ev.ReplyFailed(reply, Status(said["failed"]).fault, "the chat model failed")
    if "finish" in said:
        return ev.ReplyTextEnded(reply, said["finish"])
    if "tool_call" in said:
        return ev.ToolCalled(reply, tool_call(said["tool_call"]))
    return ev.ReplyTextArrived(reply, said["text"])


def tool_call(said: Mapping[str, Any]) -> ToolCall:
    """Return the tool call delta of a chat model line."""
    return ToolCall(int(said["index"]), said.get("id"), said.get("name"), said["arguments"])


def normalised(frame: Frame) -> Line:
    """Convert a frame of the server to the form of transcripts: the length in place of
    audio, the reply's number in place of its id, no timestamps.
    """
    message: Line = json.loads(frame)
    message.pop("created", None)
    if isinstance(message.get("audioFrame"), str):
        base64_characters = message.pop("audioFrame").rstrip("=")
        message["audio_ms"] = len(base64_characters) * 3 // 4 // 2 * 1000 // AUDIO_RATE_HZ
    if "id" in message:
        message["id"] = f"<reply {message['id'].rsplit('-', 1)[1]}>"
    return _comparable({"server": message})["server"]  # type: ignore[no-any-return]


def _comparable(line: Line) -> Line:
    """Replace the text of an error: transcripts only require that it is not empty."""
    message = line.get("server")
    if isinstance(message, dict) and message.get("status") and message.get("message"):
        return {**line, "server": {**message, "message": "<reason>"}}
    return line
