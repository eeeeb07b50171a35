"""Files of pictures and videos on disk, and the addresses at which results are
fetched.

An address needs no key, because the documents' clients fetch results without one. It
holds 128 random bits, and is valid until the file is deleted.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import hdrs, web

from voicechat.errors import RemoteProtocolError, Status
from voicechat.pictures.picture import SUFFIXES
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.origins import Origins
from voicechat.server.rest.uploads import DiskLimits, RecordingFolder, Upload

PATH = "/media/{name}"
NAME = re.compile(r"(?P<file>[0-9a-f]{16}-[0-9a-f]{32})\.(?P<suffix>[a-z0-9]{3,4})")
JOBS_FOLDER = "jobs"
MAX_REMOTE_ID_CHARACTERS = 512
WRITTEN_BYTES = 512 * 1024
_TYPES = {suffix: content_type for content_type, suffix in SUFFIXES.items()}
_HEADERS = {
    hdrs.CACHE_CONTROL: "private, max-age=3600",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSettings:
    """Where files are stored, and for how long."""

    folder: Path
    public_url: str = ""
    """The URL at which clients reach the server; empty means that of their request."""
    keep_s: float = 24 * 3600.0
    image_deadline_s: float = 300.0
    disk: DiskLimits = field(default_factory=DiskLimits)


class MediaFiles:
    """The files of all keys, counted per key and in total."""

    def __init__(self, settings: MediaSettings, origins: Origins) -> None:
        self.settings = settings
        self._origins = origins
        self.folder = RecordingFolder(
            settings.folder, settings.disk, field_name="file", only_recordings=False
        )

    async def store(self, content: bytes, key_id: str) -> str:
        """Store a file durably, and return its name.

        Raises ``QuotaExceededError`` and ``AtCapacityError``.
        """
        async with self.receiving(key_id) as upload:
            for begin in range(0, len(content), WRITTEN_BYTES):
                await upload.write_piece(content[begin : begin + WRITTEN_BYTES])
            await upload.finish_upload()
            upload.kept = True
        return upload.name

    @asynccontextmanager
    async def receiving(self, key_id: str) -> AsyncGenerator[Upload, None]:
        """Receive a file, which is removed unless it is ``kept``."""
        async with self.folder.receiving(key_id) as upload:
            yield upload

    async def read(self, name: str) -> bytes:
        """Return the content of a stored file. Raises FileNotFoundError."""
        return await asyncio.to_thread(self.folder.path(name).read_bytes)

    async def remove(self, names: Collection[str]) -> None:
        """Remove files. Files that do not exist any more are ignored."""
        for name in names:
            await self.folder.remove(name)

    def address(self, request: web.Request, name: str, content_type: str) -> str:
        """Return the address at which the client of ``request`` can fetch a result."""
        return self.address_at(self._origins.public_url(request), name, content_type)

    def address_at(self, url: str, name: str, content_type: str) -> str:
        """Return the address of a result for a client that reached the server at
        ``url``; a path if that is empty and ``media.public_url`` is not set.
        """
        base = self.settings.public_url or url
        return f"{base.rstrip('/')}/media/{name}.{SUFFIXES[content_type]}"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer with a file. Raises ``RemoteProtocolError`` (NOT_FOUND)."""
        found = NAME.fullmatch(request.match_info["name"])
        if found is None or found["suffix"] not in _TYPES:
            raise no_such_file()
        return await self.respond(found["file"], _TYPES[found["suffix"]])

    async def respond(self, name: str, content_type: str) -> web.StreamResponse:
        """Return a response with a stored file, which supports ranges. Raises as
        ``serve``.
        """
        path = self.folder.path(name)
        if not await asyncio.to_thread(path.is_file):
            raise no_such_file()
        return web.FileResponse(path, headers={**_HEADERS, hdrs.CONTENT_TYPE: content_type})

    async def remember_job(self, task_id: str, remote_id: str) -> None:
        """Store durably the service's name of a task's job."""
        if len(remote_id) > MAX_REMOTE_ID_CHARACTERS:
            raise RemoteProtocolError(Status.INTERNAL, "the service's name of a job is too long")
        await asyncio.to_thread(_write_durably, self._job_path(task_id), remote_id)

    async def remembered_job(self, task_id: str) -> str:
        """Return the stored name; empty if there is none."""
        try:
            return await asyncio.to_thread(self._job_path(task_id).read_text, "utf-8")
        except FileNotFoundError:
            return ""

    async def forget_job(self, task_id: str) -> bool:
        """Remove the stored name once the task has ended. Returns whether there was
        one: of several callers only one gets True.
        """
        try:
            await asyncio.to_thread(self._job_path(task_id).unlink)
        except FileNotFoundError:
            return False
        return True

    async def sweep_jobs(self) -> None:
        """Remove names of jobs of tasks that must have expired."""
        await asyncio.to_thread(_remove_older, self.settings.folder / JOBS_FOLDER, self._oldest_s)

    @property
    def _oldest_s(self) -> float:
        """The Unix time before which nothing of a task can be left: tasks are kept for
        ``keep_s`` after their end, and are given the same time to end.
        """
        return unix_s() - 2 * self.settings.keep_s

    def _job_path(self, task_id: str) -> Path:
        return self.settings.folder / JOBS_FOLDER / task_id


def no_such_file() -> RemoteProtocolError:
    """Return the error for a result that does not exist or has been deleted."""
    return RemoteProtocolError(Status.NOT_FOUND, "there is no such file, or not any more")


def _remove_older(folder: Path, before_s: float) -> None:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before_s:
                path.unlink()


def _write_durably(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_suffix(".new")
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
