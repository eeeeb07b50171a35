import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.store.file_server import FileServer, serving
from voicechat.errors import ConfigError
from voicechat.store.model_archive import ArchiveError
from voicechat.store.model_catalogue import CatalogueModel, read_catalogue
from voicechat.store.model_download import DownloadLimits, OnProgress
from voicechat.store.models import ChecksumError, ModelFolder

pytestmark = pytest.mark.real_time

QUICK = DownloadLimits(pause_s=0.001, attempts=2)


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"published-name/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FileServer]:
    async with serving(FileServer(archive(tokens=b"first")), "tiny.tar.bz2") as served:
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return ModelFolder(tmp_path / "models")


def quiet(_name: str) -> OnProgress:
    return lambda have, total: None


def model(
    server: FileServer, sha256: str | None = None, also: list[str] | None = None
) -> CatalogueModel:
    digests = {} if sha256 is None else {"tiny.tar.bz2": sha256}
    return CatalogueModel(name="tiny", kind="vits", url=server.url, sha256=digests, also=also or [])


def names(folder: ModelFolder) -> list[str]:
    return sorted(
        str(path.relative_to(folder.folder)) for path in folder.folder.rglob("*") if path.is_file()
    )


async def test_a_model_comes_under_its_name_and_what_came_unchecked_is_noted(
    server: FileServer, folder: ModelFolder
) -> None:
    assert not folder.has_model("tiny")
    pulled = await folder.pull_model(model(server), quiet, QUICK)
    assert pulled.folder == folder.folder / "tiny"
    assert pulled.unchecked == (server.url,)
    assert folder.has_model("tiny")
    assert names(folder) == ["checksums.txt", "tiny/tokens"]
    digest = hashlib.sha256(server.content).hexdigest()
    assert (folder.folder / "checksums.txt").read_text() == f"{digest}  {server.url}\n"


async def test_what_was_noted_is_expected_the_next_time(
    server: FileServer, folder: ModelFolder
) -> None:
    await folder.pull_model(model(server), quiet, QUICK)
    again = await folder.pull_model(model(server), quiet, QUICK)
    assert again.unchecked == ()
    server.content = archive(tokens=b"second")
    with pytest.raises(
        ChecksumError,
        match=r"has changed since it was pulled first.*remove its line from .*checksums",
    ):
        await folder.pull_model(model(server), quiet, QUICK)
    assert (folder.folder / "tiny" / "tokens").read_bytes() == b"first"
    (folder.folder / "checksums.txt").unlink()
    await folder.pull_model(model(server), quiet, QUICK)
    assert (folder.folder / "tiny" / "tokens").read_bytes() == b"second"


async def test_a_checksum_of_the_catalogue_is_expected(
    server: FileServer, folder: ModelFolder
) -> None:
    with pytest.raises(ChecksumError, match="is not the file of the catalogue: its sha256 is"):
        await folder.pull_model(model(server, "0" * 64), quiet, QUICK)
    assert names(folder) == []
    right = hashlib.sha256(server.content).hexdigest()
    pulled = await folder.pull_model(model(server, right), quiet, QUICK)
    assert pulled.unchecked == ()
    assert not folder.has_model("other")


async def test_files_that_belong_to_it_come_besides(
    server: FileServer, folder: ModelFolder
) -> None:
    vocoder = server.url.replace("tiny.tar.bz2", "vocos.onnx")
    pulled = await folder.pull_model(model(server, also=[vocoder]), quiet, QUICK)
    assert pulled.unchecked == (server.url, vocoder)
    assert names(folder) == ["checksums.txt", "tiny/tokens", "tiny/vocos.onnx"]


async def test_a_damaged_archive_leaves_nothing_and_is_fetched_again(
    server: FileServer, folder: ModelFolder
) -> None:
    whole = server.content
    server.content = whole[: len(whole) // 2]
    with pytest.raises(ArchiveError):
        await folder.pull_model(model(server), quiet, QUICK)
    assert names(folder) == []
    server.content = whole
    await folder.pull_model(model(server), quiet, QUICK)
    assert folder.has_model("tiny")


async def test_an_archive_larger_than_the_bound_leaves_the_old_model(
    server: FileServer, folder: ModelFolder
) -> None:
    await folder.pull_model(model(server), quiet, QUICK)
    server.content = archive(tokens=bytes(5_000_000))
    (folder.folder / "checksums.txt").unlink()
    with pytest.raises(ArchiveError, match="unpacks to more than the bound"):
        await folder.pull_model(model(server), quiet, QUICK, max_unpacked_bytes=1_000_000)
    assert names(folder) == ["tiny/tokens"]
    assert (folder.folder / "tiny" / "tokens").read_bytes() == b"first"


def test_the_shipped_catalogue_can_be_read() -> None:
    models = read_catalogue()
    assert len(models) > 20
    for entry in models.values():
        assert entry.url.startswith("https://github.com/k2-fsa/sherpa-onnx/releases/download/")
        assert entry.url.endswith(f"/{entry.name}.tar.bz2")


GOOD = '[[model]]\nname = "a"\nkind = "vits"\nurl = "https://example.org/a.tar.bz2"\n'


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("x = ", "not valid TOML"),
        (GOOD.replace('"a"', '"../a"'), "model.0.name: letters, digits"),
        (GOOD.replace("https://example.org/", "file:///"), "model.0.url: an http or https address"),
        (GOOD.replace(".tar.bz2", ".zip"), "model.0.url: an archive: .tar.bz2"),
        (
            GOOD + 'sha256 = {"a.tar.bz2" = "1234"}',
            "model.0.sha256: a.tar.bz2: 64 small hexadecimal digits",
        ),
        (GOOD + "colour = 1", "model.0.colour: Extra inputs"),
        (GOOD + GOOD, "a name occurs twice"),
    ],
)
def test_a_wrong_catalogue_is_explained(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "models.toml").write_text(content)
    with pytest.raises(ConfigError, match=complaint):
        read_catalogue(tmp_path / "models.toml")
    with pytest.raises(ConfigError, match="No such file"):
        read_catalogue(tmp_path / "none.toml")
