"""What ``[resumption]`` allows, and what it opens."""

import base64
from pathlib import Path

import pytest

from voicechat.config import Config, load_config
from voicechat.config.resumption import open_resumption_store
from voicechat.errors import ConfigError
from voicechat.store.resumption.interface import ResumptionStore

OLD, NEW = (base64.b64encode(bytes([each]) * 32).decode() for each in (1, 2))


def configured(folder: Path, **keys: str) -> Config:
    variables = {f"VOICECHAT_RESUMPTION__{key.upper()}": value for key, value in keys.items()}
    return load_config(environ={"VOICECHAT_DATA_DIR": str(folder), **variables})


def opened(folder: Path, **keys: str) -> ResumptionStore:
    store = open_resumption_store(configured(folder, **keys))
    assert store is not None
    return store


@pytest.mark.real_time
async def test_the_default_store_survives_the_process_and_is_encrypted(tmp_path: Path) -> None:
    before = opened(tmp_path)
    await before.start()
    lease, _ = await before.acquire("c", "one")
    await before.save(lease, b"in plain text")
    await before.aclose()
    stored = (tmp_path / "resumption.sqlite3").read_bytes()
    assert b"state" in stored
    assert b"in plain text" not in stored
    after = opened(tmp_path)
    await after.start()
    assert (await after.acquire("c", "two"))[1] == b"in plain text"
    await after.aclose()


@pytest.mark.real_time
async def test_an_old_key_still_decrypts(tmp_path: Path) -> None:
    before = opened(tmp_path, key=OLD)
    lease, _ = await before.acquire("c", "one")
    await before.save(lease, b"state")
    await before.aclose()
    after = opened(tmp_path, key=NEW, old_keys=f'["{OLD}"]')
    assert (await after.acquire("c", "two"))[1] == b"state"
    await after.aclose()


def test_a_window_of_0_switches_resumption_off(tmp_path: Path) -> None:
    assert open_resumption_store(configured(tmp_path, window_ms="0")) is None
    assert list(tmp_path.iterdir()) == []


def test_redis_demands_a_key(tmp_path: Path) -> None:
    config = configured(tmp_path, store="redis://127.0.0.1")
    with pytest.raises(ConfigError, match=r"resumption\.key.*openssl rand -base64 32"):
        open_resumption_store(config)


def test_an_address_of_redis_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"resumption\.store"):
        opened(tmp_path, store="redis://127.0.0.1:many", key=NEW)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"store": "postgresql://here"}, r"resumption\.store.*redis://"),
        ({"key": "too-short"}, r"resumption\.key.*32 random bytes"),
        ({"old_keys": '["too-short"]'}, r"resumption\.old_keys.*32 random bytes"),
        ({"window_ms": "-1"}, r"resumption\.window_ms"),
        ({"deadline_ms": "0"}, r"resumption\.deadline_ms"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, keys: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        configured(tmp_path, **keys)


def test_the_address_of_the_cluster_is_checked_and_never_shown(tmp_path: Path) -> None:
    environ = {"VOICECHAT_DATA_DIR": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"cluster\.redis.*redis://"):
        load_config(environ=environ | {"VOICECHAT_CLUSTER__REDIS": "http://here"})
    config = load_config(
        environ=environ | {"VOICECHAT_CLUSTER__REDIS": "redis://:pass-word-1@here"}
    )
    assert "pass-word-1" not in repr(config)


def test_the_key_can_stay_out_of_the_file_and_is_never_shown(tmp_path: Path) -> None:
    environ = {
        "VOICECHAT_DATA_DIR": str(tmp_path),
        "VOICECHAT_RESUMPTION__KEY_ENV": "MY_KEY",
        "MY_KEY": NEW,
    }
    config = load_config(environ=environ)
    assert config.resumption.key == NEW
    assert NEW not in repr(config)
