"""The models of this machine, pulled atomically into a folder of the data directory."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from voicechat.errors import VoiceChatError
from voicechat.store.model_archive import MAX_UNPACKED_BYTES, ArchiveError, unpack
from voicechat.store.model_catalogue import CatalogueFile, CatalogueModel, file_name
from voicechat.store.model_download import DownloadLimits, OnProgress, PartialDownload, download
from voicechat.store.model_files import ChecksumError, ModelFileSources, digest_of

LOCK_WAIT_S = 6 * 3600.0
"""How long a pull waits for another pull into the same folder."""
_PULLING = ".pulling"
_LOCK = ".pulling.lock"
_NOTED = "checksums.txt"
_SUMS = "SHA256SUMS"
"""A file in the folder of a model from an archive. It contains the digests of the
model's files, in the form of ``sha256sum``.
"""
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


class NoRoomError(VoiceChatError):
    """The disk has no room for a model. The message is one line for a person."""


class FolderBusyError(VoiceChatError):
    """Another process changes the folder. The message is one line for a person."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """The result of a pull."""

    folder: Path
    unchecked: tuple[str, ...]
    """URLs of files without a known checksum. Their checksums have been recorded."""


class ModelFolder:
    """The folder of the models: ``NAME/`` for each, and ``checksums.txt`` with the
    checksums recorded on the first pull.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has_model(self, name: str) -> bool:
        """Return whether the model exists."""
        return (self.folder / name).is_dir()

    def is_complete(self, model: CatalogueModel) -> bool:
        """Return whether the model exists and its files have the sizes given in the
        catalogue.
        """
        return self.has_model(model.name) and not any(self._wrong_sizes(model))

    def wrong_files(self, model: CatalogueModel) -> list[str]:
        """Read the whole model and return a line for each file that is missing or
        differs from the published one. The list is empty for an intact model.

        The files of an archive are compared with the digests recorded when it was
        unpacked. Raises `ChecksumError` if none were recorded.
        """
        if not self.has_model(model.name):
            return ["not here"]
        folder = self.folder / model.name
        expected = {file.path: file.sha256 for file in model.files} or self._sums(model.name)
        if not expected:
            raise ChecksumError(
                f"{model.name}: no checksums of its files are known; pull it with --again"
            )
        wrong = list(self._wrong_sizes(model))
        named = {line.partition(":")[0] for line in wrong}
        for path, digest in expected.items():
            if path in named:
                continue
            if not (folder / path).is_file():
                wrong.append(f"{path}: missing")
            elif (found := digest_of(folder / path)) != digest:
                wrong.append(f"{path}: its sha256 is {found}, expected is {digest}")
        return wrong

    def missing_bytes(self, model: CatalogueModel) -> int:
        """Return how many bytes of the model must still be fetched; 0 for an archive,
        whose size is not known in advance.
        """
        staged = self.folder / _PULLING / model.name / "files"
        return sum(
            file.bytes
            for file in model.files
            if not _has_size(self.folder / model.name, file) and not _has_size(staged, file)
        )

    def remove(self, name: str) -> int:
        """Delete a model and the remains of an interrupted pull of it. Returns the
        number of bytes freed. Raises `OSError`.
        """
        freed = 0
        for folder in (self.folder / name, self.folder / _PULLING / name):
            if folder.is_dir():
                freed += _size_of(folder)
                shutil.rmtree(folder)
        return freed

    @contextmanager
    def locked(self, on_wait: Callable[[], None], wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
        """Keep other processes from changing the folder. The lock of a process that
        dies is released.

        ``on_wait`` is called if another process holds the lock. Raises
        `FolderBusyError` after ``wait_s`` seconds.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / _LOCK)
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait()
                lock.acquire(timeout=wait_s, poll_interval=0.2)
        except Timeout as error:
            raise FolderBusyError(
                f"another process pulls models into {self.folder}; try again when it has ended"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def check_room(self, models: list[CatalogueModel], limits: DownloadLimits) -> None:
        """Raises `NoRoomError` unless the disk has room for the missing files of the
        models, and for the parts from which the largest file may have to be joined.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(self.folder).free
        missing_bytes = sum(map(self.missing_bytes, models))
        largest_bytes = max(
            (file.bytes for model in models if self.missing_bytes(model) for file in model.files),
            default=0,
        )
        pulling = self.folder / _PULLING
        begun_bytes = sum(_size_of(pulling / model.name) for model in models)
        needed_bytes = missing_bytes + largest_bytes + limits.spare_bytes - begun_bytes
        if missing_bytes and needed_bytes > free_bytes:
            raise NoRoomError(
                f"{self.folder}: {free_bytes // 10**6} MB are free, and {needed_bytes // 10**6} MB "
                "are needed while models are pulled; make room, or set VOICECHAT_DATA_DIR to "
                "another disk"
            )

    async def pull_files(
        self,
        model: CatalogueModel,
        sources: ModelFileSources,
        on_file: Callable[[CatalogueFile, str], None],
    ) -> Path:
        """Fetch the missing and damaged files of a model that the catalogue lists file
        by file, and return its folder.

        ``on_file`` is called with each fetched file and its source. Raises
        `DownloadError` and `OSError`; an incomplete model does not appear in the
        folder. Downloaded files are kept for the next call, even after an error.
        """
        folder, work = self.folder / model.name, self.folder / _PULLING / model.name
        staged = work / "files"
        staged.mkdir(parents=True, exist_ok=True)
        for group in model.group:
            for file in group.files:
                if _is_right(folder, file) or _is_right(staged, file):
                    continue
                source = await sources.fetch(
                    file, group.sources_of(file), staged / file.path, work / "downloads"
                )
                on_file(file, source)
        if folder.is_dir():
            for file in model.files:
                if (staged / file.path).exists():
                    (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
                    (staged / file.path).replace(folder / file.path)
        else:
            staged.rename(folder)
        shutil.rmtree(work)
        return folder

    async def pull_model(
        self,
        model: CatalogueModel,
        on_progress: Callable[[str], OnProgress],
        limits: DownloadLimits | None = None,
        max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
    ) -> Pulled:
        """Download a model that is an archive, replacing an existing one.

        ``on_progress`` is called with each file's name and returns its progress
        callback. Raises `DownloadError`, `ChecksumError`, `ArchiveError` and `OSError`;
        after an error the model is either complete or unchanged. Cancelling keeps the
        downloaded bytes for the next call.
        """
        assert model.url is not None
        pulling = self.folder / _PULLING / model.name
        pulling.mkdir(parents=True, exist_ok=True)
        digests: dict[str, str] = {}
        for url in model.urls:
            part = PartialDownload(pulling / file_name(url))
            await download(url, part, limits or DownloadLimits(), on_progress(file_name(url)))
            digests[url] = digest_of(part.path)
            self._check(model, url, digests[url], part)
        self._put_in_place(model, model.url, pulling, max_unpacked_bytes)
        unchecked = tuple(
            url for url in model.urls if model.digest(url) is None and url not in self._noted()
        )
        self._note({url: digests[url] for url in unchecked})
        shutil.rmtree(pulling)
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

    def _put_in_place(
        self, model: CatalogueModel, archive: str, pulling: Path, max_unpacked_bytes: int
    ) -> None:
        unpacked = pulling / ".unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        try:
            content = unpack(pulling / file_name(archive), unpacked, max_unpacked_bytes)
            for url in model.also:
                shutil.copyfile(pulling / file_name(url), content / file_name(url))
            _write_sums(content)
            old = pulling / ".old"
            shutil.rmtree(old, ignore_errors=True)
            if self.has_model(model.name):
                (self.folder / model.name).rename(old)
            content.rename(self.folder / model.name)
        except ArchiveError:
            # The next download may not be damaged.
            PartialDownload(pulling / file_name(archive)).discard_file()
            raise
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)

    def _wrong_sizes(self, model: CatalogueModel) -> Iterator[str]:
        folder = self.folder / model.name
        for file in model.files:
            path = folder / file.path
            if not path.is_file():
                yield f"{file.path}: missing"
            elif path.stat().st_size != file.bytes:
                yield f"{file.path}: {path.stat().st_size} bytes, expected are {file.bytes}"

    def _sums(self, name: str) -> dict[str, str]:
        """Return the recorded digests of a model's files, by path."""
        return {path: digest for digest, path in _lines(self.folder / name / _SUMS)}

    def _noted(self) -> dict[str, str]:
        return {url: digest for digest, url in _lines(self.folder / _NOTED)}

    def _note(self, digests: dict[str, str]) -> None:
        with (self.folder / _NOTED).open("a", encoding="utf-8") as file:
            file.writelines(f"{digest}  {url}\n" for url, digest in digests.items())


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return
    for line in filter(None, map(_LINE.fullmatch, text.splitlines())):
        yield line[1], line[2]


def _write_sums(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SUMS)
    lines = [f"{digest_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / _SUMS).write_text("".join(lines), "utf-8")


def _has_size(folder: Path, file: CatalogueFile) -> bool:
    path = folder / file.path
    return path.is_file() and path.stat().st_size == file.bytes


def _is_right(folder: Path, file: CatalogueFile) -> bool:
    return _has_size(folder, file) and digest_of(folder / file.path) == file.sha256


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
