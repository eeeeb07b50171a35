"""The replies of a session by number, and the request to the chat model for each."""

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from voicechat.session.effects import Effect, StartReply
from voicechat.session.history import History
from voicechat.session.reply import Reply
from voicechat.session.snapshot import RepliesSnapshot, RequestSnapshot
from voicechat.session.types import (
    ChatSettings,
    Item,
    Message,
    ReplyOverrides,
    Settings,
    VoiceSettings,
)
from voicechat.text.language import language_of
from voicechat.text.words import bare_words

RECENT_REPLIES = 8
"""How many replies are kept, so that a client may still report how much of them was
heard.
"""


@dataclass(slots=True)
class Uncommitted:
    """A preemptive reply that has not been adopted."""

    text: str
    """The words that the user is assumed to have said."""
    began_ms: int
    withheld: list[Effect] = field(default_factory=list)
    """Notices that are sent once the reply is adopted."""

    def answers(self, text: str) -> bool:
        """Whether it answers these words; punctuation and case are ignored."""
        return bare_words(self.text) == bare_words(text)


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """The request to the chat model for one reply: the settings with the reply's
    overrides applied.
    """

    chat: ChatSettings
    voice: VoiceSettings
    voiced: bool
    input: tuple[Message, ...] | None
    lead_ms: int | None
    after: str = ""
    """The item behind which the reply stands in the history; empty: it is the first."""

    def messages(self, remembered: tuple[Message, ...]) -> tuple[Message, ...]:
        """Return the messages that the model reads."""
        said = remembered if self.input is None else self.input
        instructions = self._instructions(said)
        system: tuple[Message, ...] = ()
        if instructions:
            system = ({"role": "system", "content": instructions},)
        before = self.chat.messages if self.input is None else ()
        return (*system, *before, *said)

    def filler(self, remembered: tuple[Message, ...]) -> str:
        """Return what is spoken while the client carries out tools; empty: nothing."""
        filler = self.chat.filler
        if filler is None:
            return ""
        return filler.text_for(_last_words(remembered if self.input is None else self.input))

    def _instructions(self, said: tuple[Message, ...]) -> str:
        by_language = self.chat.instructions_by_language
        if not by_language:
            return self.chat.instructions
        return by_language.get(language_of(_last_words(said)), self.chat.instructions)


def _last_words(said: tuple[Message, ...]) -> str:
    """Return the last words of the user; empty: there are none."""
    for message in reversed(said):
        words = message.get("content")
        if message.get("role") == "user" and isinstance(words, str):
            return words
    return ""


def continue_prompt(heard: str) -> str:
    """Return what the model is asked when its answer was interrupted after ``heard`` by
    a fault of the server.
    """
    if language_of(heard) == "zh":
        return "(你的回答因连接中断而停止。请从中断处继续, 不要重复已说过的内容。)"
    return "(Your answer was cut off by a lost connection. Continue where it stopped.)"


def build_request(settings: Settings, overrides: ReplyOverrides) -> ReplyRequest:
    """Return the request for one reply: its overrides applied to the settings."""
    chat = settings.chat
    if overrides.instructions is not None:
        chat = replace(chat, instructions=overrides.instructions, instructions_by_language={})
    if overrides.options is not None:
        chat = replace(chat, options={**chat.options, **overrides.options})
    if overrides.answers_tools is not None:
        chat = replace(chat, answers_tools=overrides.answers_tools)
    voiced = settings.spoken if overrides.spoken is None else overrides.spoken
    voice = settings.voice if overrides.voice is None else overrides.voice
    return ReplyRequest(chat, voice, voiced, overrides.input, settings.effective_lead_ms)


