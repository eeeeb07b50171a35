"""The responses of a connection: which of them are requested, in progress or cancelled,
and the events of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from voicechat.dialects.base import Connection, Reaction, Tell
from voicechat.dialects.openai_realtime.answering import ResponseWishes
from voicechat.dialects.openai_realtime.events import EventError, EventWriter
from voicechat.dialects.openai_realtime.items import RealtimeConversation, RealtimeItem, hold_heard
from voicechat.dialects.openai_realtime.mcp_servers import McpCall, McpListing, McpServers
from voicechat.dialects.openai_realtime.remembering import ItemMemory
from voicechat.dialects.openai_realtime.response import Response, ResponseForm
from voicechat.dialects.openai_realtime.session import SessionConfiguration
from voicechat.dialects.openai_realtime.tools import McpTarget, ToolOffer
from voicechat.dialects.tool_servers import ToolsListed
from voicechat.schema.json_text import shown
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.types import Message, Settings, ToolAnswer


@dataclass(slots=True)
class Asked:
    """The cause of a ``Respond``: a ``response.create``."""

    event_id: str | None
    wishes: ResponseWishes
    messages: tuple[Message, ...] | None = None
    """What the model reads in place of the conversation."""
    targets: Mapping[str, McpTarget] = field(default_factory=dict)
    """The MCP tools that are offered to the model."""
    cancelled: bool = False
    listing: bool = False
    """Whether it waits until its MCP servers have listed their tools."""


def busy() -> EventError:
    """Return the error for a second response in the conversation."""
    message = "response.create: the conversation already has an active response"
    return EventError("conversation_already_has_active_response", message)


@dataclass(slots=True)
class Responses:
    """The responses of one connection. Its methods return events for the client and
    commands for the session.
    """

    writer: EventWriter
    conversation: RealtimeConversation
    memory: ItemMemory
    servers: McpServers
    connection: Connection
    conversation_id: str
    configuration: SessionConfiguration
    settings: Settings
    offer: ToolOffer
    """The values in force of these three fields."""
    current: Response | None = None
    """The response in progress that is part of the conversation."""
    asked: Asked | None = None
    """A ``response.create`` that waits for the words of a turn."""
    answer_due: bool = False
    """Whether a detected turn is answered as soon as its words are known."""
    playing_until_ms: int = 0
    """When the user has heard the last audio; 0: there was none."""
    _in_progress: dict[int, Response] = field(default_factory=dict)
    """The responses in progress, by the number of their reply."""
    _cancelled: set[int] = field(default_factory=set)
    """The replies that the client has cancelled."""
    _listing: list[Asked] = field(default_factory=list)
    """The requests that wait for the tool lists of MCP servers."""
    _answers: dict[int, list[tuple[McpCall, ToolAnswer]]] = field(default_factory=dict)
    """Results of MCP calls, by replies that are still in progress: the client goes on
    when it gets a result, and it can go on only after ``response.done``.
    """
    _truncated: dict[int, int] = field(default_factory=dict)
    """Where the client has stopped playing replies in progress, by the number of the
    reply.
    """

    @property
    def idle(self) -> bool:
        """Whether no response of the conversation is in progress or requested."""
        return self.current is None and self.asked is None and not self.answer_due

    def ask(
        self,
        wishes: ResponseWishes,
        event_id: str | None,
        messages: tuple[Message, ...] | None = None,
    ) -> list[Reaction]:
        """Handle a ``response.create``: ask the session for the reply, once the tools
        are known. Raises ``EventError``, and what ``overrides`` raises.
        """
        asked = Asked(event_id, wishes, messages)
        if wishes.out_of_band:
            return [self._respond(asked)]
        if self.current is not None or self.asked is not None:
            raise busy()
        respond = self._respond(asked)
        listing = self.servers.prepare(wishes.tools or ())
        self.asked = asked
        if self.servers.listed(wishes.tools or ()):
            return [*listing, respond]
        asked.listing = True
        self._listing.append(asked)
        return listing

    def finish_list(self, listing: McpListing, answer: ToolsListed) -> list[Reaction]:
        """Take the tools of an MCP server, and begin the responses that waited for
        them.
        """
        reactions = self.servers.finish_list(listing, answer)
        for asked in list(self._listing):
            if not self.servers.listed(asked.wishes.tools or ()):
                continue
            self._listing.remove(asked)
            asked.listing = False
            reactions.append(self._respond(asked))
        return reactions

    def finish_call(self, call: McpCall, answer: ToolAnswer) -> list[Reaction]:
        """Take the result of an MCP server's tool, or its failure."""
        if call.item.reply in self._in_progress:
            self._answers.setdefault(call.item.reply, []).append((call, answer))
            return []
        return [*self.servers.end_call(call, answer), *self._remember(call, answer)]

    def _remember(self, call: McpCall, answer: ToolAnswer) -> list[cmd.AddItem]:
        return self.memory.answer(call.request, answer.content)

    def _respond(self, asked: Asked) -> cmd.Respond:
        tools = asked.wishes.tools
        offer = self.offer if tools is None else self.servers.offer(tools)
        if asked.wishes.out_of_band:
            # Nothing of it is remembered, so there is no place for the servers'
            # answers.
            offer = offer.without_servers()
        asked.targets = offer.targets
        return cmd.Respond(
            asked.wishes.overrides(self.connection, self.settings, asked.messages, offer),
            cause=asked,
        )

    def _end_unbegun(self, asked: Asked, outcome: nt.Outcome) -> list[Reaction]:
        """Return the events of a response that ends as soon as it begins."""
        if asked is self.asked:
            self.asked = None
        response = self._new(0, asked)
        ended = nt.ReplyEnded(0, outcome, message="the user's words are not known")
        reason = "client_cancelled" if asked.cancelled else "turn_detected"
        return [*response.begin(), *response.end(ended, reason)]

    def refuse(self, asked: Asked) -> None:
        """Drop a request that the session has rejected."""
        if asked is self.asked:
            self.asked = None

    def cancel(self, response_id: object) -> list[Reaction]:
        """Cancel the response of that id; None: the response of the conversation.
        Raises ``EventError``.
        """
        response = self.current
        if response_id is not None:
            found = self._in_progress.values()
            response = next((each for each in found if each.id == response_id), None)
        if response is not None:
            self._cancelled.add(response.reply)
            return [cmd.Cancel(response.reply)]
        if response_id is None and self.asked is not None:
            self.asked.cancelled = True
            if not self.asked.listing:
                return [cmd.Cancel()]
            self._listing.remove(self.asked)
            return self._end_unbegun(self.asked, nt.Outcome.CANCELED)
        if response_id is None and self.answer_due:
            return [cmd.Cancel()]
        message = "response.cancel: no response is in progress"
        if response_id is not None:
            message = f"response_id: {shown(response_id)} is no response in progress"
        raise EventError("response_cancel_not_active", message)

    def truncate(self, item: RealtimeItem, end_ms: int) -> bool:
        """Note that the client has played an item in progress up to ``end_ms`` only;
        return False if the item is not in progress.
        """
        if item.reply not in self._in_progress:
            return False
        self._truncated[item.reply] = end_ms
        return True

    def left_ms(self, item: RealtimeItem) -> int:
        """Return how much of an item's audio has not been truncated."""
        sent_ms = item.audio_ms or 0
        return min(sent_ms, self._truncated.get(item.reply, sent_ms))

    def forget_item(self, item: RealtimeItem) -> None:
        """Prepare for the deletion of an item: a response that stands behind it now
        stands behind the item before.
        """
        for response in self._in_progress.values():
            if response.anchor == item.id:
                response.anchor = self.conversation.previous_id(item) or ""
            if response.known_anchor == item.id:
                response.known_anchor = self.conversation.known_before(item)

    # --- notices of the session -------------------------------------------------------

    def notify(self, notice: nt.ReplyNotice, now_ms: int) -> Sequence[Reaction]:
        """Return the events for a notice of a reply."""
        if isinstance(notice, nt.ReplyBegun):
            return self._begin(notice)
        response = self._in_progress.get(notice.reply)
        if response is None:
            return []
        match notice:
            case nt.ReplyText():
                return response.add_text(notice.text)
            case nt.ReplySources():
                return response.add_sources(notice.sources)
            case nt.ReplyAudio():
                return self._sound(response, notice, now_ms)
            case nt.ReplyToolCall():
                return response.add_call(notice.call)
            case nt.ReplyTextFinished():
                return response.finish_text(notice.finish_reason)
            case nt.SentenceBegun() if not response.text:
                return response.add_text(notice.text)  # an apology, which the model did not write
            case nt.ReplyAudioFinished():
                return response.finish_audio()
            case _:
                return []

    def complete_turn(self, turn: nt.TurnCompleted) -> list[Reaction]:
        """A turn has ended. A response that still waits for its words ends as soon as
        it begins.
        """
        self.answer_due = False
        if self.asked is None or self.asked.listing:
            return []
        return self._end_unbegun(self.asked, turn.outcome)

    def cut(self, cut: nt.ReplyCut) -> list[cmd.DeleteItem]:
        """Less of a reply was heard. The item of a reply that has ended keeps only the
        text that was heard; a reply in progress is still to be closed.
        """
        if cut.reply in self._in_progress:
            self._in_progress[cut.reply].heard = cut.heard
            return []
        for item in self.conversation.items:
            if item.reply == cut.reply and item.audio_ms is not None:
                hold_heard(item, cut.heard)
        return self.memory.settle(cut.reply, cut.items)

    def end(self, ended: nt.ReplyEnded, now_ms: int) -> list[Reaction]:
        """End a response: nothing more of its reply follows."""
        response = self._in_progress.pop(ended.reply, None)
        if response is None:
            return []
        by_client = ended.reply in self._cancelled
        self._cancelled.discard(ended.reply)
        reason = "client_cancelled" if by_client else "turn_detected"
        reactions: list[Reaction] = list(response.end(ended, reason))
        if response is not self.current:
            return reactions
        for call, answer in self._answers.pop(ended.reply, ()):
            reactions += self.servers.end_call(call, answer)
            reactions += self._remember(call, answer)
        self.current = None
        if response.heard is not None and response.message is not None:
            hold_heard(response.message, response.heard)
            self.playing_until_ms = now_ms
        reactions += self.memory.settle(ended.reply, ended.items)
        reactions += self.memory.settle_order(response)
        truncated_ms = self._truncated.pop(ended.reply, None)
        if truncated_ms is not None and response.message is not None:
            response.message.audio_ms = truncated_ms
            reactions.append(cmd.TruncateReply(ended.reply, truncated_ms))
        return reactions

    def _begin(self, begun: nt.ReplyBegun) -> list[Tell]:
        asked = begun.cause if isinstance(begun.cause, Asked) else None
        asked = asked or Asked(None, ResponseWishes(), targets=self.offer.targets)
        response = self._in_progress[begun.reply] = self._new(begun.reply, asked)
        if response.form.conversation_id is not None:
            self.current, self.asked, self.answer_due = response, None, False
            response.anchor = self.conversation.last_id or ""
            response.known_anchor = self.conversation.known_before(None)
            self.memory.replies.add(begun.reply)
        return response.begin()

    def _new(self, reply: int, asked: Asked) -> Response:
        return Response(
            self.writer.new_id("resp"),
            self._form_of(asked),
            self.writer,
            self.conversation,
            self.servers,
            reply,
        )

    def _form_of(self, asked: Asked) -> ResponseForm:
        wishes = asked.wishes
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
            targets=asked.targets,
        )

    def _sound(self, response: Response, audio: nt.ReplyAudio, now_ms: int) -> list[Tell]:
        before_ms = response.sent_ms
        told = response.add_audio(audio)
        if response is self.current:
            heard_from_ms = max(self.playing_until_ms, now_ms) if before_ms else now_ms
            self.playing_until_ms = heard_from_ms + audio.end_ms - before_ms
        return told
