"""What a store gets reveals neither a state nor the name of its conversation."""

import base64
import stat
from pathlib import Path

import pytest

from voicechat.errors import ConfigError
from voicechat.store.resumption.interface import MAX_STATE_BYTES, StateTooLargeError
from voicechat.store.resumption.memory import MemoryResumptionStore
from voicechat.store.resumption.sealed import MOST_BYTES, SealedStore
from voicechat.store.resumption.sealing_keys import key_of_file, read_key

OLD, NEW, OTHER = (bytes([each]) * 32 for each in (1, 2, 3))
NAME, STATE = "conversation-of-ann", b'{"said":"my number is 12345"}'


@pytest.fixture
def kept() -> MemoryResumptionStore:
    return MemoryResumptionStore(40.0)


async def saved_with(kept: MemoryResumptionStore, *keys: bytes) -> None:
    store = SealedStore(kept, keys)
    lease, _ = await store.acquire(NAME, "one")
    await store.save(lease, STATE)


async def found_with(kept: MemoryResumptionStore, *keys: bytes) -> bytes | None:
    return (await SealedStore(kept, keys).acquire(NAME, "two"))[1]


async def test_neither_state_nor_name_is_stored_in_plain_text(kept: MemoryResumptionStore) -> None:
    await saved_with(kept, NEW)
    stored = repr(kept._records)
    assert "12345" not in stored
    assert "ann" not in stored


async def test_the_same_state_is_never_encrypted_alike(kept: MemoryResumptionStore) -> None:
    await saved_with(kept, NEW)
    (first,) = (record.state for record in kept._records.values())
    await saved_with(kept, NEW)
    (second,) = (record.state for record in kept._records.values())
    assert first != second


async def test_an_old_key_decrypts_and_the_newest_encrypts(kept: MemoryResumptionStore) -> None:
    await saved_with(kept, OLD)
    assert await found_with(kept, NEW, OLD) == STATE
    await saved_with(kept, NEW, OLD)
    assert await found_with(kept, NEW) == STATE


async def test_an_unknown_key_means_that_nothing_is_kept_and_is_logged(
    kept: MemoryResumptionStore, caplog: pytest.LogCaptureFixture
) -> None:
    await saved_with(kept, OLD)
    assert await found_with(kept, OTHER) is None
    assert "resumption.key" in caplog.text


@pytest.mark.parametrize("place", [0, 1, 5, 17, -1])
async def test_a_changed_state_is_not_used(kept: MemoryResumptionStore, place: int) -> None:
    await saved_with(kept, NEW)
    (record,) = kept._records.values()
    assert record.state is not None
    changed = bytearray(record.state)
    changed[place] ^= 1
    record.state = bytes(changed)
    assert await found_with(kept, NEW) is None


@pytest.mark.parametrize("state", [b"", b"\x01", b"\x01" * 33])
async def test_a_damaged_state_is_not_used(kept: MemoryResumptionStore, state: bytes) -> None:
    await saved_with(kept, NEW)
    (record,) = kept._records.values()
    record.state = state
    assert await found_with(kept, NEW) is None


async def test_a_state_moved_to_another_conversation_is_not_used(
    kept: MemoryResumptionStore,
) -> None:
    store = SealedStore(kept, [NEW])
    await saved_with(kept, NEW)
    (record,) = kept._records.values()
    lease, _ = await store.acquire("conversation-of-bob", "one")
    await store.save(lease, b"{}")
    list(kept._records.values())[-1].state = record.state
    assert (await store.acquire("conversation-of-bob", "two"))[1] is None


async def test_the_largest_state_is_kept_and_one_byte_more_is_refused(
    kept: MemoryResumptionStore,
) -> None:
    store = SealedStore(kept, [NEW])
    lease, _ = await store.acquire(NAME, "one")
    await store.save(lease, bytes(MOST_BYTES))
    assert MOST_BYTES > MAX_STATE_BYTES - 64
    with pytest.raises(StateTooLargeError, match=str(MOST_BYTES + 1)):
        await store.save(lease, bytes(MOST_BYTES + 1))
    assert (await store.acquire(NAME, "two"))[1] == bytes(MOST_BYTES)


@pytest.mark.parametrize(
    "text", ["", "short", "=" * 44, "é" * 44, base64.b64encode(b"x" * 31).decode()]
)
def test_a_text_that_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        read_key(text)


def test_a_key_is_read_in_each_form_of_base64() -> None:
    key = bytes(range(224, 256))
    assert read_key(base64.b64encode(key).decode()) == key
    assert read_key(base64.urlsafe_b64encode(key).decode().rstrip("=") + "\n") == key


def test_a_machine_makes_its_key_once_for_its_owner_alone(tmp_path: Path) -> None:
    key = key_of_file(tmp_path / "data")
    assert key_of_file(tmp_path / "data") == key
    assert stat.S_IMODE((tmp_path / "data" / "resumption.key").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["resumption.key"]


def test_a_damaged_key_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "resumption.key").write_text("nothing")
    with pytest.raises(ConfigError, match=r"resumption\.key"):
        key_of_file(tmp_path)
