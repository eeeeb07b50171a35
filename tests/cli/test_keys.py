from pathlib import Path

import pytest

from voicechat.cli import main
from voicechat.store.keys import KeyStore


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICECHAT_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_key_is_made_shown_once_listed_without_it_and_revoked(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "--name", "reception"]) == 0
    key = capsys.readouterr().out.strip()
    store = KeyStore(data / "keys.sqlite3")
    store.refresh()
    record = store.find(key)
    assert record is not None

    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert record.id in listed
    assert "reception" in listed
    assert "valid" in listed
    assert key not in listed

    assert main(["keys", "revoke", record.id]) == 0
    store.refresh()
    assert store.find(key) is None
    assert main(["keys", "revoke", record.id]) == 1
    assert main(["keys", "list"]) == 0
    assert "revoked" in capsys.readouterr().out


def test_a_name_that_would_spoil_the_list_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "--name", "a\nb"]) == 1
    assert "--name" in capsys.readouterr().err
