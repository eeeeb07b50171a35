"""A server of many files that is also a Python index and an npm registry; files can be
missing, changed, or cut off on the way.
"""

import asyncio
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from voicechat.store.model_catalogue import CataloguePackage

_PIECE_BYTES = 65536


@dataclass
class RegistryServer:
    """What it serves, by path; ``asked`` are the paths and Range headers that came."""

    files: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    cut_after: dict[str, int] = field(default_factory=dict)
    """Bytes after which the next connection for that path is cut."""
    html: bool = False
    """The index answers as PEP 503 has it, not PEP 691."""
    listed: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Files of each Python project: name and sha256."""
    bytes_per_s: int | None = None
    sent_bytes: int = 0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)

    def add_wheel(self, project: str, members: Mapping[str, bytes]) -> CataloguePackage:
        """Publish version 1.0 of a Python project."""
        name = f"{project.replace('-', '_')}-1.0-py3-none-any.whl"
        content = zip_of(members)
        self.files[f"/packages/{name}"] = content
        self.listed.setdefault(project, []).append((name, sha256(content)))
        return CataloguePackage(
            name=f"pypi:{project}==1.0", file=name, bytes=len(content), sha256=sha256(content)
        )

    def add_tarball(self, project: str, members: Mapping[str, bytes]) -> CataloguePackage:
        """Publish version 1.0 of an npm package."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for path, member in members.items():
                info = tarfile.TarInfo(path)
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))
        name = f"{project.rpartition('/')[2]}-1.0.tgz"
        content = buffer.getvalue()
        self.files[f"/tarballs/{name}"] = content
        self.files[f"/{project}/1.0"] = json.dumps(
            {"dist": {"tarball": f"{self.url}/tarballs/{name}"}}
        ).encode()
        return CataloguePackage(
            name=f"npm:{project}@1.0", file=name, bytes=len(content), sha256=sha256(content)
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.asked.append((path, request.headers.get("Range")))
        self.authorizations.append(request.headers.get("Authorization"))
        if path.startswith("/simple/"):
            return self._list(path.strip("/").rpartition("/")[2])
        if path not in self.files:
            return web.Response(status=404)
        content, begin, status = self.files[path], 0, 200
        if "Range" in request.headers:
            begin, status = int(request.headers["Range"].removeprefix("bytes=")[:-1]), 206
            if begin >= len(content):
                return web.Response(status=416)
        response = web.StreamResponse(status=status)
        if status == 206:
            response.headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        response.content_length = len(content) - begin
        await response.prepare(request)
        cut_after = self.cut_after.pop(path, None)
        left = content[begin:][:cut_after]
        for start in range(0, len(left), _PIECE_BYTES):
            await response.write(left[start : start + _PIECE_BYTES])
            self.sent_bytes += _PIECE_BYTES
            if self.bytes_per_s is not None:
                await asyncio.sleep(_PIECE_BYTES / self.bytes_per_s)
        if cut_after is not None:
            assert request.transport is not None
            request.transport.close()
        return response

    def _list(self, project: str) -> web.Response:
        files = self.listed.get(project)
        if files is None:
            return web.Response(status=404)
        if self.html:
            anchors = "".join(
                f'<a href="../../packages/{name}#sha256={digest}">{name}</a><br>'
                for name, digest in files
            )
            return web.Response(text=f"<!DOCTYPE html>{anchors}", content_type="text/html")
        listed = [
            {"filename": name, "url": f"../../packages/{name}", "hashes": {"sha256": digest}}
            for name, digest in files
        ]
        return web.Response(
            text=json.dumps({"meta": {"api-version": "1.1"}, "files": listed}),
            content_type="application/vnd.pypi.simple.v1+json",
        )


def zip_of(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path, member in members.items():
            zipped.writestr(path, member)
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@asynccontextmanager
async def registry(server: RegistryServer | None = None) -> AsyncIterator[RegistryServer]:
    """Serve on a free port."""
    server = server or RegistryServer()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
