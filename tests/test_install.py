"""What an installation exposes: the package, with its data, and nothing else of the
repository.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_runs_from_anywhere(tmp_path: Path) -> None:
    assert run(tmp_path, "-m", "voicechat", "--version").startswith("voicechat ")


@pytest.mark.parametrize("sibling", ["protocol", "web_demo", "tests"])
def test_the_folders_beside_it_are_no_packages(tmp_path: Path, sibling: str) -> None:
    script = f"import importlib.util; print(importlib.util.find_spec({sibling!r}))"
    assert run(tmp_path, "-c", script) == "None\n"


def test_a_wheel_holds_the_package_and_its_data(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="needs hatchling (pip install hatchling)")
    run(ROOT, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"voicechat"}
    for name in (
        "voicechat/py.typed",
        "voicechat/_data/web_demo/index.html",
        "voicechat/_data/protocol/errors.json",
    ):
        assert name in names
