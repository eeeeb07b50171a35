"""Uploads a recording to a server in a child process, and measures how much memory that
takes.

    python -m tools.big_upload --bytes 1000000000

The server's resident memory is read from /proc before the upload and as often as
possible while it lasts. With more bytes than allowed the answer must be 413, and with
either nothing may stay on disk that has no task.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.tasks.transcription_server import TASKS, Rules, transcription_server, wav

LIMIT_GROWTH_BYTES = 100_000_000
_PIECE = bytes(256 * 1024)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one upload."""

    status: int
    grown_bytes: int
    left_bytes: int
    """On disk, after the answer."""

    def line(self) -> str:
        return (
            f"HTTP {self.status}, grown by {self.grown_bytes / 1e6:.1f} MB, {self.left_bytes} "
            "bytes on disk"
        )


async def serve(folder: Path) -> None:
    """The child: a server until its input ends."""
    async with transcription_server(folder, Rules()) as server:
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


def resident_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc has no {field}")


def begin_peak_anew(pid: int) -> None:
    """Forget the highest resident memory so far: proc(5), clear_refs."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def upload(size_bytes: int) -> Outcome:
    """Start a server, give it a form with so many bytes of recording, and measure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tools.big_upload", "--serve", name,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdin is not None
        try:
            url = (await child.stdout.readline()).decode().strip()
            async with aiohttp.ClientSession() as session:
                await _submit(session, url, 100_000)  # what is loaded once is no growth
                before = resident_bytes(child.pid, "VmRSS")
                begin_peak_anew(child.pid)
                kept_bytes = _size(folder)
                status = await _submit(session, url, size_bytes)
                grown_bytes = resident_bytes(child.pid, "VmHWM") - before
            return Outcome(status, grown_bytes, _size(folder) - kept_bytes)
        finally:
            child.stdin.close()
            await child.wait()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "recordings").iterdir())


async def _submit(session: aiohttp.ClientSession, url: str, size_bytes: int) -> int:
    async def content() -> AsyncIterator[bytes]:
        start = wav()[:44]
        yield start
        left_bytes = size_bytes - len(start)
        while left_bytes > 0:
            yield _PIECE[:left_bytes]
            left_bytes -= len(_PIECE)

    form = aiohttp.FormData()
    form.add_field("data", '{"easyllm_id":"default"}')
    form.add_field("audio_file", content(), filename="a.wav")
    try:
        async with session.post(
            url + TASKS, data=form, headers={"Authorization": "Bearer alice"}
        ) as response:
            return response.status
    except aiohttp.ClientConnectionError:
        return 0  # the refusal was lost, because the server had closed while this side still sent


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
        return 0
    outcome = asyncio.run(upload(arguments.bytes))
    print(outcome.line())
    if arguments.bytes > 1024**3:
        return 0 if outcome.status == 413 and not outcome.left_bytes else 1
    return 0 if outcome.status == 200 and outcome.grown_bytes < LIMIT_GROWTH_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
