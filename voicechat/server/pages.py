"""The web demo's files: read once at the start, then served from memory.

A request's path is looked up among the names that were found, so path traversal is
impossible.
"""

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from aiohttp import hdrs, web

import voicechat

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_FILES = 200

PAGE_HEADERS = {
    # connect-src 'self' covers ws: and wss: of the same host; blob: is for audio that a
    # page makes itself.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    content_type: str
    etag: str


def demo_folder() -> Path | None:
    """Return the demo's folder: in an installed package, or beside it in a checkout.
    None when there is none.
    """
    return _data_folder("web_demo", "index.html")


def protocol_folder() -> Path | None:
    """Return the folder that describes the sockets, found in the same way."""
    return _data_folder("protocol", "asyncapi.json")


def _data_folder(name: str, file: str) -> Path | None:
    package = Path(voicechat.__file__).parent
    candidates = (package / "_data" / name, package.parent / name)
    return next((folder for folder in candidates if (folder / file).is_file()), None)


class Pages:
    """Serves the files of one folder under ``/``; ``/`` itself is its
    ``index.html``.
    """

    def __init__(self, folder: Path | None) -> None:
        """``folder`` None: no pages. Hidden files, links and files over 4 MiB are
        skipped.
        """
        self._files = _read_files(folder) if folder else {}

    def __bool__(self) -> bool:
        """Whether there is an ``index.html``."""
        return "index.html" in self._files

    def routes(self) -> list[web.RouteDef]:
        """Return one route per file."""
        routes = [web.get(f"/{name}", self._serve) for name in self._files]
        return [web.get("/", self._serve), *routes] if self else routes

    async def _serve(self, request: web.Request) -> web.Response:
        file = self._files[request.path.lstrip("/") or "index.html"]
        headers = {**PAGE_HEADERS, hdrs.ETAG: file.etag}
        if request.headers.get(hdrs.IF_NONE_MATCH) == file.etag:
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=file.content, headers={**headers, hdrs.CONTENT_TYPE: file.content_type}
        )


def _read_files(folder: Path) -> dict[str, _File]:
    files: dict[str, _File] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if (
            hidden
            or path.is_symlink()
            or not path.is_file()
            or path.stat().st_size > MAX_FILE_BYTES
        ):
            continue
        if len(files) == MAX_FILES:
            break
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        files[name] = _File(content, _content_type(name), etag)
    return files


def _content_type(name: str) -> str:
    # The machine's own table is not used: some systems map JavaScript to text/plain.
    known = {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".css": "text/css",
        ".html": "text/html",
    }
    content_type = (
        known.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    )
    return f"{content_type}; charset=utf-8" if content_type.startswith("text/") else content_type
