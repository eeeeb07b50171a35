import subprocess
import sys
from pathlib import Path

import pytest

from voicechat.cli import COMMANDS, main
from voicechat.errors import ConfigError


def test_help_of_every_command_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        assert f"example:\n  voicechat {name}" in capsys.readouterr().out


def test_the_documented_commands_exist() -> None:
    assert {"serve", "talk", "transcribe", "say", "doctor", "keys"} <= set(COMMANDS)


@pytest.mark.parametrize(
    "argv", [[], ["sing"], ["say"], ["serve", "--port", "x"], ["keys", "revoke"]]
)
def test_wrong_usage_is_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert "usage: voicechat" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("voicechat ")


def test_a_failure_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--config", "nowhere.toml"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("voicechat: the configuration file nowhere.toml cannot be read")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_debug_shows_where() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        main(["serve", "--config", "nowhere.toml", "--debug"])


@pytest.mark.real_time
def test_a_bug_is_one_line_too(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "broken_plugin.py").write_text(
        "def open_it():\n    raise LookupError('first line\\nsecond line')\n"
    )
    with (directory / "voicechat.toml").open("a") as config:
        config.write('[tts.broken]\nprovider = "broken_plugin:open_it"\n')
    monkeypatch.syspath_prepend(directory)
    assert main(["say", "Hello", "--service", "broken"]) == 1
    assert (
        capsys.readouterr().err
        == "voicechat: internal error: LookupError: first line (--debug shows where)\n"
    )


@pytest.mark.real_time
def test_the_package_can_be_run() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "voicechat", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("voicechat ")
