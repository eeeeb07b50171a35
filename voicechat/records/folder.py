"""Where records are on disk: one folder for each, below one for each project.

Only the owner of the process can read them. The names of projects are replaced by
digests, so that they need not be valid names of folders.
"""

import hashlib
import os
import re
import secrets
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

EVENTS = "events.jsonl"
SOUND = "sound.raw"
"""The audio of a conversation that has not been finished: chunks in the order in which
they came.
"""
AUDIO = "audio.opus"
SUMMARY = "summary.json"
USER_RATE_HZ = 16_000
ID = re.compile(r"rec_[A-Za-z0-9_-]{22}")
_CHUNK = struct.Struct("<BIQI")
_USER, _REPLY = 0, 1
_MOST_CHUNK_BYTES = 64 * 1024 * 1024


def new_id() -> str:
    """Return the id of a new record, which cannot be guessed (128 random bits)."""
    return f"rec_{secrets.token_urlsafe(16)}"


def project_folder(root: Path, project: str) -> Path:
    """Return the folder of a project's records."""
    name = hashlib.sha256(project.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return root / name


def record_folder(root: Path, project: str, record_id: str) -> Path:
    """Return the folder of a record. Raises ``ValueError`` for an id that is none."""
    if ID.fullmatch(record_id) is None:
        raise ValueError(f"{record_id!r} is no id of a record")
    return project_folder(root, project) / record_id


def make_folder(path: Path) -> None:
    """Create a folder, and those above it, for the owner alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in (path, path.parent):
        each.chmod(0o700)


def remove_folder(path: Path) -> None:
    """Remove a folder with everything in it, and its project's if that is empty."""
    if path.exists():
        shutil.rmtree(path)
    try:
        path.parent.rmdir()
    except OSError:  # not empty, or gone
        return


def open_private(path: Path, flags: int = os.O_WRONLY | os.O_CREAT | os.O_APPEND) -> int:
    """Open a file that only the owner can read; return its descriptor."""
    return os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)


def write_private(path: Path, content: bytes) -> None:
    """Write a whole file that only the owner can read. Readers see all of it or
    nothing.
    """
    partial = path.with_name(f"{path.name}.part")
    descriptor = open_private(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    partial.replace(path)


@dataclass(frozen=True, slots=True)
class UserSound:
    """Samples of the user, s16le mono at ``USER_RATE_HZ``."""

    at_sample: int
    """The place of the first one on the session's clock, counted in samples."""
    pcm: bytes


@dataclass(frozen=True, slots=True)
class ReplySound:
    """The next samples of a reply, s16le mono."""

    reply: int
    rate_hz: int
    pcm: bytes


Sound = UserSound | ReplySound


def write_sound(sound: Sound) -> tuple[bytes, bytes]:
    """Return the head and the samples of a chunk of ``SOUND``."""
    if isinstance(sound, UserSound):
        head = _CHUNK.pack(_USER, USER_RATE_HZ, sound.at_sample, len(sound.pcm))
    else:
        head = _CHUNK.pack(_REPLY, sound.rate_hz, sound.reply, len(sound.pcm))
    return head, sound.pcm


def read_sounds(file: BinaryIO) -> Iterator[Sound]:
    """Yield the chunks. The last one is left out if it was cut off."""
    while len(head := file.read(_CHUNK.size)) == _CHUNK.size:
        kind, rate_hz, number, size = _CHUNK.unpack(head)
        if kind not in (_USER, _REPLY) or size > _MOST_CHUNK_BYTES:
            return
        pcm = file.read(size)
        if len(pcm) < size:
            return
        yield UserSound(number, pcm) if kind == _USER else ReplySound(number, rate_hz, pcm)


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of ``EVENTS`` that were written to their end."""
    for line in file:
        if line.endswith(b"\n"):
            yield line
