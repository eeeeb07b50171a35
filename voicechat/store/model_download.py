"""Downloads one large file over HTTP, and resumes after an earlier attempt or run was
interrupted.

Resuming is safe only if the file has not changed meanwhile: its ETag, or else its date,
is stored beside the partial file and sent as If-Range (RFC 9110, 13.1.5). A server with
another file, or without range support, sends all of it.
"""

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, hdrs

from voicechat.errors import VoiceChatError

PIECE_BYTES = 256 * 1024
CONNECT_S = 15.0
IDLE_S = 60.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

OnProgress = Callable[[int, int], None]
"""Called with the bytes downloaded so far, and the size of the file (0: unknown)."""


class DownloadError(VoiceChatError):
    """A file could not be downloaded. The message is one line for a person."""


class _CutOffError(Exception):
    """The connection broke; a retry may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadLimits:
    """Limits of size, disk space and retries."""

    max_bytes: int = 8 * 1024**3
    spare_bytes: int = 200 * 1024**2
    """This much of the disk stays free."""
    attempts: int = 6
    pause_s: float = 1.0
    """The pause before the second attempt; it doubles with each."""


async def download(
    url: str, part: "PartialDownload", limits: DownloadLimits, on_progress: OnProgress
) -> None:
    """Download ``url`` into ``part``, which may hold its beginning.

    Proxies of the environment are used. Raises `DownloadError`. What was downloaded
    stays in ``part`` whatever happens, cancelling included, and the next call resumes
    there.
    """
    if part.is_complete(url):
        return
    cause: Exception = DownloadError("no attempt")
    timeout = ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=IDLE_S)
    headers = {hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: "voicechat"}
    async with ClientSession(
        timeout=timeout, trust_env=True, auto_decompress=False, headers=headers
    ) as session:
        for attempt in range(limits.attempts):
            if attempt:
                await asyncio.sleep(limits.pause_s * 2 ** (attempt - 1))
            try:
                await _attempt(session, url, part, limits, on_progress)
                return
            except (ClientError, TimeoutError, _CutOffError, ConnectionError) as error:
                cause = error
            except OSError as error:
                raise DownloadError(f"{part.path}: {error.strerror}") from error
    reason = str(cause).partition("\n")[0] or type(cause).__name__
    raise DownloadError(
        f"{url} cannot be fetched ({reason}); what there is of it is kept, so pull again later"
    )


async def _attempt(
    session: ClientSession,
    url: str,
    part: "PartialDownload",
    limits: DownloadLimits,
    on_progress: OnProgress,
) -> None:
    have_bytes, validator = part.state(url)
    wanted = {hdrs.RANGE: f"bytes={have_bytes}-", hdrs.IF_RANGE: validator} if have_bytes else {}
    async with session.get(url, headers=wanted) as response:
        # A redirect must not downgrade https to plain http.
        ways = [answer.url.scheme for answer in (*response.history, response)]
        if url.startswith("https:") and "http" in ways:
            raise DownloadError(
                f"{url} leads to an address without encryption, which is not followed"
            )
        if response.status == 416 and have_bytes:
            # Range not satisfiable: what was downloaded belongs to another file.
            part.discard_file()
            raise _CutOffError("the server has less of it than was fetched")
        if response.status not in (200, 206):
            raise _refused(url, response.status)
        begin_bytes, total_bytes = _extent(response, have_bytes)
        _check_room(part.path, total_bytes, begin_bytes, limits)
        part.write_begun(
            url,
            begin_bytes,
            response.headers.get(hdrs.ETAG),
            response.headers.get(hdrs.LAST_MODIFIED),
        )
        with part.path.open("ab" if begin_bytes else "wb") as file:
            on_progress(begin_bytes, total_bytes)
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                file.write(piece)
                if file.tell() > limits.max_bytes:
                    raise DownloadError(f"{url} has more than {limits.max_bytes} bytes")
                on_progress(file.tell(), total_bytes)
            # Without a known size an early end cannot be told from the real one.
            if total_bytes and file.tell() != total_bytes:
                raise _CutOffError("the connection ended early")
    part.write_completed(url)


def _refused(url: str, status: int) -> Exception:
    if status >= 500 or status == 429:
        return _CutOffError(f"HTTP status {status}")
    return DownloadError(f"{url} cannot be fetched: HTTP status {status}")


def _extent(response: ClientResponse, have_bytes: int) -> tuple[int, int]:
    """Return where the body begins in the file, and the file's size (0: unknown)."""
    if response.status == 200:
        return 0, response.content_length or 0
    given = _CONTENT_RANGE.fullmatch(response.headers.get(hdrs.CONTENT_RANGE, ""))
    if given is None or int(given[1]) != have_bytes:
        raise DownloadError("the server sends another part of the file than it was asked for")
    return have_bytes, int(given[3])


def _check_room(path: Path, total_bytes: int, begin_bytes: int, limits: DownloadLimits) -> None:
    if total_bytes > limits.max_bytes:
        raise DownloadError(f"the file has {total_bytes} bytes; allowed are {limits.max_bytes}")
    free_bytes, missing_bytes = shutil.disk_usage(path.parent).free, total_bytes - begin_bytes
    if missing_bytes + limits.spare_bytes > free_bytes:
        raise DownloadError(
            f"{path.parent}: {free_bytes >> 20} MB are free, and {missing_bytes >> 20} MB are to "
            "be fetched; make room, or set VOICECHAT_DATA_DIR to another disk"
        )


class PartialDownload:
    """A partially downloaded file, and beside it (in ``.json``) the URL and version it
    belongs to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._label = path.with_name(path.name + ".json")

    def state(self, url: str) -> tuple[int, str]:
        """Return how many bytes there are, and the validator for If-Range; 0 when the
        validator is unknown.
        """
        validator = self._read(url).get("validator")
        if not isinstance(validator, str) or not validator or not self.path.is_file():
            return 0, ""
        return self.path.stat().st_size, validator

    def is_complete(self, url: str) -> bool:
        """Return whether the file is complete."""
        return self._read(url).get("whole") is True and self.path.is_file()

    def write_begun(self, url: str, begin_bytes: int, etag: str | None, date: str | None) -> None:
        """Store the URL and the validator of a download that begins. A weak ETag is not
        used: it does not guarantee equal bytes.
        """
        if not begin_bytes:
            strong = etag if etag and not etag.startswith("W/") else None
            self._write({"url": url, "validator": strong or date or ""})

    def write_completed(self, url: str) -> None:
        """Store that the file is complete."""
        self._write({"url": url, "whole": True})

    def discard_file(self) -> None:
        """Delete the file."""
        self._label.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _read(self, url: str) -> dict[str, object]:
        try:
            label = json.loads(self._label.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return label if isinstance(label, dict) and label.get("url") == url else {}

    def _write(self, label: dict[str, object]) -> None:
        self._label.write_text(json.dumps(label), "utf-8")
