"""Recordings that are small on the wire and endless once they are opened: a clear 4xx
soon, and nothing left.
"""

import gzip
import io
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests.tasks.transcription_server import (
    NON_STREAM,
    TASKS,
    Rules,
    Server,
    form,
    transcription_server,
    wav,
)
from voicechat.server.rest.uploads import DiskLimits

pytestmark = pytest.mark.real_time

DATA = {"easyllm_id": "default"}


@pytest.fixture
async def server(tasks_folder: Path) -> AsyncIterator[Server]:
    rules = Rules(max_synchronous_ms=10 * 3_600_000, disk=DiskLimits(file_bytes=4_000_000))
    async with transcription_server(tasks_folder, rules) as running:
        yield running


def silent_flac() -> bytes:
    """Two hours in some 70 kB: digital silence costs FLAC a few bytes a frame (RFC
    9639, constant subframes).
    """
    content = io.BytesIO()
    with av.open(content, "w", format="flac") as container:
        stream = container.add_stream(
            "flac", rate=8000, layout="mono", options={"frame_size": "65535"}
        )
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000 * 60), "<i2"), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        for minute in range(120):
            frame.pts = minute * 8000 * 60
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return content.getvalue()


def boastful_wav() -> bytes:
    """A header that says three days, of which there is a second."""
    return wav(1.0).replace(struct.pack("<I", 16_000), struct.pack("<I", 0xFFFF_FF00))


def many_channels() -> bytes:
    content = bytearray(wav(1.0))
    content[22:24] = struct.pack("<H", 0xFFFF)
    return bytes(content)


def playlist_in_a_container() -> bytes:
    return b"RIFF" + b"#EXTM3U\n#EXTINF:1\nfile:///etc/passwd\n" * 50


BOMBS: list[tuple[Callable[[], bytes], tuple[int, ...]]] = [
    (silent_flac, (413,)),
    (many_channels, (413, 415)),
    (playlist_in_a_container, (415,)),
]


@pytest.mark.parametrize(("bomb", "statuses"), BOMBS)
async def test_a_container_that_bursts_is_refused(
    server: Server, bomb: Callable[[], bytes], statuses: tuple[int, ...]
) -> None:
    content = bomb()
    assert len(content) < 400_000
    status, answer = await server.ask("POST", NON_STREAM, data=form(data=DATA, audio_file=content))
    assert status in statuses, answer
    assert answer["status"] // 100 == status
    assert server.on_disk() == []
    _, made = await server.ask("POST", TASKS, data=form(data=DATA, audio_file=content))
    done = await server.finished(made["taskId"])
    assert done["status"] == "failed"
    assert done["errorMsg"].startswith(str(answer["status"]))


async def test_a_length_that_is_only_said_costs_nothing(server: Server) -> None:
    """A stream that was recorded while it was written has such a header: what is there
    is recognised.
    """
    status, answer = await server.ask(
        "POST", NON_STREAM, data=form(data=DATA, audio_file=boastful_wav())
    )
    assert status in (200, 413)
    assert status == 413 or answer["audio_duration"] == 1.0
    assert server.on_disk() == []


async def test_a_compressed_body_is_counted_as_it_bursts(server: Server) -> None:
    content = gzip.compress(wav(1.0) + bytes(100_000_000))
    assert len(content) < 200_000
    headers = {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip"}
    status, answer = await server.ask(
        "POST", NON_STREAM + "?easyllm_id=default", data=content, headers=headers
    )
    assert (status, answer["status"]) == (413, 41301)
    assert server.on_disk() == []


@pytest.mark.parametrize(
    "content",
    [gzip.compress(wav()), b"PK\x03\x04" + bytes(100), b"<html>"],
    ids=["gzip", "zip", "page"],
)
async def test_an_archive_is_no_recording(server: Server, content: bytes) -> None:
    for path in (TASKS, NON_STREAM):
        status, answer = await server.ask("POST", path, data=form(data=DATA, audio_file=content))
        assert (status, answer["status"]) == (415, 41501)
    assert server.on_disk() == []
