import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from voicechat.errors import ConfigError
from voicechat.store.access import ApiEndpoint, Grant, Quota, Scope
from voicechat.store.keys import ApiKey, KeyStore, digest

NOW_S = 1_800_000_000


def found(store: KeyStore, key: str) -> ApiKey | None:
    """What a server does: read the file again if it was changed, then look."""
    if store.stale:
        store.refresh()
    return store.find_key(key, NOW_S)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys.sqlite3"


def test_a_key_is_found_by_what_it_reads_and_by_nothing_else(path: Path) -> None:
    store = KeyStore(path)
    record, key = store.create_key("reception")
    other_record, other_key = store.create_key("")

    assert found(store, key) == record
    assert found(store, other_key) == other_record
    assert found(store, key[:-1]) is None
    assert found(store, key + "x") is None
    assert found(store, key[:11] + other_key[11:]) is None  # the id of one, the secret of the other
    assert found(store, key.removeprefix("vc_")) is None
    assert found(store, "") is None


def test_a_key_has_256_random_bits_and_safe_characters(path: Path) -> None:
    record, key = KeyStore(path).create_key("a")
    assert key.startswith(f"vc_{record.id}")
    assert len(key.removeprefix(f"vc_{record.id}")) == 43
    assert key.replace("-", "").replace("_", "").isalnum()


def test_the_file_holds_no_key_and_is_its_owners_alone(path: Path) -> None:
    _, key = KeyStore(path).create_key("a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = key[11:].encode()
    assert all(secret not in file.read_bytes() for file in path.parent.iterdir())


def test_a_revoked_key_is_refused_and_stays_listed(path: Path) -> None:
    store = KeyStore(path)
    record, key = store.create_key("a")
    assert store.revoke_key(record.id)
    assert not store.revoke_key(record.id)
    assert not store.revoke_key("nothing")
    assert found(store, key) is None
    assert not store.has_valid_keys(NOW_S)
    [listed] = store.list_keys()
    assert listed.revoked_s is not None
    assert listed.created_s <= listed.revoked_s


def test_a_running_server_notices_what_another_process_does(path: Path) -> None:
    server, command_line = KeyStore(path), KeyStore(path)
    assert not server.has_valid_keys(NOW_S)
    record, key = command_line.create_key("a")
    assert found(server, key) == record
    command_line.revoke_key(record.id)
    assert found(server, key) is None


def test_a_file_put_in_the_place_of_another_is_noticed(path: Path) -> None:
    server = KeyStore(path)
    _, old_key = server.create_key("a")
    assert found(server, old_key)
    path.rename(path.with_name("old"))
    assert found(server, old_key) is None
    _, new_key = KeyStore(path).create_key("a")
    assert found(server, new_key)
    path.with_name("old").replace(path)
    assert found(server, old_key)
    assert found(server, new_key) is None


def test_only_what_a_file_says_ends_a_key(path: Path) -> None:
    store = KeyStore(path)
    record, key = store.create_key("a", Grant(expires_s=NOW_S + 10))
    other, _ = store.create_key("b")
    assert found(store, key)
    both = {record.id, other.id}
    path.rename(path.with_name("away"))
    assert found(store, key) is None, "nobody new comes in"
    assert store.ended_keys(both, NOW_S) == frozenset(), "and nobody is put out"
    assert store.ended_keys(both, NOW_S + 10) == {record.id}, "but whose time is over"
    path.touch()
    assert found(store, key) is None, "a file of no bytes says as little"
    assert store.ended_keys(both, NOW_S) == frozenset()
    path.with_name("away").rename(path)
    KeyStore(path).revoke_key(other.id)
    store.refresh()
    assert store.ended_keys({*both, "00000000"}, NOW_S) == {other.id, "00000000"}


def test_looking_needs_no_right_to_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, key = KeyStore(path).create_key("a")
    opened: list[str] = []
    connect = sqlite3.connect

    def connect_noted(address: str, **options: object) -> sqlite3.Connection:
        opened.append(address)
        return connect(address, **options)  # type: ignore[call-overload, no-any-return]

    def open_for_writing(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sqlite3, "connect", connect_noted)
    monkeypatch.setattr(os, "open", open_for_writing)
    assert found(KeyStore(path), key)
    assert [address.endswith("?mode=ro") for address in opened] == [True]


def test_the_file_is_read_only_when_it_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = KeyStore(path)
    _, key = store.create_key("a")
    assert found(store, key)
    monkeypatch.setattr(sqlite3, "connect", None)
    assert found(store, key)
    assert found(store, "vc_00000000nonsense") is None


def test_nothing_is_written_by_looking(path: Path) -> None:
    store = KeyStore(path)
    assert store.list_keys() == []
    assert not store.revoke_key("0")
    assert found(store, "vc_x") is None
    assert not path.parent.exists()


def test_a_broken_file_is_a_config_error_that_names_it(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(os.urandom(4096))
    with pytest.raises(ConfigError, match=r"keys\.sqlite3"):
        KeyStore(path).has_valid_keys(NOW_S)


def test_any_text_may_be_tried_as_a_key(path: Path) -> None:
    store = KeyStore(path)
    store.create_key("a")
    for text in ("vc_\udcff", "vc_" + "x" * 100_000, "vc_\0", "vc_好"):
        assert found(store, text) is None


def test_a_key_expires(path: Path) -> None:
    store = KeyStore(path)
    record, key = store.create_key("a", Grant(expires_s=NOW_S + 10))
    store.refresh()
    assert store.find_key(key, NOW_S + 9) == record
    assert store.valid_key(record.id, NOW_S + 9) == record
    assert store.valid_ids(NOW_S + 9) == {record.id}
    assert store.find_key(key, NOW_S + 10) is None
    assert store.valid_key(record.id, NOW_S + 10) is None
    assert not store.valid_ids(NOW_S + 10)
    assert not store.has_valid_keys(NOW_S + 10)


def test_scope_and_quota_come_back_as_they_were_given(path: Path) -> None:
    grant = Grant(
        scope=Scope(projects=("p", "好"), endpoints=(ApiEndpoint.SPEECH, ApiEndpoint.CHAT)),
        quota=Quota(max_sessions=1, requests_per_minute=2, audio_seconds_per_day=3),
        expires_s=NOW_S + 1,
    )
    record, key = KeyStore(path).create_key("a", grant)
    assert record.grant == grant
    assert found(KeyStore(path), key) == record


def test_a_file_of_the_first_version_is_brought_up_to_date(path: Path) -> None:
    path.parent.mkdir()
    key = "vc_00000000" + "x" * 43
    with closing(sqlite3.connect(path)) as old, old:
        old.execute(
            "CREATE TABLE api_key (id TEXT PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL, "
            "created_s INTEGER NOT NULL DEFAULT 0, revoked_s INTEGER)"
        )
        old.execute(
            "INSERT INTO api_key (id, name, digest) VALUES ('00000000', 'old', ?)", (digest(key),)
        )
    record = found(KeyStore(path), key)
    assert record == ApiKey("00000000", "old", 0, None)
    assert (
        KeyStore(path)
        .create_key("new", Grant(quota=Quota(max_sessions=1)))[0]
        .grant.quota.max_sessions
        == 1
    )
