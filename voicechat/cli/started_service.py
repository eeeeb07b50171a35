"""One configured service, started for the length of a command."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from voicechat.cli.command import EXIT_USAGE, CommandError
from voicechat.config import ServiceConfig, ServiceKind, open_service
from voicechat.errors import ProviderError


class NotStartedError(CommandError):
    """A service cannot be started."""


@asynccontextmanager
async def started_service(
    kind: ServiceKind, name: str, services: Mapping[str, ServiceConfig]
) -> AsyncIterator[Any]:
    """Start the service called ``name``, and close it afterwards.

    Raises CommandError when there is none of that name, NotStartedError when it does
    not start.
    """
    if name not in services:
        raise CommandError(
            f"there is no [{kind}.{name}]; configured: {', '.join(sorted(services))}", EXIT_USAGE
        )
    service = open_service(kind, name, services[name])
    try:
        if hasattr(service, "start"):
            try:
                await service.start()
            except ProviderError as error:
                raise NotStartedError(f"{kind}.{name}: it does not start: {error}") from error
        yield service
    finally:
        if hasattr(service, "aclose"):
            await service.aclose()
