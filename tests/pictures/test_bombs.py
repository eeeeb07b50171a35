"""Pictures made to take much time or memory are refused within a second of CPU time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pictures.bombs import BOMBS, png, written
from tests.pictures.inspect_one import REFUSED
from voicechat.errors import RemoteProtocolError
from voicechat.pictures import inspection
from voicechat.pictures.inspection import PictureLimits, inspect_picture

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(name: str) -> None:
    stages: list[float] = []
    with pytest.raises(RemoteProtocolError):
        inspect_picture(BOMBS[name](), PictureLimits(), stages.append)
    decoded = name.startswith("half ") or "half of its pixels" in name or "behind its" in name
    assert len(stages) == (2 if decoded else 1)


def test_usual_pictures_are_far_from_the_bounds() -> None:
    many_chunks = png(after=b"")
    assert inspect_picture(many_chunks, PictureLimits()).width == 64
    progressive = written("JPEG", progressive=True)
    assert progressive.count(b"\xff\xda") < inspection.MOST_SCANS / 3
    assert inspect_picture(progressive, PictureLimits()).width == 40


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc")
@pytest.mark.parametrize("name", BOMBS)
def test_each_takes_less_than_a_second_of_cpu_time(name: str, tmp_path: Path) -> None:
    file = tmp_path / "picture"
    file.write_bytes(BOMBS[name]())
    command = [sys.executable, "-m", "tests.pictures.inspect_one", str(file)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        memory_kib = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == REFUSED
    # The interpreter and Pillow take about 0.2 s of it.
    assert used.ru_utime + used.ru_stime < 1
    assert int(memory_kib) < 400 * 1024
