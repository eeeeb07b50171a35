"""The conversation so far, as the chat model is to know it: of a reply only what was heard."""

from voicechat.session.vocabulary import Message


class Dialogue:
    """User and assistant messages in order, bounded in number."""

    def __init__(self, most_messages: int) -> None:
        self._most = most_messages
        self._messages: list[Message] = []
        self._last_reply: int | None = None

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

    def say(self, reply: int, text: str) -> None:
        """The assistant's reply number ``reply`` was ``text``; said again, the text replaces the first one."""
        if self._last_reply == reply:
            self._messages.pop()
            self._last_reply = None
        if text.strip():
            self._messages.append({"role": "assistant", "content": text})
            self._last_reply = reply

    def cut(self, reply: int, heard: str) -> None:
        """Of reply number ``reply``, if it still stands last, only ``heard`` was heard."""
        if self._last_reply == reply:
            self.say(reply, heard)

    def forget(self) -> None:
        """Forget everything."""
        self._messages.clear()
        self._last_reply = None
