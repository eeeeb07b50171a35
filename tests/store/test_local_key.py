import stat
from pathlib import Path

import pytest

from voicechat.errors import ConfigError
from voicechat.store.local_key import local_key


def test_the_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    key = local_key(tmp_path / "data")
    assert len(key) > 40
    assert local_key(tmp_path / "data") == key
    [file] = (tmp_path / "data").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_two_directories_have_two_keys(tmp_path: Path) -> None:
    assert local_key(tmp_path / "a") != local_key(tmp_path / "b")


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe" * 30])
def test_a_broken_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    local_key(tmp_path)
    (tmp_path / "local.key").write_bytes(content)
    key = local_key(tmp_path)
    assert len(key) > 40
    assert local_key(tmp_path) == key


def test_too_open_permissions_are_narrowed(tmp_path: Path) -> None:
    local_key(tmp_path)
    (tmp_path / "local.key").chmod(0o644)
    local_key(tmp_path)
    assert stat.S_IMODE((tmp_path / "local.key").stat().st_mode) == 0o600


def test_a_directory_that_cannot_be_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="data directory"):
        local_key(tmp_path / "file" / "data")
