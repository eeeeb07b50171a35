"""Conversations that the server keeps: bounded, expiring, one set for each key."""

from pathlib import Path

import pytest

from voicechat.session.types import Message
from voicechat.store import conversations
from voicechat.store.conversations import KEEP_S, MOST_CHARACTERS, ConversationStore

NOW_S = 1_800_000_000
BEGINS: list[Message] = [{"role": "system", "content": "Be brief."}]


def exchange(text: str) -> list[Message]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": f"re {text}"}]


def test_exchanges_are_added_to_what_was_said(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    assert store.messages("a", "c", NOW_S) == []
    assert not list(tmp_path.iterdir()), "looking makes no file"
    store.add("a", "c", BEGINS, exchange("1"), NOW_S)
    # Another request began before the first exchange was kept.
    store.add("a", "c", BEGINS, exchange("2"), NOW_S)
    assert store.messages("a", "c", NOW_S) == [*BEGINS, *exchange("1"), *exchange("2")]
    assert store.messages("b", "c", NOW_S) == [], "of another key"
    assert ConversationStore(tmp_path).messages("a", "c", NOW_S), "after a restart"
    assert (tmp_path / conversations.FILE).stat().st_mode & 0o077 == 0


def test_a_conversation_expires(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    store.add("a", "c", BEGINS, exchange("1"), NOW_S)
    assert store.messages("a", "c", NOW_S + KEEP_S)
    assert not store.messages("a", "c", NOW_S + KEEP_S + 1)
    store.add("a", "c", BEGINS, exchange("2"), NOW_S + KEEP_S + 1)
    assert store.messages("a", "c", NOW_S + KEEP_S + 1) == [*BEGINS, *exchange("2")]


def test_a_long_one_loses_its_oldest_messages_but_not_its_instructions(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    long = "x" * (MOST_CHARACTERS // 4)
    for _ in range(3):
        store.add("a", "c", BEGINS, exchange(long), NOW_S)
    kept = store.messages("a", "c", NOW_S)
    assert kept[0] == BEGINS[0]
    assert sum(len(str(message["content"])) for message in kept) <= MOST_CHARACTERS
    assert kept[-2:] == exchange(long)


def test_a_key_has_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MOST_OF_OWNER", 3)
    store = ConversationStore(tmp_path)
    store.add("b", "0", BEGINS, exchange("x"), NOW_S)
    for number in range(4):
        store.add("a", str(number), BEGINS, exchange("x"), NOW_S + number)
    assert [bool(store.messages("a", str(number), NOW_S + 4)) for number in range(4)] == [
        *(False, True, True, True)
    ]
    assert store.messages("b", "0", NOW_S + 4), "another key loses nothing"
