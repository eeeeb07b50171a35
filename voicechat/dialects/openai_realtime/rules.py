"""The rules of a Realtime connection: what each client event does, and which events
answer it.

Every mistake of the client is answered by an ``error`` that names the event at fault,
and the connection goes on.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
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
from voicechat.dialects.drawings import Drawing, shown_in_text
from voicechat.dialects.openai_realtime.answering import ResponseWishes, read_wishes
from voicechat.dialects.openai_realtime.events import (
    EventError,
    EventWriter,
    error_of,
    read_audio,
    read_event,
    read_item_id,
    read_number,
)
from voicechat.dialects.openai_realtime.items import (
    MOST_ITEM_BYTES,
    RealtimeConversation,
    RealtimeItem,
    read_item,
)
from voicechat.dialects.openai_realtime.mcp_servers import (
    McpApproval,
    McpCall,
    McpListing,
    McpServers,
)
from voicechat.dialects.openai_realtime.remembering import ItemMemory, Remembering
from voicechat.dialects.openai_realtime.responses import Asked, Responses, busy
from voicechat.dialects.openai_realtime.session import SessionConfiguration, updated
from voicechat.dialects.openai_realtime.tools import ToolOffer
from voicechat.dialects.openai_realtime.user_turns import UserTurns
from voicechat.dialects.tool_servers import ToolAnswered, ToolNews, ToolsListed
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import shown
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.events import AudioReceived
from voicechat.session.types import Message, Settings

_Event: TypeAlias = Mapping[str, object]

MOST_INPUT_ITEMS = 256
"""The most items in a response's own ``input``."""


REFUSED = "The user has not approved this call."
"""What the chat model reads as the result of a call that the user refused."""


@dataclass(frozen=True, slots=True)
class _Commit:
    """The cause of a ``CommitTurn``."""

    event_id: str | None
    item: RealtimeItem | None = None
    """The item in which the client sent the audio; None: the audio was buffered."""


@dataclass(frozen=True, slots=True)
class _Truncate:
    """The cause of a ``TruncateReply`` that a client asked for."""

    event_id: str | None
    item_id: str
    audio_end_ms: int


