"""The configured models of hands-free mode."""

import shutil
from pathlib import Path

import pytest

from tests.voice.test_turn_model import tiny_model
from voicechat.config import load_config
from voicechat.errors import ConfigError
from voicechat.server.serve import open_detector
from voicechat.voice import silero
from voicechat.voice.silero import find_model


def opened(path: Path) -> bool:
    judge = open_detector(
        load_config(None, {}, {"hands_free": {"turn_model": str(path)}})
    ).turn_judge
    if judge is not None:
        judge.close()
    return judge is not None


def test_none_is_configured_by_itself() -> None:
    assert open_detector(load_config(None, {})).turn_judge is None


def test_the_configured_one_is_opened(tmp_path: Path) -> None:
    assert opened(tiny_model(tmp_path / "turn.onnx"))


def test_a_wrong_one_stops_the_start_and_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hands_free\.turn_model: .*nothing\.onnx.* is no file"):
        opened(tmp_path / "nothing.onnx")


def test_the_configured_voice_model_is_opened_instead_of_the_package_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = shutil.copy(find_model(), tmp_path / "mine.onnx")
    monkeypatch.setattr(silero, "_PACKAGES", ())
    with pytest.raises(ConfigError, match=r"hands_free\.voice_model: no voice model: install"):
        open_detector(load_config(None, {}))
    open_detector(load_config(None, {}, {"hands_free": {"voice_model": str(mine)}}))


def test_a_wrong_voice_model_stops_the_start_and_names_its_key(tmp_path: Path) -> None:
    config = load_config(None, {}, {"hands_free": {"voice_model": str(tmp_path / "nothing.onnx")}})
    with pytest.raises(ConfigError, match=r"hands_free\.voice_model: .*nothing\.onnx.* is no file"):
        open_detector(config)


def test_a_misspelt_key_is_told_the_right_one() -> None:
    with pytest.raises(ConfigError, match="turn_model"):
        load_config(None, {}, {"hands_free": {"turnmodel": ""}})
