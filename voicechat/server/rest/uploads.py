"""Recordings on disk: received in pieces, counted against limits on the way, and
removed unless they are kept.
"""

import asyncio
import errno
import hashlib
import logging
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import ParamSpec, TypeVar

from voicechat.audio.signatures import SIGNATURE_BYTES, is_refused
from voicechat.errors import AtCapacityError, RemoteProtocolError, Status
from voicechat.runtime.wall_clock import unix_s
from voicechat.store.quotas import QuotaExceededError

WRITE_BYTES = 512 * 1024
"""Bytes per write. Each write hops to a thread: at 64 KiB the hops cost more than the
disk.
"""
FORM_BYTES = 1024 * 1024
"""Room for a form's other fields."""
DISK_RETRY_S = 3600
"""Seconds that a client is asked to wait for disk space: recordings are removed when
they expire.
"""
WRITE_RETRY_S = 60
"""Seconds that a client is asked to wait after any other disk error."""
ABANDONED_S = 7200.0
"""A file that belongs to no task and is older than 2 hours was left by a dead process,
because an upload may take 1 hour.
"""
UNFINISHED = ".part"
"""Ends the name of a file while it is being received."""
_OWNER_DIGITS = 16

P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLimits:
    """Limits of disk usage."""

    file_bytes: int = 1024**3
    owner_bytes: int = 20 * 1024**3
    total_bytes: int = 100 * 1024**3


class Upload:
    """One recording on its way to disk. The server chooses its name: client input never
    becomes part of a path.
    """

    def __init__(self, folder: "RecordingFolder", name: str) -> None:
        self.name = name
        self.path = folder.path(name)
        self.size_bytes = 0
        self.most_bytes = folder.limits.file_bytes
        """Its largest size: less for a compressed body."""
        self.field_name = folder.field_name
        """The parameter that errors name."""
        self.kept = False
        self._folder = folder
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._file: FileIO | None = None

    @property
    def sha256(self) -> str:
        """Digest of the content, once it is finished."""
        return self._digest.hexdigest()

    def reserve_bytes(self, body_bytes: int) -> None:
        """Refuse a body of that size before it is read. Raises
        ``RemoteProtocolError(TOO_LARGE)``.
        """
        if body_bytes > self._folder.limits.file_bytes + FORM_BYTES:
            raise self._too_large()

    def _too_large(self) -> RemoteProtocolError:
        most = min(self.most_bytes, self._folder.limits.file_bytes)
        return RemoteProtocolError(
            Status.TOO_LARGE, f"{self.field_name}: the file may have {most} bytes here"
        )

    async def write_piece(self, piece: bytes) -> None:
        """Append a piece.

        Raises ``RemoteProtocolError``: ``TOO_LARGE``, or ``UNSUPPORTED_FORMAT`` for a
        file that does not begin like a recording; ``QuotaExceededError``: the disk
        quota is used up; ``AtCapacityError``: the disk is full or broken.
        """
        self.size_bytes += len(piece)
        if self.size_bytes > self.most_bytes:
            raise self._too_large()
        self._buffer += piece
        if len(self._buffer) >= WRITE_BYTES:
            await self._flush()

    async def finish_upload(self) -> None:
        """Make the recording durable: it survives the process and a power failure.
        Raises as ``write_piece``.
        """
        await self._flush()
        if self._file is None:
            raise RemoteProtocolError(Status.INVALID_PARAMETER, f"{self.field_name}: is empty")
        await _on_disk(_make_durable, self._file, self.path)
        self._file = None

    async def discard_upload(self) -> None:
        """Remove the recording."""
        if self._file is not None:
            with suppress(OSError):  # the file is removed below
                self._file.close()
            self._file = None
        await self._folder.remove(self.name)

    async def _flush(self) -> None:
        if not self._buffer:
            return
        self._folder.reserve(self.name, self.size_bytes)
        if self._file is None:
            if self._folder.only_recordings and is_refused(bytes(self._buffer[:SIGNATURE_BYTES])):
                raise RemoteProtocolError(
                    Status.UNSUPPORTED_FORMAT,
                    f"{self.field_name}: this is no known kind of recording, but a page, a "
                    "playlist, an archive, a picture or a program",
                )
            await _on_disk(self._open_file)
        assert self._file is not None
        # Waiting for the disk is also the backpressure on the client.
        await _on_disk(_append, self._file, self._digest, bytes(self._buffer))
        self._buffer.clear()

    def _open_file(self) -> None:
        self._file = _create(_unfinished(self.path))


