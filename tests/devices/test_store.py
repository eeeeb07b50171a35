"""Devices on disk: paired with a code, given the same key each time, revoked."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from voicechat.store.devices import (
    CODE_S,
    CODES_OF_ADDRESS,
    DEVICE_SESSIONS,
    SECRET_FILE,
    DeviceStore,
    TooManyCodesError,
    UnknownCodeError,
)
from voicechat.store.keys import KeyStore

NOW_S = 1_000_000
MAC, CLIENT = "aa:bb:cc:00:11:22", "client-1"


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.sqlite3")


@pytest.fixture
def store(tmp_path: Path, keys: KeyStore) -> DeviceStore:
    return DeviceStore(tmp_path, keys)


def code_of(store: DeviceStore, device: str = MAC, client: str = CLIENT) -> str:
    return store.wait_for_code(device, client, "m5 2.0.3", "10.0.0.7", NOW_S)


def test_a_device_is_paired_with_its_code(store: DeviceStore) -> None:
    code = code_of(store)
    assert len(code) == 6
    assert code.isdecimal()
    assert code_of(store) == code
    assert [each.code for each in store.list_waiting(NOW_S)] == [code]
    assert store.check_in(MAC, CLIENT, NOW_S) is None
    device = store.pair(code, "kitchen", "by the window", NOW_S)
    assert (device.id, device.agent, device.about) == (MAC, "kitchen", "m5 2.0.3")
    assert store.check_in(MAC, CLIENT, NOW_S + 5) == store.list_devices()[0]
    assert store.list_devices()[0].seen_s == NOW_S + 5
    assert store.list_waiting(NOW_S) == []
    with pytest.raises(UnknownCodeError):
        store.pair(code, "", "", NOW_S)


def test_a_code_ends_with_its_time(store: DeviceStore) -> None:
    code = code_of(store)
    with pytest.raises(UnknownCodeError):
        store.pair(code, "", "", NOW_S + CODE_S)


def test_a_device_has_one_key_for_conversations_which_is_not_stored(
    store: DeviceStore, keys: KeyStore, tmp_path: Path
) -> None:
    device = store.pair(code_of(store), "", "", NOW_S)
    key = store.key_of(device)
    assert DeviceStore(tmp_path, keys).key_of(device) == key
    keys.refresh()
    found = keys.find_key(key, NOW_S)
    assert found is not None
    assert [each.value for each in found.grant.scope.endpoints] == ["conversation"]
    assert found.grant.quota.max_sessions == DEVICE_SESSIONS
    for path in tmp_path.iterdir():
        assert key.encode() not in path.read_bytes()
        assert CLIENT.encode() not in path.read_bytes()
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077
    assert len((tmp_path / SECRET_FILE).read_bytes()) == 32


def test_a_revoked_device_needs_a_code_anew(store: DeviceStore, keys: KeyStore) -> None:
    device = store.pair(code_of(store), "", "", NOW_S)
    key = store.key_of(device)
    assert store.revoke(MAC, NOW_S)
    assert not store.revoke(MAC, NOW_S)
    keys.refresh()
    assert keys.find_key(key, NOW_S) is None
    assert store.check_in(MAC, CLIENT, NOW_S) is None
    assert store.is_known(MAC)
    again = store.pair(code_of(store), "", "", NOW_S)
    assert store.key_of(again) != key


def test_another_device_with_the_same_id_replaces_the_first_only_with_a_code(
    store: DeviceStore, keys: KeyStore
) -> None:
    first = store.pair(code_of(store), "", "", NOW_S)
    assert store.check_in(MAC, "client-2", NOW_S) is None
    second = store.pair(code_of(store, client="client-2"), "", "", NOW_S)
    keys.refresh()
    assert keys.find_key(store.key_of(first), NOW_S) is None
    assert keys.find_key(store.key_of(second), NOW_S) is not None
    assert store.check_in(MAC, CLIENT, NOW_S) is None


def test_one_address_cannot_use_up_the_codes(store: DeviceStore) -> None:
    for number in range(CODES_OF_ADDRESS):
        code_of(store, device=f"d{number}")
    with pytest.raises(TooManyCodesError):
        code_of(store)
    assert store.wait_for_code(MAC, CLIENT, "", "10.0.0.8", NOW_S)


def test_many_devices_at_once_are_all_let_in(store: DeviceStore, keys: KeyStore) -> None:
    def enter(number: int) -> bool:
        device = store.accept(f"d{number}", "client", "", NOW_S)
        keys.refresh()
        found = keys.find_key(store.key_of(device), NOW_S)
        return found is not None and store.check_in(f"d{number}", "client", NOW_S) is not None

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(enter, range(24)))
    assert len(store.list_devices()) == len(keys.list_keys()) == 24


def test_what_is_signed_belongs_to_this_server(store: DeviceStore, tmp_path: Path) -> None:
    other = DeviceStore(tmp_path / "other", KeyStore(tmp_path / "other" / "keys"))
    assert store.sign("a") == store.sign("a")
    assert len({store.sign("a"), store.sign("b"), other.sign("a")}) == 3
