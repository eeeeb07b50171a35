from pathlib import Path

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from multidict import CIMultiDictProxy
from yarl import URL

from voicechat.server.app import build_app
from voicechat.server.pages import MAX_FILE_BYTES, Pages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("SECRET")
    folder = tmp_path / "demo"
    (folder / "parts").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>demo</title>")
    (folder / "parts" / "audio.js").write_text("export {}")
    (folder / ".hidden").write_text("SECRET")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "large.bin").write_bytes(bytes(MAX_FILE_BYTES + 1))
    return folder


async def get(pages: Pages, path: str, **headers: str) -> tuple[int, str, CIMultiDictProxy[str]]:
    async with (
        TestServer(build_app(pages.routes()), host="127.0.0.1") as server,
        ClientSession() as session,
        session.get(
            URL(f"http://127.0.0.1:{server.port}{path}", encoded=True), headers=headers
        ) as response,
    ):
        return response.status, await response.text(), response.headers


@pytest.mark.real_time
async def test_files_are_served_with_their_types_and_a_strict_policy(folder: Path) -> None:
    pages = Pages(folder)
    assert pages
    for path, content_type in (
        ("/", "text/html"),
        ("/index.html", "text/html"),
        ("/parts/audio.js", "text/javascript"),
    ):
        status, _, headers = await get(pages, path)
        assert status == 200
        assert headers["Content-Type"] == f"{content_type}; charset=utf-8"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.real_time
@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/parts/../../secret.txt", "//etc/passwd",
        "/parts/%2e%2e/%2e%2e/secret.txt", "/link.txt", "/.hidden", "/large.bin", "/parts", "/parts/", "/index.html%00",
    ],
)  # fmt: skip
async def test_nothing_else_can_be_had(folder: Path, path: str) -> None:
    status, body, _ = await get(Pages(folder), path)
    assert status in (400, 404)
    assert "SECRET" not in body


@pytest.mark.real_time
async def test_an_unchanged_file_is_not_sent_again(folder: Path) -> None:
    pages = Pages(folder)
    _, _, headers = await get(pages, "/")
    status, body, _ = await get(pages, "/", **{"If-None-Match": headers["ETag"]})
    assert (status, body) == (304, "")


def test_without_a_folder_there_are_no_pages() -> None:
    assert not Pages(None)
    assert Pages(None).routes() == []
