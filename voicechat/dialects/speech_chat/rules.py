"""The rules of the conversation socket: what is allowed when, and that every request
has one answer.

The session does not know these rules. ``chat.update`` is allowed only before the first
audio and the first typed turn; ``complete`` and ``clear`` only after. A request that is
not allowed is answered 40901 and changes nothing. A client that sends nothing for a
minute, or only malformed messages, is disconnected.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from typing_extensions import override

from voicechat.dialects.base import (
    Connection,
    Dialect,
    Frame,
    Reaction,
    Tell,
    wants_announcement,
)
from voicechat.dialects.drawings import Drawing
from voicechat.dialects.recognition import result_text
from voicechat.dialects.speech_chat.codec import (
    ReplyWriter,
    latency_text,
    picture_text,
    read_call_id,
    read_event,
    read_played,
    read_role,
    typed_text,
)
from voicechat.dialects.speech_chat.settings import Update, read_chat_update
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import shown
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.events import AudioReceived

UPDATED = "chat.updated"
"""The default answer to ``chat.update``: this is the document's example; its table says
``chat.update``.
"""
COMPLETED = "input_audio_buffer.completed"
CLEARED = "input_audio_buffer.cleared"
FORGOTTEN = "conversation.cleared"
CANCELED = "conversation.chat.canceled"
TURN_DETECTED = "turn_detected"
"""The reason of everything that the server does by itself in hands-free mode."""
NO_AUDIO = {
    COMPLETED: "input_audio_buffer.complete: no audio has been sent yet, "
    "or a turn is still in progress",
    CLEARED: "input_audio_buffer.clear: no audio has been sent yet",
}


@dataclass(frozen=True, slots=True)
class _Request:
    """The cause of a command: its answer."""

    answer: str
    update: Update | None = None


@dataclass(frozen=True, slots=True)
class _Unanswered:
    """The cause of a command that is answered only when it is rejected. ``field`` is
    the field at fault.
    """

    field: str


class SpeechChat(Dialect):
    """One connection. See the module and ``Dialect``."""

    shows_drawings = True

    def __init__(
        self,
        connection: Connection,
        *,
        update_reply: str = UPDATED,
        strict_ping: bool = False,
        most_errors: int = 100,
    ) -> None:
        """``strict_ping``: only ``ping`` counts as a sign of life.

        ``most_errors``: this many malformed messages in a row close the connection.
        """
        self.audio_shows_life = not strict_ping
        self.announces_end = wants_announcement(connection.handshake)
        self._connection = connection
        self._strict_ping = strict_ping
        self._most_errors = most_errors
        self._errors_in_a_row = 0
        self._said_something = False
        self._configurable = True
        self._report_latency = False
        self._update_reply = update_reply
        self._writer = ReplyWriter(connection.session_id, connection.epoch_s, connection.model)

    @override
    def open(self, now_ms: int) -> Iterable[Reaction]:
        return [Tell(typed_text("chat.created", message=self._connection.note))]

    # --- up ---------------------------------------------------------------------------

    @override
    def receive(self, frame: Frame, now_ms: int) -> Iterable[Reaction]:
        self._said_something = True
        if isinstance(frame, bytes):
            self._errors_in_a_row = 0
            return self._on_audio(frame)
        try:
            name, event = read_event(frame)
            reader = _READERS.get(name)
            if reader is None:
                message = f"event_type: {shown(name)} is not known"
                raise RemoteProtocolError(Status.UNKNOWN_EVENT, message)
            reactions = list(reader(self, event))
        except RemoteProtocolError as exc:
            return [*self._alive(), *self._on_malformed(exc)]
        self._errors_in_a_row = 0
        return [*self._alive(is_ping=name == "ping"), *reactions]

    @override
    def note_audio(self) -> None:
        self._errors_in_a_row = 0

    @override
    def pong(self, now_ms: int) -> Iterable[Reaction]:
        # The transport answers pings even when the client's program no longer runs.
        return self._alive() if self._said_something else ()

    def _alive(self, *, is_ping: bool = False) -> Iterator[Reaction]:
        if is_ping or not self._strict_ping:
            yield cmd.Alive()

    def _on_audio(self, audio: bytes) -> Iterable[Reaction]:
        if not audio:
            return self._alive()
        begins = [] if self.bare_audio else [cmd.Begin()]
        self._configurable, self.bare_audio = False, True
        return [*begins, AudioReceived(audio)]

    def _on_malformed(self, error: RemoteProtocolError) -> Iterable[Reaction]:
        self._errors_in_a_row += 1
        if self._errors_in_a_row >= self._most_errors:
            return [cmd.Leave(error.message, cause=error.status)]
        return [Tell(_error_text(error.status, error.message))]

    def _on_update(self, event: Mapping[str, object]) -> Iterable[Reaction]:
        name = self._update_reply
        if not self._configurable:
            message = "chat.update is only allowed before the first audio"
            return [Tell(typed_text(name, Status.NOT_ALLOWED_NOW, message))]
        try:
            update = read_chat_update(event.get("message"), self._connection)
        except RemoteProtocolError as exc:
            return [Tell(typed_text(name, exc.status, exc.message))]
        configure = cmd.Configure(update.settings, cause=_Request(name, update))
        return [configure, cmd.Begin()]

    def _on_complete(self, event: Mapping[str, object]) -> Iterable[Reaction]:
        return [self._not_allowed(COMPLETED) or cmd.CommitTurn(cause=_Request(COMPLETED))]

    def _on_clear(self, event: Mapping[str, object]) -> Iterable[Reaction]:
        return [self._not_allowed(CLEARED) or cmd.ClearInput(cause=_Request(CLEARED))]

    def _not_allowed(self, answer: str) -> Tell | None:
        if not self._configurable:
            return None
        return Tell(typed_text(answer, Status.NOT_ALLOWED_NOW, NO_AUDIO[answer]))

    def _on_played(self, event: Mapping[str, object]) -> Iterable[Reaction]:
        reply, played_ms = read_played(event, self._connection.session_id)
        return [cmd.Played(reply, played_ms)]

    def _on_message(self, event: Mapping[str, object]) -> Iterable[Reaction]:
        role, content = read_role(event)
        if role == "tool":
            call_id = read_call_id(event, content)
            return [cmd.AnswerTool(call_id, content, cause=_Unanswered("tool_call_id"))]
        self._configurable = False
        cause = _Unanswered("conversation.message.create")
        return [cmd.Begin(), cmd.CommitTurn(text=content, cause=cause)]

    # --- down -------------------------------------------------------------------------

    @override
    def notify(self, notice: nt.Notice, now_ms: int) -> Iterable[Reaction]:
        if isinstance(notice, nt.ReplyNotice):
            frame = self._writer.write(notice)
            return () if frame is None else (Tell(frame),)
        text = self._text_of(notice)
        return (Tell(text),) if text else ()

    @override
    def show_drawing(self, drawing: Drawing, now_ms: int) -> Iterable[Reaction]:
        return [Tell(picture_text(drawing))]

    def _text_of(self, notice: nt.Notice) -> str:
        """Return the message for a notice that belongs to no reply; empty where this
        protocol has none.
        """
        match notice:
            case nt.Recognised():
                return result_text(notice.transcript)
            case nt.Done():
                return self._done_text(notice)
            case nt.Rejected():
                return _rejected_text(notice)
            case nt.TurnCommitted(detected=True):
                return typed_text(COMPLETED, reason=TURN_DETECTED)
            case nt.TurnCommitted(cause=_Request()):
                return typed_text(COMPLETED)
            case nt.Interrupted():
                return typed_text(CANCELED, reason=TURN_DETECTED)
            case nt.TurnCompleted():
                return typed_text("conversation.chat.completed")
            case nt.SpeechNoticed(started=True):
                return typed_text("input_audio_buffer.speech_started", audio_start_ms=notice.at_ms)
            case nt.SpeechNoticed():
                return typed_text("input_audio_buffer.speech_stopped", audio_end_ms=notice.at_ms)
            case nt.LatencyMeasured() if self._report_latency:
                return latency_text(self._connection.session_id, notice)
            case nt.GoingAway() if self.announces_end:
                return typed_text("session.going_away", left_ms=notice.left_ms)
            case nt.Failed():
                return _error_text(Status.of(notice.fault), notice.message)
            case nt.Ended(fault=None, cause=None):
                return ""
            case nt.Ended():
                return _error_text(_status_of(notice), notice.message)
            case _:
                return ""

    def _done_text(self, done: nt.Done) -> str:
        if not isinstance(done.cause, _Request):
            return ""
        update = done.cause.update
        if update is None:
            return typed_text(done.cause.answer)
        self._writer.model = update.settings.chat.model or self._connection.model
        self._writer.binary_audio = update.binary_audio
        self._report_latency = update.report_latency
        return typed_text(done.cause.answer, message=update.note)


_Reader: TypeAlias = Callable[[SpeechChat, Mapping[str, object]], Iterable[Reaction]]
_READERS: Mapping[str, _Reader] = {
    "chat.update": SpeechChat._on_update,
    "input_audio_buffer.complete": SpeechChat._on_complete,
    "input_audio_buffer.clear": SpeechChat._on_clear,
    "conversation.clear": lambda _, __: [cmd.ClearHistory(cause=_Request(FORGOTTEN))],
    "conversation.chat.cancel": lambda _, __: [cmd.Cancel(cause=_Request(CANCELED))],
    "conversation.audio.played": SpeechChat._on_played,
    "conversation.message.create": SpeechChat._on_message,
    "ping": lambda _, __: [Tell(typed_text("pong"))],
}
"""The function that reads each type of event. A dialect keeps no copy, which would
refer to the dialect itself.
"""


def _status_of(ended: nt.Ended) -> Status:
    """The status for the end of a session: the one with which this dialect ended it, or
    the fault's.
    """
    if isinstance(ended.cause, Status):
        return ended.cause
    return Status.INTERNAL if ended.fault is None else Status.of(ended.fault)


def _rejected_text(rejected: nt.Rejected) -> str:
    match rejected.cause:
        case _Request(answer):
            message = NO_AUDIO.get(answer, rejected.message)
            return typed_text(answer, Status.NOT_ALLOWED_NOW, message)
        case _Unanswered(field):
            unknown = rejected.why is nt.Why.OTHER_CALL
            status = Status.INVALID_PARAMETER if unknown else Status.NOT_ALLOWED_NOW
            return _error_text(status, f"{field}: {rejected.message}")
        case _:
            return ""


def _error_text(status: Status, message: str) -> str:
    return typed_text("error", status, message)
