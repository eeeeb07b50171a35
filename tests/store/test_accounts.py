"""Accounts: hashed passwords, ids that nobody can guess, names that nobody learns."""

from pathlib import Path
from typing import Literal

import argon2
import pytest

from voicechat.store import accounts
from voicechat.store.accounts import AccountStore

NOW_S = 1_800_000_000
CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def store(tmp_path: Path) -> AccountStore:
    return AccountStore(tmp_path, CHEAP)


def test_who_knows_the_password_gets_the_same_id_again(store: AccountStore) -> None:
    assert store.register("li", "correct horse", "a@b.c", NOW_S)
    user_id = store.log_in("li", "correct horse")
    assert len(user_id) == 32
    assert store.log_in("li", "correct horse") == user_id
    assert store.knows("li", user_id)
    assert store.register("wu", "correct horse", "a@b.c", NOW_S)
    assert store.log_in("wu", "correct horse") != user_id


def test_nobody_else_gets_in(store: AccountStore) -> None:
    store.register("li", "correct horse", "a@b.c", NOW_S)
    user_id = store.log_in("li", "correct horse")
    for name, password in (("li", "Correct horse"), ("li", ""), ("nobody", "correct horse")):
        assert store.log_in(name, password) == ""
    for name, guess in (("li", ""), ("li", "0" * 32), ("wu", user_id), ("", user_id)):
        assert not store.knows(name, guess)


def test_a_name_that_is_taken_stays_its_owners(store: AccountStore) -> None:
    assert store.register("li", "correct horse", "a@b.c", NOW_S)
    assert not store.register("li", "another one", "x@y.z", NOW_S)
    assert store.log_in("li", "correct horse")
    assert not store.log_in("li", "another one")


def test_an_unknown_name_costs_a_hash_as_a_known_one_does(tmp_path: Path) -> None:
    verified: list[str | bytes] = []

    class Counting(argon2.PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
            verified.append(hash)
            return super().verify(hash, password)

    store = AccountStore(tmp_path, Counting(time_cost=1, memory_cost=8, parallelism=1))
    store.register("li", "correct horse", "a@b.c", NOW_S)
    store.log_in("li", "wrong")
    store.log_in("nobody", "wrong")
    assert len(verified) == 2
    known, unknown = (argon2.extract_parameters(str(hashed)) for hashed in verified)
    assert known == unknown, "of the same cost"


def test_the_file_holds_no_password(store: AccountStore, tmp_path: Path) -> None:
    store.register("li", "correct horse", "a@b.c", NOW_S)
    file = tmp_path / accounts.FILE
    assert b"correct horse" not in file.read_bytes()
    assert b"$argon2id$" in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0


def test_there_is_a_bound(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MOST_ACCOUNTS", 1)
    assert store.register("li", "correct horse", "a@b.c", NOW_S)
    assert not store.register("wu", "correct horse", "a@b.c", NOW_S)