class OpenAIRealtime(Dialect):
    """One connection. See the module and ``Dialect``."""

    shows_drawings = True

    def __init__(self, connection: Connection, configuration: SessionConfiguration) -> None:
        """``configuration`` is the session's first one. Raises ``RemoteProtocolError``
        when its agent does not exist.
        """
        self.announces_end = wants_announcement(connection.handshake)
        self._connection = connection
        self._configuration = configuration
        self._settings = Settings()
        self._writer = EventWriter(connection.session_id)
        self._session_id = f"sess_{connection.session_id}"
        self._conversation = RealtimeConversation()
        self._begun = False
        self._memory = ItemMemory(self._conversation)
        self._servers = McpServers(self._writer, self._conversation)
        self._turns = UserTurns(self._writer, self._conversation)
        self._responses = Responses(
            self._writer,
            self._conversation,
            self._memory,
            self._servers,
            connection,
            f"conv_{connection.session_id}",
            configuration,
            self._settings,
            ToolOffer(),
        )
        self._apply()
        self._idle_at_ms: int | None = None

    @property
    def settings(self) -> Settings:
        """The engine's settings for the configuration in force."""
        return self._settings

    @override
    def open(self, now_ms: int) -> Iterable[Reaction]:
        conversation = {"id": self._responses.conversation_id, "object": "realtime.conversation"}
        created = self._tell("session.created", session=self._described())
        if self._configuration.transcribes_only:
            return [created]
        told = [created, self._tell("conversation.created", conversation=conversation)]
        return [*told, *self._servers.configure(self._configuration.tools or ())]

    @override
    def pong(self, now_ms: int) -> Iterable[Reaction]:
        return [cmd.Alive()]

    # --- up ---------------------------------------------------------------------------

    @override
    def receive(self, frame: Frame, now_ms: int) -> Iterable[Reaction]:
        if isinstance(frame, bytes):
            if not frame:
                return [cmd.Alive()]
            message = "binary messages are not understood: audio comes in events"
            return [cmd.Alive(), Tell(self._writer.write_error("invalid_event", message))]
        event_id: str | None = None
        try:
            event = read_event(frame)
            given = event.get("event_id")
            event_id = given if isinstance(given, str) else None
            kind = event.get("type")
            reader = _READERS.get(kind) if isinstance(kind, str) else None
            if reader is None:
                message = f"type: {shown(kind)} is not one of {', '.join(_READERS)}"
                raise EventError("invalid_event_type", message, "type")
            reactions = list(reader(self, event, now_ms))
        except RemoteProtocolError as exc:
            return [cmd.Alive(), self._error(error_of(exc), event_id)]
        except EventError as exc:
            return [cmd.Alive(), self._error(exc, event_id)]
        return [cmd.Alive(), *reactions, *self._begin()]

    def _begin(self) -> Iterator[Reaction]:
        """Let an agent that speaks first speak, at the client's first event."""
        if not self._begun:
            self._begun = True
            yield cmd.Begin()

    def _on_update(self, event: _Event, now_ms: int) -> Iterable[Reaction]:
        wished = updated(self._configuration, event.get("session"), self._connection)
        wished.agent(self._connection)  # raises if there is none, before anything changes
        self._configuration = wished
        listing = self._servers.configure(wished.tools or ())
        self._apply()
        self._set_idle_timer(now_ms)
        return [
            cmd.Configure(self._settings),
            self._tell("session.updated", session=self._described()),
            *listing,
        ]

    @override
    def hear_tools(self, news: ToolNews, now_ms: int) -> Iterable[Reaction]:
        match news:
            case ToolsListed(cause=McpListing() as listing):
                begun = self._responses.finish_list(listing, news)
                self._apply()
                return [cmd.Configure(self._settings), *begun]
            case ToolAnswered(cause=McpCall() as call):
                return self._responses.finish_call(call, news.answer)
            case _:
                return []

    def _apply(self) -> None:
        """Apply the configuration in force to the parts of the connection."""
        offer = self._servers.offer(self._configuration.tools or ())
        self._settings = self._configuration.settings(self._connection, self._settings, offer)
        self._responses.offer = offer
        self._responses.configuration = self._configuration
        self._responses.settings = self._settings
        turns, configuration = self._turns, self._configuration
        turns.input_format = configuration.input_format
        turns.transcribed = configuration.tells_transcripts
        turns.detected = configuration.audio.input.turn_detection is not None

    # --- up: the user's audio ---------------------------------------------------------

    def _on_append(self, event: _Event, now_ms: int) -> Iterable[Reaction]:
        audio = read_audio(event)
        self._turns.append(audio)
        return [AudioReceived(audio)] if audio else []

    def _on_commit(self, event: _Event, now_ms: int) -> Iterable[Reaction]:
        self._turns.check_commit()
        return [cmd.CommitTurn(respond=False, cause=_Commit(_id_of(event)))]

    def _on_clear(self, event: _Event, now_ms: int) -> Iterable[Reaction]:
        self._turns.clear()
        return [cmd.ClearInput(), self._tell("input_audio_buffer.cleared")]

    # --- up: items --------------------------------------------------------------------

    def _on_create_item(self, event: _Event, now_ms: int) -> Iterable[Reaction]:
        item = read_item(event.get("item"), "item", lambda: self._writer.new_id("item"))
        after = event.get("previous_item_id")
        if self._conversation.find(item.id) is not None:
            raise EventError("item_id_taken", f"item.id: {shown(item.id)} exists", "item.id")
        if after not in (None, "root") and self._conversation.find(after) is None:
            raise _no_item("previous_item_id", after)
        if self._conversation.size_bytes + item.size_bytes > MOST_ITEM_BYTES:
            message = f"item: all items together may hold {MOST_ITEM_BYTES} bytes; delete some"
            raise EventError("too_large", message, "item")
        self._memory.check_call(item)
        if item.audio:
            return self._recognise_item(item, after, _id_of(event))
        approving = item.content["type"] == "mcp_approval_response"
        approval = (
            self._servers.take_approval(item.content["approval_request_id"]) if approving else None
        )
        self._conversation.insert(item, str(after) if isinstance(after, str) else None)
        told: list[Reaction] = [
            *self._memory.add(item),
            self._item_event("conversation.item.added", item),
            self._item_event("conversation.item.done", item),
        ]
        return told if approval is None else [*told, *self._answer_approval(item, approval)]

    def _answer_approval(self, item: RealtimeItem, approval: McpApproval) -> list[Reaction]:
        if item.content["approve"]:
            return self._servers.begin_approved(approval)
        reason = item.content["reason"]
        refused = f"{REFUSED} {reason}" if reason else REFUSED
        return [*self._memory.answer(approval.item, refused)]

    def _recognise_item(
        self, item: RealtimeItem, after: object, event_id: str | None
    ) -> list[Reaction]:
        """Recognise the audio of an item as a turn that is not answered. Turn detection
        is off meanwhile.
        """
        self._turns.check_empty()
        if after not in (None, self._conversation.last_id):
            message = "previous_item_id: an item with audio can only be the last one"
            raise EventError("invalid_value", message, "previous_item_id")
        manual = replace(self._settings, turn_detection=None)
        swaps = self._settings.turn_detection is not None
        return [
            *([cmd.Configure(manual)] if swaps else []),
            AudioReceived(item.audio),
            cmd.CommitTurn(respond=False, cause=_Commit(event_id, item)),
            *([cmd.Configure(self._settings)] if swaps else []),
        ]

    def _on_retrieve_item(self, event: _Event, now_ms: int) -> Iterable[Reaction]:
        item = self._find_item(event)
        return [self._tell("conversation.item.retrieved", item=item.written())]

    def _on_delete_item(self, event: _Event, now_ms: int) -> Iterable[Reaction]:
        item = self._find_item(event)
        if item.status == "in_progress":
            message = "item_id: the item is still being made; cancel its response first"
            raise EventError("item_in_progress", message, "item_id")
        self._responses.forget_item(item)
        self._conversation.items.remove(item)
        return [
            *self._memory.delete(item),
            self._tell("conversation.item.deleted", item_id=item.id),
        ]

    def _on_truncate_item(self, event: _Event, now_ms: int) -> Iterable[Reaction]:
        item = self._find_item(event)
        index, end_ms = read_number(event, "content_index"), read_number(event, "audio_end_ms")
        if item.audio_ms is None:
            message = "item_id: only an assistant's message with audio can be truncated"
            raise EventError("invalid_value", message, "item_id")
        if index != 0:
            message = f"content_index: {index} is not 0, the only part of the item"
            raise EventError("invalid_value", message, "content_index")
        left_ms = self._responses.left_ms(item)
        if end_ms > left_ms:
            message = f"audio_end_ms: the audio is {left_ms} ms long, not {end_ms}"
            raise EventError("invalid_value", message, "audio_end_ms")
        if self._responses.truncate(item, end_ms):
            return [cmd.Played(item.reply, end_ms), self._truncated_event(item.id, end_ms)]
        if not item.history:
            # The reply was stopped before any of it was heard, so the history holds
            # nothing of it.
            item.audio_ms = end_ms
            return [self._truncated_event(item.id, end_ms)]
        cause = _Truncate(_id_of(event), item.id, end_ms)
        return [cmd.TruncateReply(item.reply, end_ms, cause=cause)]

    def _truncated_event(self, item_id: str, end_ms: int) -> Tell:
        return self._tell(
            "conversation.item.truncated",
            item_id=item_id,
            content_index=0,
            audio_end_ms=end_ms,
        )

    def _find_item(self, event: _Event) -> RealtimeItem:
        item_id = read_item_id(event)
        item = self._conversation.find(item_id)
        if item is None:
            raise _no_item("item_id", item_id)
        return item

    # --- up: responses ----------------------------------------------------------------

    def _on_create_response(self, event: _Event, now_ms: int) -> Iterable[Reaction]:
        if self._configuration.transcribes_only:
            message = "response.create: a session of the type transcription makes no responses"
            raise EventError("invalid_event_type", message)
        wishes = read_wishes(event.get("response"))
        return self._responses.ask(wishes, _id_of(event), self._input_of(wishes))

    def _input_of(self, wishes: ResponseWishes) -> tuple[Message, ...] | None:
        """Return what the model reads in place of the conversation; None: the
        conversation.
        """
        if wishes.input is None:
            return None
        if len(wishes.input) > MOST_INPUT_ITEMS:
            message = f"response.input: {len(wishes.input)} items are more than {MOST_INPUT_ITEMS}"
            raise EventError("invalid_value", message, "response.input")
        messages: list[Message] = []
        for place, value in enumerate(wishes.input):
            path = f"response.input[{place}]"
            if isinstance(value, dict) and value.get("type") == "item_reference":
                found = self._conversation.find(value.get("id"))
                if found is None:
                    raise _no_item(f"{path}.id", value.get("id"))
                messages += found.messages
            else:
                item = read_item(value, path, lambda: "item")
                if item.audio:
                    message = f"{path}: audio here needs its transcript"
                    raise EventError("invalid_value", message, path)
                messages += item.messages
        return tuple(messages)

    def _on_cancel_response(self, event: _Event, now_ms: int) -> Iterable[Reaction]:
        return self._responses.cancel(event.get("response_id"))

    def _on_clear_output(self, event: _Event, now_ms: int) -> Iterable[Reaction]:
        message = (
            "output_audio_buffer.clear is for WebRTC and SIP; on a WebSocket stop playing, "
            "then send response.cancel and conversation.item.truncate"
        )
        raise EventError("invalid_event_type", message, "type")

    # --- down -------------------------------------------------------------------------

    @override
    def notify(self, notice: nt.Notice, now_ms: int) -> Iterable[Reaction]:
        if isinstance(notice, nt.ReplyNotice):
            if isinstance(notice, nt.ReplyBegun):
                self._idle_at_ms = None
            return self._responses.notify(notice, now_ms)
        match notice:
            case nt.SpeechNoticed():
                self._idle_at_ms = None if notice.started else self._idle_at_ms
                return self._turns.notice_speech(notice)
            case nt.Recognised():
                return self._turns.recognise(notice.transcript)
            case nt.TurnCommitted(cause=_Commit(item=RealtimeItem() as item)):
                self._idle_at_ms = None
                return self._turns.commit_item(notice, item)
            case nt.TurnCommitted():
                self._idle_at_ms = None
                self._responses.answer_due = notice.detected and self._configuration.answers_turns
                return self._turns.commit(notice)
            case nt.UserSaid():
                return self._turns.note_words(notice)
            case nt.NothingSaid():
                return self._turns.note_nothing(notice)
            case nt.TurnCompleted():
                told = self._responses.complete_turn(notice)
                self._set_idle_timer(now_ms)
                return told
            case nt.ReplyCut():
                return self._responses.cut(notice)
            case nt.ReplyEnded():
                return self._responses.end(notice, now_ms)
            case nt.Rejected():
                return self._on_rejected(notice)
            case nt.Done(cause=_Truncate(item_id=item_id, audio_end_ms=end_ms)):
                cut = self._conversation.find(item_id)
                if cut is not None:
                    cut.audio_ms = end_ms
                return [self._truncated_event(item_id, end_ms)]
            case nt.GoingAway() if self.announces_end:
                return [Tell(self._writer.write("session.going_away", left_ms=notice.left_ms))]
            case nt.Failed():
                status = Status.of(notice.fault)
                return [Tell(self._writer.write_failure(status, notice.message))]
            case nt.Ended() if notice.fault is not None:
                status = Status.of(notice.fault)
                return [Tell(self._writer.write_failure(status, notice.message))]
            case _:
                return []

    def _on_rejected(self, rejected: nt.Rejected) -> Iterable[Reaction]:
        match rejected.cause:
            case Asked(event_id) as asked:
                self._responses.refuse(asked)
                error = busy() if rejected.why is nt.Why.BUSY else None
                error = error or EventError("too_many_responses", rejected.message)
                return [self._error(error, event_id)]
            case _Commit(event_id):
                message = "the words of the turn before are still awaited; commit again later"
                return [self._error(EventError("commit_too_early", message), event_id)]
            case _Truncate(event_id):
                message = f"item_id: {rejected.message}"
                return [self._error(EventError("invalid_value", message, "item_id"), event_id)]
            case Remembering() as remembering if rejected.why is nt.Why.NO_ITEM:
                return [remembering.again()]
            case _:
                return []

    @override
    def show_drawing(self, drawing: Drawing, now_ms: int) -> Iterable[Reaction]:
        """Add the picture as a message of the assistant, which the model does not
        read: the protocol has no pictures from the server.
        """
        part = {"type": "output_text", "text": shown_in_text(drawing)}
        item = RealtimeItem(
            self._writer.new_id("item"),
            {"type": "message", "role": "assistant", "content": [part]},
        )
        self._conversation.insert(item, None)
        return [
            self._item_event("conversation.item.added", item),
            self._item_event("conversation.item.done", item),
        ]

    # --- silence ----------------------------------------------------------------------

    def _set_idle_timer(self, now_ms: int) -> None:
        timeout_ms = self._configuration.idle_timeout_ms
        playing_until_ms = self._responses.playing_until_ms
        if timeout_ms is None or not self._responses.idle or not playing_until_ms:
            self._idle_at_ms = None
        else:
            self._idle_at_ms = max(now_ms, playing_until_ms) + timeout_ms

    @override
    def deadline_ms(self) -> int | None:
        return self._idle_at_ms

    @override
    def wake(self, now_ms: int) -> Iterable[Reaction]:
        timeout_ms = self._configuration.idle_timeout_ms
        self._idle_at_ms = None
        if timeout_ms is None or not self._responses.idle:
            return []
        asked = self._responses.ask(ResponseWishes(), None)
        return [*self._turns.commit_silence(timeout_ms), *asked]

    # --- writing ----------------------------------------------------------------------

    def _described(self) -> dict[str, object]:
        return self._configuration.described(self._connection, self._session_id)

    def _tell(self, event_type: str, **fields: object) -> Tell:
        return Tell(self._writer.write(event_type, **fields))

    def _item_event(self, event_type: str, item: RealtimeItem) -> Tell:
        previous = self._conversation.previous_id(item)
        return self._tell(event_type, previous_item_id=previous, item=item.written())

    def _error(self, error: EventError, event_id: str | None) -> Tell:
        written = self._writer.write_error(
            error.code, error.message, cause=event_id, param=error.param
        )
        return Tell(written)


