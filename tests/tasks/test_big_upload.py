"""An upload is never held in memory, in short; `python -m tools.big_upload` is the long
form.
"""

import sys

import pytest

from tools.big_upload import upload

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to measure memory"),
]


@pytest.mark.long
async def test_a_large_upload_takes_little_memory() -> None:
    size_bytes = 40_000_000
    outcome = await upload(size_bytes)
    assert outcome.status == 200
    assert outcome.left_bytes == size_bytes
    assert outcome.grown_bytes < 20_000_000
