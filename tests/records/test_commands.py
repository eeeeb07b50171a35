"""``voicechat records``, ``replay`` and ``usage``."""

from pathlib import Path

import pytest

from tests.records.recorded import new_row, opened
from voicechat.cli import main
from voicechat.records.folder import EVENTS
from voicechat.records.index import RecordRow
from voicechat.records.setup import SessionSetup
from voicechat.records.usage import SessionOfKey, UsageIndex, Used
from voicechat.server.auth import DEFAULT_PROJECT, holder_of_user
from voicechat.session import events as ev
from voicechat.session.commands import CommitTurn, HangUp


def hold(root: Path, count: int = 1, person: str = "") -> list[RecordRow]:
    """Record conversations, and finish the records."""
    rows = [
        new_row(project=DEFAULT_PROJECT, mode="text", person=person, caller="+49301")
        for _ in range(count)
    ]
    with opened(root) as records:
        for row in rows:
            setup = SessionSetup()
            session, recording = setup.open(), records.begin(row, setup)
            events: list[ev.Event] = [ev.Opened(), CommitTurn("Where is my refund?"), HangUp()]
            for at_ms, event in enumerate(events):
                recording.note(event, at_ms, session.receive(event, at_ms))
            recording.close(3)
            UsageIndex(records.database).put(
                SessionOfKey(
                    session=row.id,
                    began_ms=row.began_ms,
                    project=row.project,
                    key_id="k",
                    agent="default",
                ),
                Used(heard_ms=90_000, completion_tokens=2_000_000),
            )
        records.finish()
    return rows


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOICECHAT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("VOICECHAT_PRICES__MILLION_COMPLETION_TOKENS", "0.5")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "records"


def test_records_are_listed_shown_exported_and_deleted(
    root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, second = hold(root, 2)
    assert main(["records", "list", "refund"]) == 0
    assert first.id in (listed := capsys.readouterr().out)
    assert "Where is my refund?" in listed
    assert main(["records", "list", "holiday"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["records", "show", first.id]) == 0
    assert "refund" in capsys.readouterr().out
    assert main(["records", "export", first.id, "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / f"{first.id}.{EVENTS}").exists()
    assert main(["records", "delete", first.id]) == 0
    assert main(["records", "show", first.id]) == 1
    assert main(["records", "show", second.id]) == 0


def test_all_records_of_a_person_are_erased_byte_by_byte(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(root, 3, holder_of_user("anna"))
    (kept,) = hold(root, 1, holder_of_user("bob"))
    assert main(["records", "erase", "--user", "anna"]) == 0
    assert "3 records" in capsys.readouterr().out
    assert main(["records", "list"]) == 0
    assert capsys.readouterr().out.count("rec_") == 1
    person = holder_of_user("anna").encode()
    left = [path for path in root.rglob("*") if path.is_file() and person in path.read_bytes()]
    assert left == []
    assert main(["records", "erase", "--caller", "+49301"]) == 0
    words = [path for path in root.rglob("*") if path.is_file() and b"refund" in path.read_bytes()]
    assert words == []
    assert kept.id


def test_a_record_becomes_a_test(
    root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (row,) = hold(root)
    target = tmp_path / "test_refund.py"
    assert main(["replay", row.id, "--as-test", str(target)]) == 0
    assert "3 events up to 2 ms had the same effects" in capsys.readouterr().out
    assert main(["replay", str(tmp_path / "refund.jsonl"), "--until", "1"]) == 0
    assert "2 events up to 1 ms" in capsys.readouterr().out
    passed: dict[str, object] = {"__file__": str(target)}
    exec(compile(target.read_text(), target, "exec"), passed)
    passed["test_refund"]()  # type: ignore[operator]
    events = (tmp_path / "refund.jsonl").read_text()
    (tmp_path / "refund.jsonl").write_text(events.replace("Where is my refund", "What", 1))
    assert main(["replay", str(tmp_path / "refund.jsonl")]) == 1
    assert "- recorded:" in capsys.readouterr().out


def test_usage_is_summed_and_priced(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hold(root, 2)
    assert main(["usage"]) == 0
    _, day, total = capsys.readouterr().out.splitlines()
    assert day.split() == ["2023-11-14", "2", "0.0", "3.0", "0.0", "0", "4000000", "0", "2.0000"]
    assert total.split()[1:] == day.split()[1:]
    assert main(["usage", "--by", "agent", "--from", "2024-01-01"]) == 0
    assert "default" not in capsys.readouterr().out


def test_what_is_not_there_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage"]) == 1
    assert "nothing has been recorded" in capsys.readouterr().err
    assert main(["replay", "rec_" + "a" * 22]) == 1
    assert "no such record" in capsys.readouterr().err
    assert main(["replay", "nowhere.jsonl"]) == 1
    assert "nowhere.jsonl" in capsys.readouterr().err
