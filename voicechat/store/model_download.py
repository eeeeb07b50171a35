"""Downloads one large file over HTTP, and resumes after an earlier attempt or run was
interrupted.

Resuming is safe only if the file has not changed meanwhile: its ETag, or else its date,
is stored beside the partial file and sent as If-Range (RFC 9110, 13.1.5). A server with
another file, or without range support, sends all of it. Some mirrors send neither; such
a download is resumed only if its content is compared with a known digest afterwards.
"""

import asyncio
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    hdrs,
)

from voicechat.errors import VoiceChatError

PIECE_BYTES = 256 * 1024
CONNECT_S = 15.0
IDLE_S = 60.0
_SECRET_PARTS = re.compile(
    r"(?P<scheme>https?://)(?:[^/@\s]*@)?(?P<rest>[^\s?#'\")]*)(?:\?[^\s'\")]*)?"
)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

KEPT = "; what there is of it is kept, so pull again later"
"""The end of the message about an interrupted download."""

OnProgress = Callable[[int, int], None]
"""Called with the bytes downloaded so far, and the size of the file (0: unknown)."""


class DownloadError(VoiceChatError):
    """A file could not be downloaded. The message is one line for a person."""


class UnreachableError(DownloadError):
    """No connection to a server could be made."""


class _CutOffError(Exception):
    """The connection broke; a retry may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadLimits:
    """Limits of size, disk space and retries."""

    max_bytes: int = 8 * 1024**3
    spare_bytes: int = 200 * 1024**2
    """How much of the disk must stay free."""
    attempts: int = 6
    """Consecutive attempts without any progress."""
    connect_attempts: int = 6
    """Failed attempts to connect after which a server counts as unreachable."""
    pause_s: float = 1.0
    """The pause before the second attempt; it doubles with each."""


async def download(
    url: str, part: "PartialDownload", limits: DownloadLimits, on_progress: OnProgress
) -> None:
    """Download ``url`` into ``part``, which may hold its beginning.

    Proxies of the environment are used. Raises `DownloadError`. After any error, and
    after cancelling, the downloaded bytes stay in ``part``, and the next call resumes
    there.
    """
    if part.is_complete(url):
        return
    cause: Exception = DownloadError("no attempt")
    timeout = ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=IDLE_S)
    headers = {hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: "voicechat"}
    failures, allowed = 0, limits.attempts
    async with ClientSession(
        timeout=timeout, trust_env=True, auto_decompress=False, headers=headers
    ) as session:
        while failures < allowed:
            if failures:
                await asyncio.sleep(limits.pause_s * 2 ** (failures - 1))
            have_bytes, _ = part.state(url)
            try:
                await _attempt(session, url, part, limits, on_progress)
                return
            except (ClientError, TimeoutError, _CutOffError, ConnectionError) as error:
                cause = error
            except OSError as error:
                raise DownloadError(f"{part.path}: {error.strerror}") from error
            failures = 1 if part.state(url)[0] > have_bytes else failures + 1
            allowed = limits.connect_attempts if _is_unreachable(cause) else limits.attempts
    reason = public(str(cause).partition("\n")[0]) or type(cause).__name__
    raise (UnreachableError if _is_unreachable(cause) else DownloadError)(
        f"{public(url)} cannot be fetched ({reason}){KEPT}"
    )


def _is_unreachable(error: Exception) -> bool:
    return isinstance(error, ClientConnectorError | ConnectionTimeoutError)


async def _attempt(
    session: ClientSession,
    url: str,
    part: "PartialDownload",
    limits: DownloadLimits,
    on_progress: OnProgress,
) -> None:
    have_bytes, validator = part.state(url)
    wanted = {hdrs.RANGE: f"bytes={have_bytes}-"} if have_bytes else {}
    if have_bytes and validator:
        wanted[hdrs.IF_RANGE] = validator
    async with session.get(url, headers=wanted) as response:
        # A redirect must not downgrade https to plain http.
        ways = [answer.url.scheme for answer in (*response.history, response)]
        if url.startswith("https:") and "http" in ways:
            raise DownloadError(
                f"{public(url)} leads to an address without encryption, which is not followed"
            )
        if response.status == 416 and have_bytes:
            # Range not satisfiable: the downloaded bytes belong to another file.
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
                    raise DownloadError(f"{public(url)} has more than {limits.max_bytes} bytes")
                on_progress(file.tell(), total_bytes)
            # Without a known size an early end cannot be distinguished from the real
            # one.
            if total_bytes and file.tell() != total_bytes:
                raise _CutOffError("the connection ended early")
    part.write_completed(url)


def _refused(url: str, status: int) -> Exception:
    if status >= 500 or status == 429:
        return _CutOffError(f"HTTP status {status}")
    return DownloadError(f"{public(url)} cannot be fetched: HTTP status {status}")


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


def public(text: str) -> str:
    """Return a URL, or a text with URLs, without user names, passwords and queries,
    which may be secret.
    """
    return _SECRET_PARTS.sub(lambda match: match["scheme"] + match["rest"], text)


class PartialDownload:
    """A partially downloaded file and its ``.json`` file, which contains the digest of
    the URL (the URL may contain a password) and the version of the file.
    """

    def __init__(self, path: Path, *, digest_known: bool = False) -> None:
        """``digest_known``: the complete file is compared with a known digest, so it
        may be resumed without a validator.
        """
        self.path = path
        self._digest_known = digest_known
        self._label = path.with_name(path.name + ".json")

    def exists(self) -> bool:
        """Return whether anything has been downloaded."""
        return self.path.exists()

    def state(self, url: str) -> tuple[int, str]:
        """Return the number of bytes from which the download can resume, and the
        validator for If-Range, which may be empty.
        """
        label = self._read(url)
        validator = label.get("validator")
        if not isinstance(validator, str) or not self.path.is_file():
            return 0, ""
        if not validator and not self._digest_known:
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
            self._write({"url": _label(url), "validator": strong or date or ""})

    def write_completed(self, url: str) -> None:
        """Store that the file is complete."""
        self._write({"url": _label(url), "whole": True})

    def discard_file(self) -> None:
        """Delete the file."""
        self._label.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _read(self, url: str) -> dict[str, object]:
        try:
            label = json.loads(self._label.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return label if isinstance(label, dict) and label.get("url") == _label(url) else {}

    def _write(self, label: dict[str, object]) -> None:
        self._label.write_text(json.dumps(label), "utf-8")


def _label(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()
