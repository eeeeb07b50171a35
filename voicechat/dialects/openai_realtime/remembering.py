"""Keeps the session's history as the client sees it: each item of the conversation at
its place, with the messages that a chat model reads of it.
"""

from dataclasses import dataclass, field, replace

from voicechat.dialects.openai_realtime.events import EventError
from voicechat.dialects.openai_realtime.items import (
    RealtimeConversation,
    RealtimeItem,
    tool_message,
)
from voicechat.dialects.openai_realtime.response import Response
from voicechat.schema.json_text import shown
from voicechat.session.commands import AddItem, DeleteItem
from voicechat.session.types import Item, Message


@dataclass(frozen=True, slots=True)
class Remembering:
    """The cause of an ``AddItem``."""

    command: AddItem

    def again(self) -> AddItem:
        """Return the command once more, for a history that has forgotten what stood
        before the item: then it is the first.
        """
        return replace(self.command, after="")


@dataclass(slots=True)
class ItemMemory:
    """Turns what happens to items into commands about the history."""

    conversation: RealtimeConversation
    replies: set[int] = field(default_factory=set)
    """Those in progress: nothing of them is remembered yet."""
    _made: int = 0
    _waiting: list[RealtimeItem] = field(default_factory=list)
    """Outputs of calls that the session does not remember yet."""
    _answers: list[tuple[RealtimeItem, str]] = field(default_factory=list)
    """What calls of MCP servers came to that the session does not remember yet."""

    def add(self, item: RealtimeItem) -> list[AddItem]:
        """A client's item was put into the conversation.

        The output of a call whose response goes on waits for the end of that.
        """
        if self._waits(item):
            self._waiting.append(item)
            return []
        return self._remember(item)

    def check_call(self, item: RealtimeItem) -> None:
        """Raise ``EventError`` for the output of a call that nobody has made."""
        if item.content["type"] == "function_call_output" and self._call_of(item) is None:
            given = shown(item.content["call_id"])
            message = f"item.call_id: no call of the conversation has the id {given}"
            raise EventError("invalid_value", message, "item.call_id")

    def delete(self, item: RealtimeItem) -> list[AddItem | DeleteItem]:
        """An item was taken out of the conversation.

        A reply's text and its calls are one message of the history: what was not
        deleted of that becomes messages of its own.
        """
        if item in self._waiting:
            self._waiting.remove(item)
        self._answers = [each for each in self._answers if each[0] is not item]
        commands: list[AddItem | DeleteItem] = []
        gone = [*item.known]
        for other in self.conversation.items:
            if other.reply and set(other.history) & set(item.history):
                other.audio_ms = None
                if other.answer:
                    gone.append(other.answer)
                commands += self._remember(other, self.conversation.history_before(other))
        return [*commands, *map(DeleteItem, gone)]

    def answer(self, item: RealtimeItem, content: str) -> list[AddItem]:
        """The call that ``item`` makes came to ``content``. A reply in progress is not
        remembered yet: then it waits for the end of that.
        """
        if item.reply in self.replies:
            self._answers.append((item, content))
            return []
        if not item.history or item.answer:
            return []  # it was deleted, or the reply was forgotten
        message = tool_message(item.call_id, content)
        item.messages = (*item.messages, message)
        return self._added(item, message, item.history[-1])

    def settle(self, reply: int, remembered: tuple[Item, ...]) -> list[DeleteItem]:
        """The session remembers ``remembered`` of a reply: note which items that is.

        The session answers calls that the client carries out with a sentence of its
        own. The client's answers come as items, so that sentence is deleted.
        """
        own = [item for item in self.conversation.items if item.reply == reply]
        calls = {item.call_id: item for item in own if item.is_call}
        text = next((item for item in own if not item.is_call), None)
        for item in own:
            item.history = ()
        commands = []
        for entry in remembered:
            if entry.message["role"] == "tool" and entry.message["tool_call_id"] in calls:
                commands.append(DeleteItem(entry.id))
                continue
            made = _call_ids(entry.message) & calls.keys()
            for call_id in made:
                calls[call_id].history = (entry.id,)
            if text is not None and (entry.message["content"] or not made):
                text.history += (entry.id,)
        for item in own:
            if not item.history:
                item.messages = ()  # a call that was cut off, or a text of which nothing was heard
        return commands

    def settle_order(self, response: Response) -> list[AddItem | DeleteItem]:
        """A response is over. What was put in front of it meanwhile stands behind it in
        the history, and outputs of its calls are not there yet: put them in their
        places.
        """
        self.replies.discard(response.reply)
        items = self.conversation.items
        first = next((place for place, item in enumerate(items) if item in response.output), 0)
        anchor = self.conversation.find(response.known_anchor)
        begin = 0 if anchor is None else items.index(anchor) + 1
        commands: list[AddItem | DeleteItem] = []
        for item in items[begin:first]:
            if item.history and item.messages and not item.reply:
                commands += map(DeleteItem, item.history)
                commands += self._remember(item)
        for item in self._waiting:
            commands += self._remember(item)
        self._waiting.clear()
        answers, self._answers = self._answers, []
        for item, content in answers:
            commands += self.answer(item, content)
        return commands

    def _waits(self, item: RealtimeItem) -> bool:
        call = self._call_of(item)
        return call is not None and call.reply in self.replies

    def _call_of(self, item: RealtimeItem) -> RealtimeItem | None:
        """Return the newest call that an output answers."""
        if item.content["type"] != "function_call_output":
            return None
        calls = (
            each
            for each in reversed(self.conversation.items)
            if each.content["type"] == "function_call"
        )
        return next((each for each in calls if each.call_id == item.content["call_id"]), None)

    def _remember(self, item: RealtimeItem, after: str | None = None) -> list[AddItem]:
        """Put an item's messages into the history: behind ``after``, else at its
        place.
        """
        if after is None and self.conversation.known_behind(item):
            after = self.conversation.history_before(item)
        item.history, item.answer = (), ""
        commands: list[AddItem] = []
        for message in item.messages:
            added = self._added(item, message, after)
            after = None if after is None else added[-1].id
            commands += added
        return commands

    def _added(self, item: RealtimeItem, message: Message, after: str | None) -> list[AddItem]:
        self._made += 1
        # The client's own ids could be those that the session makes.
        command = AddItem(message, f"client-{self._made}", after)
        if message["role"] == "tool" and item.is_call:
            item.answer = command.id
        else:
            item.history += (command.id,)
        return [replace(command, cause=Remembering(command))]


def _call_ids(message: Message) -> set[str]:
    calls = message.get("tool_calls") or ()
    assert isinstance(calls, list | tuple)
    return {str(call["id"]) for call in calls}