_Reader: TypeAlias = Callable[[OpenAIRealtime, _Event, int], Iterable[Reaction]]
_READERS: Mapping[str, _Reader] = {
    "session.update": OpenAIRealtime._on_update,
    "input_audio_buffer.append": OpenAIRealtime._on_append,
    "input_audio_buffer.commit": OpenAIRealtime._on_commit,
    "input_audio_buffer.clear": OpenAIRealtime._on_clear,
    "conversation.item.create": OpenAIRealtime._on_create_item,
    "conversation.item.retrieve": OpenAIRealtime._on_retrieve_item,
    "conversation.item.truncate": OpenAIRealtime._on_truncate_item,
    "conversation.item.delete": OpenAIRealtime._on_delete_item,
    "response.create": OpenAIRealtime._on_create_response,
    "response.cancel": OpenAIRealtime._on_cancel_response,
    "output_audio_buffer.clear": OpenAIRealtime._on_clear_output,
}
"""The function that reads each type of event."""


def _id_of(event: _Event) -> str | None:
    event_id = event.get("event_id")
    return event_id if isinstance(event_id, str) else None


def _no_item(param: str, item_id: object) -> EventError:
    message = f"{param}: {shown(item_id)} is no item of the conversation"
    return EventError("item_not_found", message, param)
