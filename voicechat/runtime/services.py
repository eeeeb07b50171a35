"""The configured services by name, and their common life: start before the first session, close after the last."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from voicechat.providers.interfaces import ChatModel, SpeechRecognizer, SpeechSynthesizer

logger = logging.getLogger(__name__)

CLOSE_S = 5.0
"""How long a provider may take to close before it is left behind."""


@dataclass(frozen=True, slots=True)
class Services:
    """What a session may be opened with; the name ``default`` always exists in each."""

    recognizers: Mapping[str, SpeechRecognizer]
    models: Mapping[str, ChatModel]
    synthesizers: Mapping[str, SpeechSynthesizer]

    async def start(self) -> None:
        """Warm every provider up that has a ``start``, all at once. The first failure is raised; the rest stop."""
        async with asyncio.TaskGroup() as group:
            for provider in self.distinct():
                start = getattr(provider, "start", None)
                if start is not None:
                    group.create_task(start())

    async def aclose(self) -> None:
        """Close every provider that has an ``aclose``; one that fails or hangs does not keep the others from it."""
        closing = [self._close(provider) for provider in self.distinct()]
        await asyncio.gather(*closing)

    async def _close(self, provider: object) -> None:
        aclose = getattr(provider, "aclose", None)
        if aclose is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await aclose()
        except Exception as error:  # noqa: BLE001 - a provider's failing farewell must not stop the others'
            logger.warning("closing %s failed: %s", type(provider).__name__, type(error).__name__)

    def distinct(self) -> Iterator[object]:
        """Each provider once, whatever names it has."""
        seen: set[int] = set()
        for provider in (*self.recognizers.values(), *self.models.values(), *self.synthesizers.values()):
            if id(provider) not in seen:
                seen.add(id(provider))
                yield provider
