"""The command itself, for a second or two, on its own server."""

import json
from pathlib import Path
from typing import Any

import pytest

from voicechat.cli import main
from voicechat.server.workers.ipc_channel import supports_channels

pytestmark = pytest.mark.real_time


def figures(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.long
def test_conversations_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--sessions", "2", "--seconds", "3", "--json"]) == 0
    found = figures(capsys)
    assert found["turns"] >= 2
    assert (found["lost"], found["stale"]) == (0, 0)
    assert found["overhead"]["count"] == found["script_late"]["count"] == found["turns"]
    assert found["overhead"]["p50_ms"] > 0
    assert {stage["count"] for stage in found["stages"].values()} == {found["turns"]}
    assert found["interruption"]["count"] >= 1
    assert found["collector_pauses"] is not None


@pytest.mark.skipif(not supports_channels(), reason="this system has one worker at most")
@pytest.mark.long
def test_what_each_worker_adds_is_put_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--sessions", "4", "--seconds", "4", "--workers", "2", "--json"]) == 0
    found = figures(capsys)
    assert found["turns"] >= 4
    assert found["overhead"]["count"] == found["stages"]["hear"]["count"] == found["turns"]
    assert found["collector_pauses"] is None


@pytest.mark.long
def test_pings_are_measured_while_streams_are_recognised(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "--recognising", "1", "--seconds", "2", "--json"]) == 0
    found = figures(capsys)
    assert found["unanswered"] == 0
    assert found["ping"]["count"] == found["pings"] > 100
    assert found["sentences"] >= 1


@pytest.mark.long
def test_open_microphones_are_answered_without_being_told_that_the_turn_is_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = ["--sessions", "1", "--seconds", "4", "--output", "PCM_16000HZ_MONO_16BIT"]
    assert main(["bench", "--hands-free", *wanted, "--json"]) == 0
    found = figures(capsys)
    assert found["turns"] == found["wait"]["count"] == found["late_audio"]["count"] >= 1
    assert (
        found["wait"]["p50_ms"] > 400
    )  # a recogniser, a model and a synthesiser, and the silence before
    assert found["overhead"] is None


@pytest.mark.long
def test_a_session_is_weighed_in_each_state(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--memory", "--sessions", "3", "--json"]) == 0
    found = figures(capsys)
    assert found["lost"] == 0
    assert found["base_mib"] is None or found["base_mib"] > 20
    assert main(["bench", "--memory", "--sessions", "1"]) == 0
    assert "MiB per session" in capsys.readouterr().out


@pytest.mark.long
def test_a_ramp_leaves_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "ramp.html"
    # Whether a session is held depends on who else uses the machine; that both are told
    # does not.
    assert main(["bench", "--ramp", str(page), "--sessions", "1", "--seconds", "1"]) in (0, 1)
    printed = capsys.readouterr().out
    assert "sessions held; " in printed
    assert "conversations here</title>" in page.read_text()


@pytest.mark.long
def test_the_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["bench", "--sessions", "1", "--seconds", "1", "--output", "PCM_16000HZ_MONO_16BIT"])
        == 0
    )
    printed = capsys.readouterr().out
    assert "1 sessions, 1 s, PCM_16000HZ_MONO_16BIT" in printed
    assert "turns lost, late      0, " in printed


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--sessions", "0"], "--sessions: 0 is not between 1 and 10000"),
        (["--seconds", "0.5"], "--seconds: 0.5 is not between"),
        (["--recognising", "65"], "--recognising: 65 is not between"),
        (["--output", "TAPE"], "--output: "),
        (["--recording", "a.wav"], "--recording is for --recognising"),
        (["--memory", "--ramp", "a.html"], "--memory and --ramp exclude each other"),
        (["--memory", "--hands-free"], "--memory measures push to talk"),
        (["--memory", "--workers", "2"], "--workers is for conversations"),
        (["--recognising", "1", "--workers", "2"], "--workers is for conversations"),
        (["--ramp", "/nowhere/a.html"], "--ramp: there is no folder for /nowhere/a.html"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *argv]) == 2
    assert told in capsys.readouterr().err
