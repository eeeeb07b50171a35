"""Runs one configured service for the duration of a command."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from voicechat.cli.command import EXIT_USAGE, CommandError
from voicechat.config import ServiceConfig, ServiceKind, open_service
from voicechat.errors import ProviderError
from voicechat.providers.interfaces import SpeechSynthesizer
from voicechat.runtime.language_voices import LanguageVoice, LanguageVoices


class NotStartedError(CommandError):
    """A service failed to start."""


@asynccontextmanager
async def started_service(
    kind: ServiceKind, name: str, services: Mapping[str, ServiceConfig]
) -> AsyncIterator[Any]:
    """Start the service ``name``, and close it when the context ends.

    Raises CommandError if it is not configured, NotStartedError if it fails to start.
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


@asynccontextmanager
async def started_voices(
    name: str, services: Mapping[str, ServiceConfig]
) -> AsyncIterator[SpeechSynthesizer]:
    """Start a synthesiser, and those that speak for it by language.

    Raises as `started_service`.
    """
    async with AsyncExitStack() as stack:
        started: dict[str, SpeechSynthesizer] = {}

        async def start(wanted: str) -> SpeechSynthesizer:
            if wanted not in started:
                context = started_service("tts", wanted, services)
                started[wanted] = await stack.enter_async_context(context)
            return started[wanted]

        synthesizer = await start(name)
        chosen = {
            language: LanguageVoice(await start(voice.service or name), voice.voice)
            for language, voice in services[name].by_language.chosen.items()
        }
        yield LanguageVoices(synthesizer, chosen) if chosen else synthesizer