class ReplyRegistry:
    """Numbers the replies and holds those in progress."""

    def __init__(self, history_messages: int) -> None:
        """``history_messages`` bounds the history."""
        self.history = History(history_messages)
        self.current: Reply | None = None
        """The reply that is being made, or whose paced audio is being sent."""
        self.out_of_band: dict[int, Reply] = {}
        """The out-of-band replies in progress, by number."""
        self.uncommitted: Uncommitted | None = None
        """Set while the current reply is preemptive and not adopted."""
        self.requests: dict[int, ReplyRequest] = {}
        """The requests of the replies in progress, by number."""
        self.recent: OrderedDict[int, Reply] = OrderedDict()
        """The last ``RECENT_REPLIES`` replies, by number."""
        self.history_cleared = False
        """Whether the history was cleared during the turn: then it gets nothing more of
        that turn.
        """
        self._count = 0

    def snapshot(
        self, playing: Reply | None, asked: str, question: str, now_ms: int
    ) -> RepliesSnapshot:
        """Return the replies as they are now. A preemptive reply and out-of-band
        replies in progress are left out.
        """
        current = self.current if self.uncommitted is None else None
        unknown = set(self.out_of_band)
        if self.uncommitted is not None and self.current is not None:
            unknown.add(self.current.number)
        request = self.requests[current.number] if current is not None else None
        return RepliesSnapshot(
            items=self.history.items,
            items_made=self.history.made,
            replies_made=self._count,
            recent=tuple(
                reply.snapshot(now_ms)
                for number, reply in self.recent.items()
                if number not in unknown
            ),
            current=current.number if current is not None else 0,
            playing=playing.number if playing is not None else 0,
            request=(
                None
                if request is None
                else RequestSnapshot(
                    chat=request.chat,
                    voice=request.voice,
                    voiced=request.voiced,
                    input=request.input,
                    lead_ms=request.lead_ms,
                    after=request.after,
                )
            ),
            history_cleared=self.history_cleared,
            asked=asked,
            question=question,
        )

    def restore(self, kept: RepliesSnapshot, now_ms: int) -> Reply | None:
        """Continue from a snapshot; return the reply that may still be heard."""
        self.history.restore(kept.items, kept.items_made)
        self._count, self.history_cleared = kept.replies_made, kept.history_cleared
        for reply in kept.recent:
            self.recent[reply.number] = Reply.restored(reply, now_ms)
        self.current = self.recent.get(kept.current)
        if kept.request is not None and self.current is not None:
            asked = kept.request
            self.requests[self.current.number] = ReplyRequest(
                asked.chat, asked.voice, asked.voiced, asked.input, asked.lead_ms, asked.after
            )
        return self.recent.get(kept.playing)

    def in_progress(self, number: int) -> Reply | None:
        """Return the reply of that number if it is in progress, current or out of band;
        else None.
        """
        if self.current is not None and self.current.number == number:
            return self.current
        return self.out_of_band.get(number)

    def replies_in_progress(self) -> tuple[Reply, ...]:
        """Return the current reply, then the out-of-band ones."""
        current = () if self.current is None else (self.current,)
        return (*current, *self.out_of_band.values()) if self.out_of_band else current

    def begin(
        self, request: ReplyRequest, now_ms: int, unsaid: tuple[Message, ...] = ()
    ) -> tuple[Reply, StartReply]:
        """Number a reply; return it with the effect that starts it. The model reads
        ``unsaid`` after the history, which does not get ``unsaid``.
        """
        self._count += 1
        number = self._count
        reply = Reply(
            number,
            now_ms,
            request.lead_ms,
            answers_tools=request.chat.answers_tools,
            voiced=request.voiced,
            marks=request.voice.marks,
        )
        self.requests[number] = replace(request, after=self.history.last_id)
        self.recent[number] = reply
        while len(self.recent) > RECENT_REPLIES:
            self.recent.popitem(last=False)
        messages = request.messages((*self.history.messages, *unsaid))
        started = StartReply(number, messages, request.chat, request.voice, voiced=request.voiced)
        return reply, started

    def delete_item(self, item_id: str) -> bool:
        """Delete an item of the history; return False if no item has this id. A reply
        that began behind the item now begins behind the item before.
        """
        if item_id not in self.history:
            return False
        self._stand_behind({item_id}, self.history.id_before(item_id))
        return self.history.delete(item_id)

    def truncate(self, reply: Reply, heard: str) -> tuple[Item, ...]:
        """Reduce a reply in the history to ``heard``. Nothing changes if the history
        does not have the reply.
        """
        old = self.history.ids_of(reply.number)
        if not old:
            return ()
        before = self.history.id_before(old[0])
        items = self.history.truncate_reply(reply.number, reply.tools.messages(heard))
        kept = [item.id for item in items]
        self._stand_behind(set(old) - set(kept), kept[-1] if kept else before)
        return items

    def _stand_behind(self, gone: set[str], before: str) -> None:
        for number, request in self.requests.items():
            if request.after in gone:
                self.requests[number] = replace(request, after=before)

    def remember(self, reply: Reply, text: str) -> tuple[Item, ...]:
        """Store ``text`` of the current reply, and its tools, at the place where the
        reply began.
        """
        if self.history_cleared:
            return ()
        messages = reply.tools.messages(text)
        return self.history.set_reply(reply.number, messages, self.requests[reply.number].after)
