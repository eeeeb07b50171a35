"""Recordings on disk: received in pieces, counted against limits while they come, and gone unless they are kept."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from voicechat.audio.signatures import SIGNATURE_BYTES, is_refused
from voicechat.errors import RemoteProtocolError, Status
from voicechat.runtime.wall_clock import unix_s
from voicechat.store.quotas import QuotaExceededError

WRITE_BYTES = 512 * 1024
"""Written at once. Half a million bytes a hop to a thread: at 64 KiB the hops cost more than the disk."""
FORM_BYTES = 1024 * 1024
"""What a form may have around its file."""
DISK_RETRY_S = 3600
"""What a client is told to wait for room: recordings go when they have been kept long enough."""
ABANDONED_S = 7200.0
"""After this a file that belongs to no task was left by a process that died; an upload may take half of it."""
_OWNER_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLimits:
    """How much may lie on disk."""

    file_bytes: int = 1024**3
    owner_bytes: int = 20 * 1024**3
    total_bytes: int = 100 * 1024**3


class Upload:
    """One recording on its way to disk. Its name is ours: nothing that a client wrote becomes part of a path."""

    def __init__(self, folder: "RecordingFolder", name: str) -> None:
        self.name = name
        self.path = folder.path(name)
        self.size_bytes = 0
        self.kept = False
        self._folder = folder
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._file: FileIO | None = None

    @property
    def sha256(self) -> str:
        """Of the content, once it is finished."""
        return self._digest.hexdigest()

    def expect(self, body_bytes: int) -> None:
        """Refuse a body of that size before it is read. Raises ``RemoteProtocolError(TOO_LARGE)``."""
        if body_bytes > self._folder.limits.file_bytes + FORM_BYTES:
            raise self._folder.too_large()

    async def write(self, piece: bytes) -> None:
        """Append a piece.

        Raises ``RemoteProtocolError``: ``TOO_LARGE``, or ``UNSUPPORTED_FORMAT`` for what begins as no recording does;
        ``QuotaExceededError``: the disk's share is used up.
        """
        self.size_bytes += len(piece)
        self._buffer += piece
        if len(self._buffer) >= WRITE_BYTES:
            await self._flush()

    async def finish(self) -> None:
        """Make the recording durable: it will outlive the process and the machine's power. Raises as ``write``."""
        await self._flush()
        if self._file is None:
            raise RemoteProtocolError(Status.INVALID_PARAMETER, "audio_file: is empty")
        await asyncio.to_thread(_make_durable, self._file)
        self._file = None

    async def discard(self) -> None:
        """Remove the recording."""
        if self._file is not None:
            self._file.close()
            self._file = None
        await self._folder.remove(self.name)

    async def _flush(self) -> None:
        if not self._buffer:
            return
        self._folder.reserve(self.name, self.size_bytes)
        if self._file is None:
            if is_refused(bytes(self._buffer[:SIGNATURE_BYTES])):
                raise RemoteProtocolError(
                    Status.UNSUPPORTED_FORMAT,
                    "audio_file: this is no known kind of recording, but a page, a playlist, an archive, "
                    "a picture or a program",
                )
            self._file = await asyncio.to_thread(_create, self.path)
        # To wait for the disk is also the back-pressure on the client.
        await asyncio.to_thread(_append, self._file, self._digest, bytes(self._buffer))
        self._buffer.clear()


class RecordingFolder:
    """The recordings of all owners in one folder, counted per owner and in all.

    The counts are kept in memory and set right by every ``sweep``; other processes that share the folder are seen then.
    """

    def __init__(self, folder: Path, limits: DiskLimits | None = None) -> None:
        self._folder = folder
        self.limits = limits or DiskLimits()
        self._sizes_bytes: dict[str, int] = {}

    def path(self, name: str) -> Path:
        """Where a recording lies. ``name`` is one that this class gave."""
        return self._folder / name

    @asynccontextmanager
    async def receiving(self, owner: str) -> AsyncIterator[Upload]:
        """Receive a recording: it is removed at the end of the context, however that comes, unless ``kept`` is set."""
        upload = Upload(self, f"{_owner_digest(owner)}-{secrets.token_hex(16)}")
        try:
            yield upload
        finally:
            if not upload.kept:
                # Shielded: a client that goes cancels the handler, and the file must go all the same.
                await asyncio.shield(upload.discard())

    def reserve(self, name: str, size_bytes: int) -> None:
        """Count a recording as having that size, before it has. Raises as ``Upload.write``."""
        limits = self.limits
        if size_bytes > limits.file_bytes:
            raise self.too_large()
        sizes_bytes = self._sizes_bytes | {name: size_bytes}
        owner = name[:_OWNER_DIGITS]
        if sum(size for other, size in sizes_bytes.items() if other.startswith(owner)) > limits.owner_bytes:
            raise QuotaExceededError(f"the key may have {limits.owner_bytes} bytes of recordings here", DISK_RETRY_S)
        if sum(sizes_bytes.values()) > limits.total_bytes:
            raise QuotaExceededError("there is no room for more recordings", DISK_RETRY_S)
        self._sizes_bytes = sizes_bytes

    def too_large(self) -> RemoteProtocolError:
        """Make the error for a recording over the limit."""
        return RemoteProtocolError(Status.TOO_LARGE, f"audio_file: recordings may have {self.limits.file_bytes} bytes")

    async def remove(self, name: str) -> None:
        """Remove a recording, if it is there."""
        await asyncio.to_thread(_unlink, self.path(name))
        self._sizes_bytes.pop(name, None)

    async def sweep(self, needed: Collection[str]) -> None:
        """Remove what is not ``needed`` and has not been written to for ``ABANDONED_S``; count what is there."""
        found = await asyncio.to_thread(_scan, self._folder)
        oldest_s = unix_s() - ABANDONED_S
        gone = {name for name, (_, modified_s) in found.items() if name not in needed and modified_s < oldest_s}
        for name in gone:
            await self.remove(name)
        self._sizes_bytes = {name: size for name, (size, _) in found.items() if name not in gone}


def _owner_digest(owner: str) -> str:
    return hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:_OWNER_DIGITS]


def _create(path: Path) -> FileIO:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return open(path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600))


def _append(file: FileIO, digest: "hashlib._Hash", content: bytes) -> None:
    view = memoryview(content)
    while view:  # an unbuffered write may take less than it is given
        view = view[file.write(view) :]
    digest.update(content)


def _make_durable(file: FileIO) -> None:
    """Bring content and name to the disk itself (POSIX: the name is in the folder, which has a sync of its own)."""
    os.fsync(file.fileno())
    file.close()
    if os.name == "posix":
        folder = os.open(Path(str(file.name)).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _unlink(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()


def _scan(folder: Path) -> dict[str, tuple[int, float]]:
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return {}
    return {name: (stat.st_size, stat.st_mtime) for name, stat in found}
