import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from yarl import URL

from tests.store.file_server import FileServer, serving
from voicechat.store.model_download import DownloadError, DownloadLimits, PartialDownload, download

pytestmark = pytest.mark.real_time

CONTENT = bytes(range(256)) * 4096  # a mebibyte
QUICK = DownloadLimits(pause_s=0.001, attempts=3)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FileServer]:
    async with serving(FileServer(CONTENT), "model.tar.bz2") as served:
        yield served


@pytest.fixture
def part(tmp_path: Path) -> PartialDownload:
    return PartialDownload(tmp_path / "model.tar.bz2")


async def fetch(
    server: FileServer, part: PartialDownload, limits: DownloadLimits = QUICK
) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    async with asyncio.timeout(120):
        await download(server.url, part, limits, lambda have, total: told.append((have, total)))
    return told


async def test_a_file_is_fetched_and_its_progress_told(
    server: FileServer, part: PartialDownload
) -> None:
    told = await fetch(server, part)
    assert part.path.read_bytes() == CONTENT
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)


async def test_what_is_whole_is_not_fetched_again(
    server: FileServer, part: PartialDownload
) -> None:
    await fetch(server, part)
    await fetch(server, part)
    assert len(server.asked) == 1
    part.discard_file()
    await fetch(server, part)
    assert len(server.asked) == 2


async def test_a_cut_connection_is_gone_on_with(server: FileServer, part: PartialDownload) -> None:
    server.cut_after = [300_000, 200_000]
    told = await fetch(server, part)
    assert part.path.read_bytes() == CONTENT
    first, *ranges = server.asked
    assert first is None
    begins = [int((asked or "").removeprefix("bytes=").removesuffix("-")) for asked in ranges]
    assert 0 < begins[0] <= 300_000
    assert begins[0] < begins[1] <= 500_000
    assert (begins[1], len(CONTENT)) in told


async def test_a_later_run_goes_on_where_the_first_gave_up(
    server: FileServer, part: PartialDownload
) -> None:
    server.cut_after = [300_000]
    with pytest.raises(
        DownloadError,
        match=r"cannot be fetched .*; what there is of it is kept, so pull again later",
    ):
        await fetch(server, part, DownloadLimits(attempts=1))
    have_bytes = part.path.stat().st_size
    assert have_bytes > 0
    await fetch(server, part)
    assert server.asked == [None, f"bytes={have_bytes}-"]
    assert part.path.read_bytes() == CONTENT


@pytest.mark.parametrize("knows_ranges", [True, False])
async def test_a_file_that_has_changed_is_fetched_from_its_beginning(
    server: FileServer, part: PartialDownload, knows_ranges: bool
) -> None:
    server.cut_after = [900_000]
    with pytest.raises(DownloadError):
        await fetch(server, part, DownloadLimits(attempts=1))
    server.content = CONTENT[::-1][:700_000]
    server.knows_ranges = knows_ranges
    told = await fetch(server, part)
    assert told[0] == (0, 700_000)
    assert part.path.read_bytes() == CONTENT[::-1][:700_000]


async def test_a_server_without_ranges_sends_all_again(
    server: FileServer, part: PartialDownload
) -> None:
    server.knows_ranges = False
    server.cut_after = [300_000]
    await fetch(server, part)
    assert len(server.asked) == 2
    assert part.path.read_bytes() == CONTENT


async def test_a_weak_etag_is_not_gone_on_with(server: FileServer, part: PartialDownload) -> None:
    server.etag = 'W/"weak"'
    server.cut_after = [300_000]
    await fetch(server, part)
    assert server.asked == [None, None]
    assert part.path.read_bytes() == CONTENT


async def test_what_is_of_another_address_is_not_gone_on_with(
    server: FileServer, part: PartialDownload
) -> None:
    server.cut_after = [300_000]
    with pytest.raises(DownloadError):
        await fetch(server, part, DownloadLimits(attempts=1))
    server.url += "?other"
    await fetch(server, part)
    assert server.asked == [None, None]


