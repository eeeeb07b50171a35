"""The conversation so far, as the chat model is to know it: of a reply only what was heard."""

from collections.abc import Sequence

from voicechat.session.vocabulary import Message


class Dialogue:
    """The messages of users, assistant and tools in order, bounded in number."""

    def __init__(self, most_messages: int) -> None:
        self._most = most_messages
        self._messages: list[Message] = []
        self._last_reply: int | None = None
        self._last_begins = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is remembered."""
        return tuple(self._messages)

    def hear_user(self, text: str) -> None:
        """The user said ``text``."""
        self._messages.append({"role": "user", "content": text})
        self._last_reply = None
        if len(self._messages) > self._most:
            # Forgotten in front, and never so that an answer stands without its question.
            del self._messages[: len(self._messages) - self._most]
            while self._messages and self._messages[0]["role"] != "user":
                del self._messages[0]

    def say(self, reply: int, messages: Sequence[Message]) -> None:
        """The assistant's reply number ``reply`` was ``messages``; said again, they replace the first ones."""
        if self._last_reply == reply:
            del self._messages[self._last_begins :]
        self._last_reply, self._last_begins = reply, len(self._messages)
        self._messages += messages

    def cut(self, reply: int, heard: Sequence[Message]) -> None:
        """Of reply number ``reply``, if it still stands last, only ``heard`` was heard."""
        if self._last_reply == reply:
            self.say(reply, heard)

    def forget(self, *, keep_question: bool = False) -> None:
        """Forget everything, but what the user said last if that is still being answered."""
        del self._messages[: -1 if keep_question else None]
        self._last_reply = None