class RecordingFolder:
    """The recordings of all owners in one folder, counted per owner and in total.

    The counts are in memory, and each update costs the same however many recordings
    there are. Every ``sweep`` corrects them, and includes other processes' files.
    """

    def __init__(
        self,
        folder: Path,
        limits: DiskLimits | None = None,
        *,
        field_name: str = "audio_file",
        only_recordings: bool = True,
    ) -> None:
        """``field_name``: the parameter that errors name. ``only_recordings``: refuse
        files that are recognisably something else.
        """
        self._folder = folder
        self.field_name = field_name
        self.only_recordings = only_recordings
        self.limits = limits or DiskLimits()
        self._sizes = _FolderSizes()
        self._receiving: set[Upload] = set()
        self._changed_bytes: dict[str, int] | None = None
        """During a sweep: sizes that have changed since it began, which it may have
        missed.
        """

    def path(self, name: str) -> Path:
        """Return the path of a recording. ``name`` must come from this class."""
        return self._folder / name

    @asynccontextmanager
    async def receiving(self, owner: str) -> AsyncIterator[Upload]:
        """Receive a recording, and remove it when the context ends unless ``kept`` is
        set.
        """
        upload = Upload(self, f"{_owner_digest(owner)}-{secrets.token_hex(16)}")
        self._receiving.add(upload)
        try:
            yield upload
        finally:
            self._receiving.discard(upload)
            if upload.kept:
                self._count(upload.name, upload.size_bytes)
            else:
                # Shielded: a disconnecting client cancels the handler, and the file
                # must be removed even then.
                await asyncio.shield(upload.discard_upload())

    def reserve(self, name: str, size_bytes: int) -> None:
        """Count a recording with a size that it is about to have. Raises as
        ``Upload.write_piece``.
        """
        limits, sizes = self.limits, self._sizes
        more_bytes = size_bytes - sizes.sizes_bytes.get(name, 0)
        if sizes.owner_bytes[name[:_OWNER_DIGITS]] + more_bytes > limits.owner_bytes:
            raise QuotaExceededError(
                f"the key may have {limits.owner_bytes} bytes of files here", DISK_RETRY_S
            )
        if sizes.total_bytes + more_bytes > limits.total_bytes:
            raise QuotaExceededError("there is no room for more files", DISK_RETRY_S)
        self._count(name, size_bytes)

    async def remove(self, name: str) -> None:
        """Remove a recording if it exists, also one that is being received."""
        await asyncio.to_thread(_unlink, self.path(name))
        self._count(name, 0)

    async def sweep(self, needed: Collection[str], abandoned_s: float | None = None) -> None:
        """Remove files that are not ``needed`` and were not written to for
        ``abandoned_s`` (None: ``ABANDONED_S``), and count the others. Files that are
        being received have ``ABANDONED_S``.
        """
        unused_s = ABANDONED_S if abandoned_s is None else abandoned_s
        changed = self._changed_bytes = {}
        try:
            now_s = unix_s()
            sizes = await asyncio.to_thread(
                _swept, self._folder, needed, now_s - unused_s, now_s - ABANDONED_S
            )
        finally:
            self._changed_bytes = None
        for upload in self._receiving:
            changed[upload.name] = upload.size_bytes
        for name, size_bytes in changed.items():
            sizes.set_size(name, size_bytes)
        self._sizes = sizes

    def _count(self, name: str, size_bytes: int) -> None:
        self._sizes.set_size(name, size_bytes)
        if self._changed_bytes is not None:
            self._changed_bytes[name] = size_bytes


class _FolderSizes:
    """The sizes of the recordings in a folder, and their sums."""

    def __init__(self) -> None:
        self.sizes_bytes: dict[str, int] = {}
        self.owner_bytes: Counter[str] = Counter()
        self.total_bytes = 0

    def set_size(self, name: str, size_bytes: int) -> None:
        """Set the size of a recording; 0 removes it."""
        more_bytes = size_bytes - self.sizes_bytes.pop(name, 0)
        if size_bytes:
            self.sizes_bytes[name] = size_bytes
        owner = name[:_OWNER_DIGITS]
        self.owner_bytes[owner] += more_bytes
        if not self.owner_bytes[owner]:
            del self.owner_bytes[owner]
        self.total_bytes += more_bytes


def _owner_digest(owner: str) -> str:
    return hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:_OWNER_DIGITS]


def _create(path: Path) -> FileIO:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return open(path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600))


def _append(file: FileIO, digest: "hashlib._Hash", content: bytes) -> None:
    view = memoryview(content)
    while view:  # an unbuffered write may write less than it is given
        view = view[file.write(view) :]
    digest.update(content)


def _make_durable(file: FileIO, path: Path) -> None:
    """Sync content and name to the disk (POSIX: the name is in the folder, which needs
    its own sync), and give the file its final name and the time of now, from which the
    sweep counts: the sync may have taken long.
    """
    os.fsync(file.fileno())
    file.close()
    os.utime(_unfinished(path))
    os.replace(_unfinished(path), path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + UNFINISHED)


def _unlink(path: Path) -> None:
    for each in (path, _unfinished(path)):
        with suppress(FileNotFoundError):
            each.unlink()


def _swept(
    folder: Path, needed: Collection[str], oldest_s: float, oldest_unfinished_s: float
) -> _FolderSizes:
    """Remove older recordings that are not ``needed``; count the others."""
    sizes = _FolderSizes()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # it has just been removed
                    if not entry.is_file(follow_symlinks=False):
                        continue
                    stat = entry.stat(follow_symlinks=False)
                    name = entry.name.removesuffix(UNFINISHED)
                    oldest = oldest_s if name == entry.name else oldest_unfinished_s
                    if name not in needed and stat.st_mtime < oldest:
                        _unlink(Path(entry.path).with_name(name))
                    else:
                        sizes.set_size(name, stat.st_size)
    except FileNotFoundError:
        return sizes
    return sizes


async def _on_disk(work: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
    """Run disk I/O in a thread. Raises ``AtCapacityError`` when the disk is full or
    broken. Cancelling waits until the thread has ended, so that no file is removed
    before the thread creates it.
    """
    working = asyncio.get_running_loop().run_in_executor(None, partial(work, *arguments, **more))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _log.error("a recording cannot be written: %s", error.strerror)
        reason = "the disk is full" if full else "recordings cannot be written now"
        raise AtCapacityError(reason, DISK_RETRY_S if full else WRITE_RETRY_S) from error