async def test_more_than_the_file_has_is_thrown_away(
    server: FileServer, part: PartialDownload
) -> None:
    server.cut_after = [900_000]
    server.etag = '"same"'
    with pytest.raises(DownloadError):
        await fetch(server, part, DownloadLimits(attempts=1))
    server.content = CONTENT[:1000]
    await fetch(server, part)
    assert part.path.read_bytes() == CONTENT[:1000]


async def test_a_busy_server_is_asked_again_and_a_refusal_is_final(
    server: FileServer, part: PartialDownload
) -> None:
    server.statuses = [503, 429]
    await fetch(server, part)
    assert part.path.read_bytes() == CONTENT
    part.discard_file()
    server.statuses = [404]
    server.asked.clear()
    with pytest.raises(DownloadError, match="HTTP status 404"):
        await fetch(server, part)
    assert len(server.asked) == 1


async def test_a_length_that_is_not_told_is_no_hindrance(
    server: FileServer, part: PartialDownload
) -> None:
    server.length_told = False
    told = await fetch(server, part)
    assert told[-1] == (len(CONTENT), 0)
    assert part.path.read_bytes() == CONTENT


@pytest.mark.parametrize("length_told", [True, False])
async def test_a_file_larger_than_the_bound_is_refused(
    server: FileServer, part: PartialDownload, length_told: bool
) -> None:
    server.length_told = length_told
    with pytest.raises(DownloadError, match=r"1048576 bytes; allowed|more than 1000000 bytes"):
        await fetch(server, part, DownloadLimits(max_bytes=1_000_000))
    assert not part.path.exists() or part.path.stat().st_size <= 1_000_000 + 256 * 1024


async def test_a_disk_without_room_is_named(server: FileServer, part: PartialDownload) -> None:
    free_bytes = shutil.disk_usage(part.path.parent).free
    with pytest.raises(DownloadError, match=r"MB are free.*set VOICECHAT_DATA_DIR to another disk"):
        await fetch(server, part, DownloadLimits(spare_bytes=free_bytes))
    assert not part.path.exists()


async def test_cancelling_keeps_what_has_come(server: FileServer, part: PartialDownload) -> None:
    server.hold_after = 400_000
    task = asyncio.get_running_loop().create_task(fetch(server, part))
    await server.held.wait()
    while not part.path.exists() or part.path.stat().st_size == 0:  # noqa: ASYNC110 - until the first piece is there
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    have_bytes = part.path.stat().st_size
    server.hold_after = None
    await fetch(server, part)
    assert server.asked[-1] == f"bytes={have_bytes}-"
    assert part.path.read_bytes() == CONTENT


async def test_nobody_there_is_told_in_a_line(part: PartialDownload) -> None:
    server = FileServer(CONTENT)
    async with serving(server, "model.tar.bz2"):
        pass
    with pytest.raises(DownloadError, match="cannot be fetched") as caught:
        await fetch(server, part)
    assert "\n" not in str(caught.value)


async def test_an_encrypted_address_may_not_lead_over_one_that_is_not(
    server: FileServer, part: PartialDownload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even on the way: who listens there chooses where it goes on."""

    @asynccontextmanager
    async def redirected(
        session: ClientSession, url: str, **options: object
    ) -> AsyncIterator[object]:
        ways = [
            SimpleNamespace(url=URL(way))
            for way in (url, "http://between.invalid/", "https://end.invalid/")
        ]
        yield SimpleNamespace(history=ways[:-1], url=ways[-1].url, status=200)

    monkeypatch.setattr(ClientSession, "get", redirected)
    server.url = "https://models.invalid/model.tar.bz2"
    with pytest.raises(DownloadError, match="leads to an address without encryption"):
        await fetch(server, part)


async def test_the_proxy_of_the_environment_is_used(
    server: FileServer, part: PartialDownload, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To a proxy the whole address is sent; this server answers any.
    monkeypatch.setenv("http_proxy", server.url.rpartition("/models")[0])
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.url = "http://models.invalid/model.tar.bz2"
    await fetch(server, part)
    assert part.path.read_bytes() == CONTENT
