"""The responses of a connection: which of them are asked for, in progress or cancelled,
and what the client is told of each.
"""

from dataclasses import dataclass, field

from voicechat.dialects.base import Connection, Reaction, Tell
from voicechat.dialects.openai_realtime.events import EventError, EventWriter
from voicechat.dialects.openai_realtime.items import RealtimeConversation, RealtimeItem, hold_heard
from voicechat.dialects.openai_realtime.remembering import ItemMemory
from voicechat.dialects.openai_realtime.response import Response, ResponseForm
from voicechat.dialects.openai_realtime.session import ResponseWishes, SessionConfiguration
from voicechat.schema.json_text import shown
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.types import Settings


@dataclass(slots=True)
class Asked:
    """The cause of a ``Respond``: a ``response.create``."""

    event_id: str | None
    wishes: ResponseWishes
    cancelled: bool = False


def busy() -> EventError:
    """Return the error of a second response in the conversation."""
    message = "response.create: the conversation already has an active response"
    return EventError("conversation_already_has_active_response", message)


@dataclass(slots=True)
class Responses:
    """The responses of one connection. Its methods return what is to be told and
    done.
    """

    writer: EventWriter
    conversation: RealtimeConversation
    memory: ItemMemory
    connection: Connection
    conversation_id: str
    configuration: SessionConfiguration
    settings: Settings
    """Both as they are in force."""
    current: Response | None = None
    """The one that is part of the conversation."""
    asked: Asked | None = None
    """A ``response.create`` that waits for the words of a turn."""
    answer_due: bool = False
    """A turn that was detected is to be answered once its words are known."""
    playing_until_ms: int = 0
    """Until when the last audio is heard; 0: there was none."""
    _in_progress: dict[int, Response] = field(default_factory=dict)
    """By their reply."""
    _cancelled: set[int] = field(default_factory=set)
    """Replies that the client has cancelled."""
    _truncated: dict[int, int] = field(default_factory=dict)
    """Of replies in progress, where the client has stopped to play them."""

    @property
    def idle(self) -> bool:
        """Whether no response of the conversation is in progress or to come."""
        return self.current is None and self.asked is None and not self.answer_due

    def ask(self, wishes: ResponseWishes, event_id: str | None) -> Asked:
        """Note a ``response.create``. Raises ``EventError``."""
        asked = Asked(event_id, wishes)
        if wishes.out_of_band:
            return asked
        if self.current is not None or self.asked is not None:
            raise busy()
        self.asked = asked
        return asked

    def refuse(self, asked: Asked) -> None:
        """The session does not make the response."""
        if asked is self.asked:
            self.asked = None

    def cancel(self, response_id: object) -> cmd.Cancel:
        """Cancel the response of that id; None: the conversation's. Raises
        ``EventError``.
        """
        response = self.current
        if response_id is not None:
            found = self._in_progress.values()
            response = next((each for each in found if each.id == response_id), None)
        if response is not None:
            self._cancelled.add(response.reply)
            return cmd.Cancel(response.reply)
        if response_id is None and (self.asked is not None or self.answer_due):
            if self.asked is not None:
                self.asked.cancelled = True
            return cmd.Cancel()
        message = "response.cancel: no response is in progress"
        if response_id is not None:
            message = f"response_id: {shown(response_id)} is no response in progress"
        raise EventError("response_cancel_not_active", message)

    def truncate(self, item: RealtimeItem, end_ms: int) -> bool:
        """Of an item in progress no more than ``end_ms`` is heard; False: it is not in
        progress.
        """
        if item.reply not in self._in_progress:
            return False
        self._truncated[item.reply] = end_ms
        return True

    def forget_item(self, item: RealtimeItem) -> None:
        """An item is about to be deleted: what stood behind it stands behind the one
        before.
        """
        for response in self._in_progress.values():
            if response.anchor == item.id:
                response.anchor = self.conversation.previous_id(item) or ""
            if response.known_anchor == item.id:
                response.known_anchor = self.conversation.known_before(item)

    # --- what the session says --------------------------------------------------------

    def notify(self, notice: nt.ReplyNotice, now_ms: int) -> list[Tell]:
        """Something happened in a reply."""
        if isinstance(notice, nt.ReplyBegun):
            return self._begin(notice)
        response = self._in_progress.get(notice.reply)
        if response is None:
            return []
        match notice:
            case nt.ReplyText():
                return response.add_text(notice.text)
            case nt.ReplyAudio():
                return self._sound(response, notice, now_ms)
            case nt.ReplyToolCall():
                return response.add_call(notice.call)
            case nt.ReplyTextFinished():
                return response.finish_text(notice.finish_reason)
            case nt.SentenceBegun() if not response.text:
                return response.add_text(notice.text)  # an apology, which is no text of the model
            case nt.ReplyAudioFinished():
                return response.finish_audio()
            case _:
                return []

    def complete_turn(self, turn: nt.TurnCompleted) -> list[Tell]:
        """A turn is over. A response that still waits for its words ends as it
        begins.
        """
        self.answer_due = False
        asked, self.asked = self.asked, None
        if asked is None:
            return []
        response = self._new(0, asked.wishes)
        ended = nt.ReplyEnded(0, turn.outcome, message="the user's words are not known")
        reason = "client_cancelled" if asked.cancelled else "turn_detected"
        return [*response.begin(), *response.end(ended, reason)]

    def cut(self, cut: nt.ReplyCut) -> list[cmd.DeleteItem]:
        """Less was heard of a reply: of one that is over, its item holds only that from
        now on. One in progress is still to be closed.
        """
        if cut.reply in self._in_progress:
            self._in_progress[cut.reply].heard = cut.heard
            return []
        for item in self.conversation.items:
            if item.reply == cut.reply and item.audio_ms is not None:
                hold_heard(item, cut.heard)
        return self.memory.settle(cut.reply, cut.items)

    def end(self, ended: nt.ReplyEnded, now_ms: int) -> list[Reaction]:
        """Nothing more of a reply comes."""
        response = self._in_progress.pop(ended.reply, None)
        if response is None:
            return []
        by_client = ended.reply in self._cancelled
        self._cancelled.discard(ended.reply)
        reason = "client_cancelled" if by_client else "turn_detected"
        reactions: list[Reaction] = list(response.end(ended, reason))
        if response is not self.current:
            return reactions
        self.current = None
        if response.heard is not None and response.message is not None:
            hold_heard(response.message, response.heard)
            self.playing_until_ms = now_ms
        reactions += self.memory.settle(ended.reply, ended.items)
        reactions += self.memory.settle_order(response)
        truncated_ms = self._truncated.pop(ended.reply, None)
        if truncated_ms is not None:
            reactions.append(cmd.TruncateReply(ended.reply, truncated_ms))
        return reactions

    def _begin(self, begun: nt.ReplyBegun) -> list[Tell]:
        asked = begun.cause if isinstance(begun.cause, Asked) else None
        wishes = ResponseWishes() if asked is None else asked.wishes
        response = self._in_progress[begun.reply] = self._new(begun.reply, wishes)
        if response.form.conversation_id is not None:
            self.current, self.asked, self.answer_due = response, None, False
            response.anchor = self.conversation.last_id or ""
            response.known_anchor = self.conversation.known_before(None)
            self.memory.replies.add(begun.reply)
        return response.begin()

    def _new(self, reply: int, wishes: ResponseWishes) -> Response:
        response_id = self.writer.new_id("resp")
        return Response(response_id, self._form_of(wishes), self.writer, self.conversation, reply)

    def _form_of(self, wishes: ResponseWishes) -> ResponseForm:
        voice = wishes.voice(self.connection, self.settings.voice) or self.settings.voice
        spoken = self.settings.spoken
        if wishes.output_modalities is not None:
            spoken = wishes.output_modalities == ["audio"]
        most = wishes.max_output_tokens or self.configuration.max_output_tokens
        return ResponseForm(
            spoken=spoken,
            voice=voice.voice,
            audio_format=self.configuration.output_format(wishes),
            max_output_tokens=most or "inf",
            metadata=wishes.metadata,
            conversation_id=None if wishes.out_of_band else self.conversation_id,
        )

    def _sound(self, response: Response, audio: nt.ReplyAudio, now_ms: int) -> list[Tell]:
        before_ms = response.sent_ms
        told = response.add_audio(audio)
        if response is self.current:
            heard_from_ms = max(self.playing_until_ms, now_ms) if before_ms else now_ms
            self.playing_until_ms = heard_from_ms + audio.end_ms - before_ms
        return told
