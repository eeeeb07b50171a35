"""The configured services by name, and their common life: start before the first session, close after the last."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from voicechat.providers.interfaces import ChatModel, SpeechRecognizer, SpeechSynthesizer
from voicechat.runtime.fallback.link import Link
from voicechat.runtime.fallback.relay import Chain
from voicechat.runtime.tool_calling import ToolCallingModel
from voicechat.runtime.toolbox import Toolbox

logger = logging.getLogger(__name__)

CLOSE_S = 5.0
"""How long a provider may take to close before it is left behind."""


@dataclass(frozen=True, slots=True)
class Services:
    """What a session may be opened with; the name ``default`` always exists in each."""

    recognizers: Mapping[str, SpeechRecognizer]
    models: Mapping[str, ChatModel]
    synthesizers: Mapping[str, SpeechSynthesizer]
    toolbox: Toolbox | None = None
    """What the models may have done on the server in a conversation; None: nothing."""

    def talking(self, model: ChatModel) -> ChatModel:
        """A chat model as it serves conversations: with the tools."""
        return model if self.toolbox is None else ToolCallingModel(model, self.toolbox)

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
            name = getattr(provider, "name", type(provider).__name__)
            logger.warning("closing %s failed: %s", name, type(error).__name__)

    @property
    def chains(self) -> tuple[Chain[object], ...]:
        """The services that are chains, for metrics."""
        return tuple(service for service in self._all if isinstance(service, Chain))

    @property
    def links(self) -> tuple[Link[object], ...]:
        """The links of all chains, each once, for metrics."""
        return tuple({link.name: link for chain in self.chains for link in chain.links}.values())

    @property
    def _all(self) -> tuple[object, ...]:
        return (*self.recognizers.values(), *self.models.values(), *self.synthesizers.values())

    def distinct(self) -> Iterator[object]:
        """What is to be started and closed: of chains the links, which may belong to several."""
        seen: set[int] = set()
        for service in (*self._all, self.toolbox):
            for provider in service.links if isinstance(service, Chain) else (service,):
                if id(provider) not in seen:
                    seen.add(id(provider))
                    yield provider
