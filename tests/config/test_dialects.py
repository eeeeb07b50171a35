"""``[dialects.NAME]``: protocols of one's own."""

from pathlib import Path

import pytest

from tests.lines.dialect import LinesEndpoint
from voicechat.config import Config, load_config
from voicechat.config.endpoints import endpoints_of
from voicechat.dialects.base import Endpoint
from voicechat.dialects.speech_chat.endpoint import PATHS
from voicechat.errors import ConfigError

HERE = "tests.config.test_dialects"


class Wired(LinesEndpoint):
    def __init__(self, port: int, path: str, secret: str) -> None:
        self.port = port or None
        self.paths = (path,) if path else ()
        self.secret = secret


def open_wired(port: int = 0, path: str = "", secret: str = "") -> Endpoint:
    return Wired(port, path, secret)


def open_nothing() -> object:
    return object()


def load(folder: Path, toml: str) -> Config:
    path = folder / "given.toml"
    path.write_text(toml, encoding="utf-8")
    return load_config(path, {"VOICECHAT_DATA_DIR": str(folder)})


def test_a_dialect_is_opened_with_the_keys_of_its_section_and_named_as_it(tmp_path: Path) -> None:
    toml = f'[dialects.wire]\ndialect = "{HERE}:open_wired"\nport = 7000\nsecret = "s3cret"'
    config = load(tmp_path, toml)
    assert "s3cret" not in repr(config)
    *ours, wired = endpoints_of(config)
    assert len(ours) == len(endpoints_of(load(tmp_path, "")))
    assert isinstance(wired, Wired)
    assert (wired.name, wired.port, wired.secret) == ("wire", 7000, "s3cret")


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        (
            'dialect = "no_such_module:open"',
            "dialects.w: dialect: 'no_such_module:open' needs the Python package",
        ),
        (f'dialect = "{HERE}:nothing"', f"dialects.w: dialect: '{HERE}' has no function 'nothing'"),
        (
            f'dialect = "{HERE}:open_nothing"',
            "returned a object, which is no voicechat.dialects.base.Endpoint",
        ),
        (
            f'dialect = "{HERE}:open_wired"',
            "dialects.w: the endpoint has neither a path nor a port",
        ),
        (
            f'dialect = "{HERE}:open_wired"\npath = "{PATHS[0]}"',
            f"dialects.w: {PATHS[0]} is served already",
        ),
        (f'dialect = "{HERE}:open_wired"\npart = 7000', "part"),
        (f'dialect = "{HERE}:open_wired"\nport = "any"', "port"),
    ],
)
def test_mistakes_are_named_before_the_server_starts(
    tmp_path: Path, keys: str, complaint: str
) -> None:
    config = load(tmp_path, f"[dialects.w]\n{keys}")
    with pytest.raises(ConfigError) as error:
        endpoints_of(config)
    assert complaint in str(error.value)
    assert "dialects.w" in str(error.value)


def test_a_dialect_without_a_factory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dialects\.w\.dialect"):
        load(tmp_path, '[dialects.w]\ndialect = "lines"')
