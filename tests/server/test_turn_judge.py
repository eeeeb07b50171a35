"""The configured model of turn ends."""

from pathlib import Path

import pytest

from tests.voice.test_turn_model import tiny_model
from voicechat.config import load_config
from voicechat.errors import ConfigError
from voicechat.server.serve import open_detector


def opened(path: Path) -> bool:
    judge = open_detector(load_config(None, {}, {"hands_free": {"turn_model": str(path)}})).turn_judge
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


def test_a_misspelt_key_is_told_the_right_one() -> None:
    with pytest.raises(ConfigError, match="turn_model"):
        load_config(None, {}, {"hands_free": {"turnmodel": ""}})
