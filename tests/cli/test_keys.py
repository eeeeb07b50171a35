from pathlib import Path

import pytest

from voicechat.cli import main
from voicechat.runtime.wall_clock import unix_s
from voicechat.store.access import ApiEndpoint, Grant, Quota, Scope
from voicechat.store.keys import KeyStore


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICECHAT_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_key_is_made_shown_once_listed_without_it_and_revoked(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "create", "--name", "reception"]) == 0
    key = capsys.readouterr().out.strip()
    store = KeyStore(data / "keys.sqlite3")
    store.refresh()
    record = store.find_key(key, unix_s())
    assert record is not None

    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert record.id in listed
    assert "reception" in listed
    assert "valid" in listed
    assert key not in listed

    assert main(["keys", "revoke", record.id]) == 0
    store.refresh()
    assert store.find_key(key, unix_s()) is None
    assert main(["keys", "revoke", record.id]) == 1
    assert main(["keys", "list"]) == 0
    assert "revoked" in capsys.readouterr().out


def test_a_name_that_would_spoil_the_list_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "--name", "a\nb"]) == 1
    assert "--name" in capsys.readouterr().err


def test_scope_expiry_and_quotas_are_settled_and_listed(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "--project shop --project till --endpoint conversation --endpoint tokens --expires 30d"
    )
    quotas = "--max-sessions 20 --requests-per-minute 600 --audio-seconds-per-day 7200"
    before_s = int(unix_s())
    assert main(["keys", "create", *options.split(), *quotas.split()]) == 0
    [record] = KeyStore(data / "keys.sqlite3").list_keys()
    expires_s = record.grant.expires_s
    assert expires_s is not None
    assert 30 * 86_400 <= expires_s - before_s <= 30 * 86_400 + 60
    assert record.grant == Grant(
        scope=Scope(
            projects=("shop", "till"), endpoints=(ApiEndpoint.CONVERSATION, ApiEndpoint.TOKENS)
        ),
        quota=Quota(max_sessions=20, requests_per_minute=600, audio_seconds_per_day=7200),
        expires_s=expires_s,
    )
    capsys.readouterr()
    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    for words in (
        "until",
        "20 sessions",
        "600 requests/min",
        "7200 audio s/day",
        "shop,till",
        "conversation,tokens",
    ):
        assert words in listed


@pytest.mark.parametrize(
    "option",
    ["--expires=30", "--expires=0d", "--expires=soon", "--max-sessions=0", "--max-sessions=x", "--endpoint=all",
     "--requests-per-minute=-1", "--audio-seconds-per-day=99999999999"],
)  # fmt: skip
def test_what_is_no_limit_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", option]) == 2
    assert option.split("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("project", ["", "a/b", "a\nb", "x" * 101])
def test_a_project_that_no_path_can_name_is_refused(
    project: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "create", "--project", project]) == 1
    assert "--project" in capsys.readouterr().err
