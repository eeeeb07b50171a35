"""The conversation so far, as the chat model reads it: of a reply only the part that
was heard.
"""

from collections.abc import Sequence

from voicechat.session.types import Item, Message


class History:
    """Items in their order, each with an id; bounded in number."""

    def __init__(self, most_items: int) -> None:
        self._most = most_items
        self._items: list[Item] = []
        self._made = 0

    @property
    def items(self) -> tuple[Item, ...]:
        """The items in order."""
        return tuple(self._items)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of the items, without reserved places."""
        return tuple(item.message for item in self._items if item.message)

    @property
    def made(self) -> int:
        """How many ids have been made."""
        return self._made

    def restore(self, items: Sequence[Item], made: int) -> None:
        """Continue with these items, after ``made`` ids have been made."""
        self._items, self._made = list(items), made

    def __contains__(self, item_id: str) -> bool:
        return self._place_of(item_id) is not None

    def add(self, message: Message, item_id: str = "", after: str | None = None) -> Item:
        """Insert a message behind the item ``after``; empty: before all others; None:
        behind all others.

        If ``item_id`` is empty, an id is made. ``item_id`` must be new, and ``after``
        must exist.
        """
        item = Item(item_id or self._new_id(), message)
        self._items.insert(self._place_behind(after), item)
        self._forget_oldest()
        return item

    def reserve(self) -> str:
        """Reserve a place behind all others for a message that is not known yet.
        Returns the id of the place.

        Until ``fill`` the item has an empty message, which no chat model reads.
        """
        return self.add({}).id

    def fill(self, item_id: str, message: Message) -> Item | None:
        """Put the message into its reserved place; return None if the place was
        deleted.
        """
        place = self._place_of(item_id)
        if place is None:
            return None
        self._items[place] = Item(item_id, message)
        return self._items[place]

    def delete(self, item_id: str) -> bool:
        """Delete an item; return False if no item has this id."""
        place = self._place_of(item_id)
        if place is not None:
            del self._items[place]
        return place is not None

    def id_before(self, item_id: str) -> str:
        """Return the id of the item before an existing one; empty: it is the first."""
        place = self._place_of(item_id)
        return self._items[place - 1].id if place else ""

    @property
    def last_id(self) -> str:
        """The id of the last item; empty: there are no items."""
        return self._items[-1].id if self._items else ""

    def set_reply(
        self, reply: int, messages: Sequence[Message], after: str | None = None
    ) -> tuple[Item, ...]:
        """Store ``messages`` as the assistant's reply number ``reply``; a second call
        replaces the messages of the first.

        They stand behind the item ``after``, as in ``add``; behind all others if that
        item does not exist any more.
        """
        old = [place for place, item in enumerate(self._items) if item.reply == reply]
        ids = [self._items[place].id for place in old]
        begin = old[0] if old else self._place_behind(after if not after or after in self else None)
        self._items = [item for item in self._items if item.reply != reply]
        new = [
            Item(ids[number] if number < len(ids) else self._new_id(), message, reply)
            for number, message in enumerate(messages)
        ]
        self._items[begin:begin] = new
        return tuple(new)

    def truncate_reply(self, reply: int, heard: Sequence[Message]) -> tuple[Item, ...]:
        """Replace the messages of reply number ``reply``, if the history has it, by
        ``heard``.
        """
        return self.set_reply(reply, heard) if self.ids_of(reply) else ()

    def ids_of(self, reply: int) -> list[str]:
        """Return the ids of the items of reply number ``reply``."""
        return [item.id for item in self._items if item.reply == reply]

    def clear(self, *, keep: str = "") -> None:
        """Delete everything except the item ``keep`` and reserved places."""
        self._items = [item for item in self._items if item.id == keep or not item.message]

    def _forget_oldest(self) -> None:
        """Delete the oldest items beyond the bound. No answer remains without its
        question.
        """
        if len(self._items) <= self._most:
            return
        del self._items[: len(self._items) - self._most]
        roles = [item.message.get("role") for item in self._items]
        if "user" in roles:
            del self._items[: roles.index("user")]

    def _place_of(self, item_id: str) -> int | None:
        return next((place for place, item in enumerate(self._items) if item.id == item_id), None)

    def _place_behind(self, after: str | None) -> int:
        if after is None:
            return len(self._items)
        place = self._place_of(after) if after else -1
        assert place is not None, "the item to stand behind is known"
        return place + 1

    def _new_id(self) -> str:
        while True:
            self._made += 1
            item_id = f"item_{self._made}"
            if item_id not in self:
                return item_id
