"""Keeps the session's history in step with the client's items: each item at its place,
as the messages that a chat model reads.
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
        """Return the command for a second try, when the history no longer holds the
        item before: then the item becomes the first.
        """
        return replace(self.command, after="")


@dataclass(slots=True)
class ItemMemory:
    """Translates changes of items into commands about the history."""

    conversation: RealtimeConversation
    replies: set[int] = field(default_factory=set)
    """The replies in progress: the history holds nothing of them yet."""
    _made: int = 0
    _waiting: list[RealtimeItem] = field(default_factory=list)
    """Outputs of calls that the history does not hold yet."""
    _answers: list[tuple[RealtimeItem, str]] = field(default_factory=list)
    """Results of calls of MCP servers that the history does not hold yet."""

    def add(self, item: RealtimeItem) -> list[AddItem]:
        """Add a client's item to the history.

        The output of a call waits until the response that made the call has ended.
        """
        if self._waits(item):
            self._waiting.append(item)
            return []
        return self._remember(item)

    def check_call(self, item: RealtimeItem) -> None:
        """Raise ``EventError`` for the output of a call that does not exist."""
        if item.content["type"] == "function_call_output" and self._call_of(item) is None:
            given = shown(item.content["call_id"])
            message = f"item.call_id: no call of the conversation has the id {given}"
            raise EventError("invalid_value", message, "item.call_id")

    def delete(self, item: RealtimeItem) -> list[AddItem | DeleteItem]:
        """Delete an item's messages from the history.

        A reply's text and its calls are one message of the history: the parts of it
        that remain become messages of their own.
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
        """Add the result of the call that ``item`` makes. While the reply is in
        progress the result waits, because the history does not hold the reply yet.
        """
        if item.reply in self.replies:
            self._answers.append((item, content))
            return []
        if not item.history or item.answer:
            return []  # the item was deleted, or the history has dropped the reply
        message = tool_message(item.call_id, content)
        item.messages = (*item.messages, message)
        return self._added(item, message, item.history[-1])

    def settle(self, reply: int, remembered: tuple[Item, ...]) -> list[DeleteItem]:
        """Note which history entries (``remembered``) belong to which items of a reply.

        For each call that the client carries out, the session has added an answer of
        its own. The client's answers come as items, so the session's answer is deleted.
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
                item.messages = ()  # cut off, or not heard at all
        return commands

    def settle_order(self, response: Response) -> list[AddItem | DeleteItem]:
        """Put items in order when a response has ended: items that were inserted in
        front of it meanwhile stand behind it in the history, and outputs of its calls
        are not in the history yet.
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
        """Put an item's messages into the history: behind ``after``, or at the item's
        place if ``after`` is None.
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
        # The client's own ids could collide with those that the session makes.
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
