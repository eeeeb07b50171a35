"""What ``voicechat serve`` says before it serves."""

from pathlib import Path

import pytest

from voicechat.cli import main, serve
from voicechat.config import Config


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that are served, each for no time."""
    configs: list[Config] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICECHAT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(serve, "run", lambda config, announce: configs.append(config))
    return configs


def test_without_models_it_says_what_they_would_bring(
    served: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("voicechat: the embedded models are small; for neural voices, ")
    assert line.endswith("pip install 'voicechat[local]' && voicechat models pull local (1.4 GB)")
    assert served[0].tts["default"].provider == "espeak"


def test_with_a_configuration_it_says_nothing_of_models(
    served: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "voicechat.toml").write_text("[server]\nport = 0\n")
    assert main(["serve"]) == 0
    assert capsys.readouterr().out == ""
    assert len(served) == 1
