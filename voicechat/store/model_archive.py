"""Unpacks an untrusted archive into a new folder: plain files and folders, within
limits.

Python's own extraction is not used, because its filters had vulnerabilities, and the
version of Python determines which ones are fixed. Here every member is checked and
written by this module, and links are never created on disk, so that no path can
traverse one.
"""

import bz2
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from voicechat.errors import VoiceChatError

MAX_MEMBERS = 50_000
MAX_UNPACKED_BYTES = 16 * 1024**3
SPARE_BYTES = 200 * 1024**2
"""How much of the disk must stay free."""
MAX_HEADER_BYTES = 1024**2
"""Largest header of one member. Long names and attributes are read into memory."""

_OPENERS: dict[str, Callable[[Path], io.BufferedIOBase]] = {
    ".tar.bz2": bz2.BZ2File,
    ".tar.gz": gzip.GzipFile,
    ".tar.xz": lzma.LZMAFile,
    ".tgz": gzip.GzipFile,
    ".tar": lambda path: path.open("rb"),
}
_ZIPPED = (".whl", ".zip")
ARCHIVE_SUFFIXES = (*_OPENERS, *_ZIPPED)

_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    EOFError, ValueError, NotImplementedError, RecursionError,
)  # fmt: skip

_Place = tuple[str, ...]
"""A path in the archive: its parts below the root, without ``.`` and ``..``."""


class ArchiveError(VoiceChatError):
    """An archive is damaged or has forbidden content. The message is one line for a
    person.
    """


class _RefusedError(Exception):
    """A member of the archive is forbidden; the message names it."""


class _TooLargeError(Exception):
    """The content is larger than the limit or the free disk space."""


def unpack(
    archive: Path, folder: Path, max_bytes: int = MAX_UNPACKED_BYTES, spare_bytes: int = SPARE_BYTES
) -> Path:
    """Unpack into ``folder``, which must not exist, at most ``max_bytes``.

    Returns the folder of the content: the only one in ``folder``, or ``folder`` itself.
    A link to a file of the archive becomes a copy of that file.

    Raises `ArchiveError`; the caller then removes the partial content. Absolute names,
    ``..``, characters that are special on some system, duplicate names, links to
    anything but a file of the archive, devices, pipes and sparse files are forbidden.
    """
    folder.mkdir(parents=True)
    room_bytes = min(max_bytes, shutil.disk_usage(folder).free - spare_bytes)
    unpacked = _UnpackedFiles(folder, room_bytes)
    try:
        if archive.name.endswith(_ZIPPED):
            with zipfile.ZipFile(archive) as zipped:
                _unpack_zip(zipped, unpacked)
        else:
            opener = next(
                opener for suffix, opener in _OPENERS.items() if archive.name.endswith(suffix)
            )
            with opener(archive) as stream:
                reader = _ArchiveReader(stream)
                with tarfile.open(fileobj=reader, mode="r:") as tar:
                    _TarUnpacking(tar, reader, unpacked).run()
    except _TooLargeError as error:
        raise ArchiveError(
            f"{archive.name} unpacks to more than the bound, or than the disk has room for"
        ) from error
    except _RefusedError as error:
        raise ArchiveError(f"{archive.name} holds what may not be unpacked: {error}") from error
    except _DAMAGED as error:
        raise ArchiveError(f"{archive.name} is damaged: {error}") from error
    except OSError as error:
        # bz2 and gzip report damage as OSError.
        raise ArchiveError(
            f"{archive.name} cannot be unpacked: {error.strerror or error}"
        ) from error
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


class _ArchiveReader(io.BufferedIOBase):
    """The decompressed bytes of the archive, forward only, at most
    ``allowed_bytes``.
    """

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self.allowed_bytes = MAX_HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes, fewer at the end. Raises `_RefusedError` above the
        limit.
        """
        self._spend(-1 if size is None else size)
        return self._stream.read(size)

    def tell(self) -> int:
        """Return the position in the decompressed bytes."""
        return self._stream.tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Skip bytes up to ``offset``, counted from the beginning."""
        self._spend(offset - self.tell())
        return self._stream.seek(offset)

    def _spend(self, size_bytes: int) -> None:
        if not 0 <= size_bytes <= self.allowed_bytes:
            raise _RefusedError("a header that is too large, or leads backwards")
        self.allowed_bytes -= size_bytes


