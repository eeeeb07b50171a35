"""The models of this machine: pulled into a folder of the data directory,
atomically.
"""

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from voicechat.errors import VoiceChatError
from voicechat.store.model_archive import MAX_UNPACKED_BYTES, ArchiveError, unpack
from voicechat.store.model_catalogue import CatalogueModel, file_name
from voicechat.store.model_download import DownloadLimits, OnProgress, PartialDownload, download

_PULLING = ".pulling"
_NOTED = "checksums.txt"
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


class ChecksumError(VoiceChatError):
    """A file does not have the expected checksum. The message is one line for a
    person.
    """


@dataclass(frozen=True, slots=True)
class Pulled:
    """The result of a pull."""

    folder: Path
    unchecked: tuple[str, ...]
    """URLs of files without a known checksum; the checksums found have been
    recorded.
    """


class ModelFolder:
    """The folder of the models: ``NAME/`` for each, and ``checksums.txt`` with the
    checksums recorded on the first pull.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has_model(self, name: str) -> bool:
        """Return whether the model exists."""
        return (self.folder / name).is_dir()

    async def pull_model(
        self,
        model: CatalogueModel,
        on_progress: Callable[[str], OnProgress],
        limits: DownloadLimits | None = None,
        max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
    ) -> Pulled:
        """Download the model, replacing an existing one.

        ``on_progress`` is called with each file's name and returns its progress
        callback. Raises `DownloadError`, `ChecksumError`, `ArchiveError` and `OSError`;
        whatever happens, the model is complete or as it was before. Cancelling keeps
        what was downloaded for the next call.
        """
        pulling = self.folder / _PULLING
        pulling.mkdir(parents=True, exist_ok=True)
        digests: dict[str, str] = {}
        for url in model.urls:
            part = PartialDownload(pulling / file_name(url))
            await download(url, part, limits or DownloadLimits(), on_progress(file_name(url)))
            digests[url] = _digest(part.path)
            self._check(model, url, digests[url], part)
        self._put_in_place(model, pulling, max_unpacked_bytes)
        unchecked = tuple(
            url for url in model.urls if model.digest(url) is None and url not in self._noted()
        )
        self._note({url: digests[url] for url in unchecked})
        for url in model.urls:
            PartialDownload(pulling / file_name(url)).discard_file()
        return Pulled(self.folder / model.name, unchecked)

    def _check(self, model: CatalogueModel, url: str, digest: str, part: PartialDownload) -> None:
        known, noted = model.digest(url), self._noted().get(url)
        expected = known or noted
        if expected is None or expected == digest:
            return
        part.discard_file()
        if known:
            raise ChecksumError(
                f"{url} is not the file of the catalogue: its sha256 is {digest}, expected is "
                f"{known}"
            )
        raise ChecksumError(
            f"{url} has changed since it was pulled first: its sha256 is {digest}, noted is "
            f"{noted}; if that is meant, remove its line from {self.folder / _NOTED}"
        )

    def _put_in_place(self, model: CatalogueModel, pulling: Path, max_unpacked_bytes: int) -> None:
        unpacked = pulling / f".{model.name}.unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        try:
            content = unpack(pulling / file_name(model.url), unpacked, max_unpacked_bytes)
            for url in model.also:
                shutil.copyfile(pulling / file_name(url), content / file_name(url))
            old = pulling / f".{model.name}.old"
            shutil.rmtree(old, ignore_errors=True)
            if self.has_model(model.name):
                (self.folder / model.name).rename(old)
            content.rename(self.folder / model.name)
            shutil.rmtree(old, ignore_errors=True)
        except ArchiveError:
            PartialDownload(
                pulling / file_name(model.url)
            ).discard_file()  # the next download may not be damaged
            raise
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)

    def _noted(self) -> dict[str, str]:
        try:
            lines = (self.folder / _NOTED).read_text("utf-8").splitlines()
        except FileNotFoundError:
            return {}
        found = filter(None, map(_LINE.fullmatch, lines))
        return {line[2]: line[1] for line in found}

    def _note(self, digests: dict[str, str]) -> None:
        with (self.folder / _NOTED).open("a", encoding="utf-8") as file:
            file.writelines(f"{digest}  {url}\n" for url, digest in digests.items())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
