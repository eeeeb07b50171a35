"""The catalogue of downloadable models: a TOML file with names, kinds and URLs, ours or
the user's.
"""

import re
import tomllib
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from voicechat.errors import ConfigError
from voicechat.store.model_archive import ARCHIVE_SUFFIXES

SHIPPED = Path(__file__).with_name("models.toml")
MODELS_FOLDER = "models"
"""The folder of pulled models, in the data directory."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


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


def _digests(digests: dict[str, str]) -> dict[str, str]:
    for name, digest in digests.items():
        if not _SHA256.fullmatch(digest):
            raise ValueError(f"{name}: 64 small hexadecimal digits")
    return digests


class CatalogueModel(BaseModel):
    """One entry of the catalogue."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: Annotated[str, AfterValidator(_name)]
    kind: str
    """The kind as the ``sherpa_onnx`` provider names it, or ``punctuation``."""
    languages: str = ""
    url: Annotated[str, AfterValidator(_url), AfterValidator(_archive)]
    """URL of an archive with the model's folder."""
    also: Annotated[list[Annotated[str, AfterValidator(_url)]], Field(default_factory=list)]
    """URLs of further files for the folder."""
    sha256: Annotated[dict[str, str], AfterValidator(_digests), Field(default_factory=dict)]
    """Known digests, by the name of the file in its URL."""

    @property
    def urls(self) -> list[str]:
        """The URLs of the archive and of the further files."""
        return [self.url, *self.also]

    def digest(self, url: str) -> str | None:
        """Return the expected SHA-256 of the file at ``url``; None if it is not
        known.
        """
        return self.sha256.get(file_name(url))


class _CatalogueFile(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    model: list[CatalogueModel]


def file_name(url: str) -> str:
    """Return the name of the file that a URL ends in."""
    return PurePosixPath(urlsplit(url).path).name


def read_catalogue(path: Path = SHIPPED) -> dict[str, CatalogueModel]:
    """Read a catalogue; returns models by name. Raises `ConfigError` naming the file
    and the key.
    """
    try:
        entries = _CatalogueFile.model_validate(tomllib.loads(path.read_text("utf-8"))).model
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {key}: {first['msg'].removeprefix('Value error, ')}") from error
    models = {entry.name: entry for entry in entries}
    if len(models) < len(entries):
        raise ConfigError(f"{path}: a name occurs twice")
    return models