class _UnpackedFiles:
    """The files written to the folder, within the size limit."""

    def __init__(self, folder: Path, room_bytes: int) -> None:
        self._folder = folder
        self._room_bytes = room_bytes
        self.sizes: dict[_Place, int] = {}
        """The written files and their sizes in bytes."""

    def add_folder(self, place: _Place) -> None:
        self._folder.joinpath(*place).mkdir(parents=True, exist_ok=True)

    def add_file(self, place: _Place, content: IO[bytes], size_bytes: int) -> None:
        self._room_bytes -= size_bytes
        if self._room_bytes < 0 or size_bytes < 0:
            raise _TooLargeError
        target = self._folder.joinpath(*place)
        target.parent.mkdir(parents=True, exist_ok=True)
        # "x": the target must not exist, not even as a link.
        with target.open("xb") as file:
            shutil.copyfileobj(content, file)
        self.sizes[place] = size_bytes

    def add_copy(self, place: _Place, source: _Place) -> None:
        with self._folder.joinpath(*source).open("rb") as content:
            self.add_file(place, content, self.sizes[source])


class _TarUnpacking:
    """The unpacking of one tar archive."""

    def __init__(
        self, tar: tarfile.TarFile, reader: _ArchiveReader, unpacked: _UnpackedFiles
    ) -> None:
        self._tar = tar
        self._reader = reader
        self._unpacked = unpacked
        self._links: dict[_Place, _Place] = {}

    def run(self) -> None:
        for count, member in enumerate(self._tar):
            if count >= MAX_MEMBERS:
                raise _TooLargeError  # a bomb of many empty files
            self._take(member, _place(member.name))
            self._reader.allowed_bytes = MAX_HEADER_BYTES
        self._copy_links()

    def _take(self, member: tarfile.TarInfo, place: _Place) -> None:
        if member.isdir():
            self._unpacked.add_folder(place)
        elif not place or place in self._unpacked.sizes or place in self._links:
            raise _RefusedError(f"{member.name!r} twice")
        elif member.issym():
            self._links[place] = _place(member.linkname, place[:-1])
        elif member.islnk():
            self._links[place] = _place(member.linkname)
        elif member.isreg() and not member.issparse():
            self._reader.allowed_bytes = member.size + tarfile.BLOCKSIZE
            content = self._tar.extractfile(member)
            assert content is not None
            self._unpacked.add_file(place, content, member.size)
        else:
            raise _RefusedError(f"{member.name!r}, which is no plain file, folder or link")

    def _copy_links(self) -> None:
        """Copy the target of each link to its place. A link may point to another
        link.
        """
        while self._links:
            ready = {
                place: source
                for place, source in self._links.items()
                if source in self._unpacked.sizes
            }
            if not ready:
                raise _RefusedError(
                    f"the link {'/'.join(next(iter(self._links)))!r} to no file of the archive"
                )
            for place, source in ready.items():
                self._unpacked.add_copy(place, source)
                del self._links[place]


def _unpack_zip(zipped: zipfile.ZipFile, unpacked: _UnpackedFiles) -> None:
    """Unpack a zip archive. Python reads at most the size given in a member's entry,
    and compares the checksum.
    """
    members = zipped.infolist()
    if len(members) > MAX_MEMBERS:
        raise _TooLargeError
    for member in members:
        place = _place(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.is_dir():
            unpacked.add_folder(place)
        elif not place or place in unpacked.sizes:
            raise _RefusedError(f"{member.filename!r} twice")
        elif kind not in (0, stat.S_IFREG) or member.flag_bits & 1:
            raise _RefusedError(f"{member.filename!r}, which is no plain file or folder")
        else:
            with zipped.open(member) as content:
                unpacked.add_file(place, content, member.file_size)


def _place(name: str, folder: _Place = ()) -> _Place:
    """Resolve ``name`` relative to a folder of the archive.

    Raises `_RefusedError` if it leads outside. Only the target of a link is relative to
    a folder, and may contain ``..``.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or any(character in '\\:"*?<>|' or character < " " for character in name):
        raise _RefusedError(f"the name {name!r}")
    parts = list(folder)
    for part in path.parts:
        if part != "..":
            parts.append(part)
        elif folder and parts:
            parts.pop()
        else:
            raise _RefusedError(f"the name {name!r}, which leads out of its folder")
    return tuple(parts)
