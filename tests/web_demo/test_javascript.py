import shutil
import subprocess
from pathlib import Path

import pytest


def test_the_page_s_modules_and_the_golden_transcripts_under_node() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    folder = Path(__file__).parent
    tests = [str(path) for path in sorted(folder.glob("*.test.mjs"))]
    run = subprocess.run([node, "--test", *tests], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout[-8000:]
