"""The configured services for pictures, videos and embeddings, by name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from voicechat.errors import Fault, RemoteProtocolError
from voicechat.names import DEFAULT, ResolvedName, ServiceNames
from voicechat.providers.interfaces import TextEmbedder
from voicechat.providers.media import (
    ImageDescriber,
    ImageEnhancer,
    ImageGenerator,
    TextReader,
    VideoGenerator,
    VideoProcessor,
)

P = TypeVar("P")

PURPOSES = {
    "images": "makes pictures",
    "videos": "makes videos",
    "vision": "describes pictures",
    "ocr": "reads the text in pictures",
    "enhancers": "enhances pictures",
    "video_processors": "works on videos",
    "embedders": "embeds texts",
}


@dataclass(frozen=True, slots=True)
class ServicesOfKind(Generic[P]):
    """The services of one kind. There may be none."""

    kind: str
    """The name of their sections in the configuration."""
    services: Mapping[str, P] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def find(self, path: str, wanted: str = "") -> P:
        """Return the service that the client named as ``wanted`` in the parameter
        ``path``; empty means the default.

        Raises ``RemoteProtocolError`` (NOT_FOUND). Its message states what to configure
        if there is no service, and the known names otherwise.
        """
        return self.services[self.resolve(path, wanted).name]

    def resolve(self, path: str, wanted: str = "") -> ResolvedName:
        """Return which service a name means. Raises as ``find``."""
        if not self.services:
            raise RemoteProtocolError(
                Fault.NOT_FOUND,
                f"{path}: no service here {PURPOSES[self.kind]}; "
                f"the server's operator can configure one: [{self.kind}.NAME]",
            )
        names = ServiceNames(frozenset(self.services), self.aliases)
        return names.resolve(path, wanted or DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaServices:
    """The services of all kinds."""

    images: ServicesOfKind[ImageGenerator] = field(
        default_factory=partial(ServicesOfKind, "images")
    )
    videos: ServicesOfKind[VideoGenerator] = field(
        default_factory=partial(ServicesOfKind, "videos")
    )
    vision: ServicesOfKind[ImageDescriber] = field(
        default_factory=partial(ServicesOfKind, "vision")
    )
    ocr: ServicesOfKind[TextReader] = field(default_factory=partial(ServicesOfKind, "ocr"))
    enhancers: ServicesOfKind[ImageEnhancer] = field(
        default_factory=partial(ServicesOfKind, "enhancers")
    )
    video_processors: ServicesOfKind[VideoProcessor] = field(
        default_factory=partial(ServicesOfKind, "video_processors")
    )
    embedders: ServicesOfKind[TextEmbedder] = field(
        default_factory=partial(ServicesOfKind, "embedders")
    )

    def __iter__(self) -> Iterator[object]:
        """Yield every service, to be started and closed."""
        kinds: tuple[ServicesOfKind[Any], ...] = (
            self.images,
            self.videos,
            self.vision,
            self.ocr,
            self.enhancers,
            self.video_processors,
            self.embedders,
        )
        for kind in kinds:
            yield from kind.services.values()
