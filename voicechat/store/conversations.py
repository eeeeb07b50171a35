"""Conversations that the server stores for clients that send only their latest message.
Their number and size are bounded, and they expire. They are in a SQLite file of the
data directory, which the server's processes share.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection

from voicechat.session.types import Message
from voicechat.store.private_database import PrivateDatabase

FILE = "conversations.sqlite3"
KEEP_S = 24 * 3600
"""A conversation expires this long after its last message."""
MOST_OF_OWNER = 1_000
"""Most conversations of one key. Beyond it the least recently used one is deleted."""
MOST_CHARACTERS = 64_000
"""Bound of one conversation. Beyond it the oldest messages are deleted, except the
first system message.
"""
_MIGRATIONS = (
    (
        "CREATE TABLE conversation (owner TEXT NOT NULL, code TEXT NOT NULL, "
        "messages TEXT NOT NULL, updated_s INTEGER NOT NULL, PRIMARY KEY (owner, code))",
    ),
)


class ConversationStore:
    """The conversations of all keys. The same code refers to different conversations
    for different keys.

    Methods block for disk access; call them in a thread.
    """

    def __init__(self, folder: Path) -> None:
        self._database = PrivateDatabase(folder / FILE, "conversation", _MIGRATIONS)

    def messages(self, owner: str, code: str, now_s: int) -> list[Message]:
        """Return the messages of a conversation; empty if it does not exist.

        ``now_s`` is Unix time, here and below.
        """
        if not self._database.exists:
            return []
        with self._database.transaction() as connection:
            return _messages(connection, owner, code, now_s)

    def add(
        self,
        owner: str,
        code: str,
        begins: Sequence[Message],
        exchange: Sequence[Message],
        now_s: int,
    ) -> None:
        """Add an exchange to a conversation, or begin it with ``begins`` and the
        exchange. The exchanges of simultaneous requests are all added, in the order in
        which they end.
        """
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM conversation WHERE updated_s < ?", (now_s - KEEP_S,))
            earlier = _messages(connection, owner, code, now_s) or begins
            text = json.dumps(_bounded([*earlier, *exchange]), ensure_ascii=False)
            connection.execute(
                "INSERT OR REPLACE INTO conversation VALUES (?, ?, ?, ?)",
                (owner, code, text, now_s),
            )
            connection.execute(
                "DELETE FROM conversation WHERE owner = ? AND code IN (SELECT code FROM "
                "conversation WHERE owner = ? ORDER BY updated_s DESC, rowid DESC "
                "LIMIT -1 OFFSET ?)",
                (owner, owner, MOST_OF_OWNER),
            )


def _messages(connection: Connection, owner: str, code: str, now_s: int) -> list[Message]:
    row = connection.execute(
        "SELECT messages FROM conversation WHERE owner = ? AND code = ? AND updated_s >= ?",
        (owner, code, now_s - KEEP_S),
    ).fetchone()
    found: list[Message] = json.loads(row[0]) if row else []
    return found


def _bounded(messages: Sequence[Message]) -> list[Message]:
    first = [messages[0]] if messages and messages[0].get("role") == "system" else []
    left = MOST_CHARACTERS - sum(len(str(message.get("content"))) for message in first)
    kept: list[Message] = []
    for message in reversed(messages[len(first) :]):
        left -= len(str(message.get("content")))
        if left < 0:
            break
        kept.append(message)
    return first + kept[::-1]
