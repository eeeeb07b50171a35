"""The configured services by name, and their life cycle: start before the first
session, close after the last.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.knowledge.retriever import Retriever
from voicechat.names import ResolvedName, ServiceNames
from voicechat.providers.interfaces import ChatModel, SpeechRecognizer, SpeechSynthesizer
from voicechat.providers.wrapping import as_provider
from voicechat.runtime.consulting.consultation import Consultation
from voicechat.runtime.context_window import ContextWindow
from voicechat.runtime.drawing import DrawingTool, SessionDrawings
from voicechat.runtime.end_conversation import end_conversation_tool
from voicechat.runtime.error_location import location_of
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.relay import Chain
from voicechat.runtime.hidden_text_filter import HiddenTextFilter
from voicechat.runtime.language_voices import LanguageVoices
from voicechat.runtime.media_services import MediaServices
from voicechat.runtime.tool_calling import ToolCallingModel
from voicechat.runtime.tool_function import ServerTool
from voicechat.runtime.toolbox import Toolbox
from voicechat.runtime.transfer import transfer_tool
from voicechat.session.agent import Agent

P = TypeVar("P")

logger = logging.getLogger(__name__)

CLOSE_S = 5.0
"""How long a provider may take to close before the server stops waiting for it."""


@dataclass(frozen=True, slots=True)
class Found(Generic[P]):
    """The service that a client's name resolves to."""

    provider: P
    resolved: ResolvedName

    @property
    def name(self) -> str:
        """Its configured name."""
        return self.resolved.name


@dataclass(frozen=True, slots=True)
class Aliases:
    """Alternative names of the services: alias to configured name. ``names.ANY``
    matches every other name.
    """

    recognizers: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    synthesizers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Services:
    """The services that a session can be opened with. Each kind always has one called
    ``default``.
    """

    recognizers: Mapping[str, SpeechRecognizer]
    models: Mapping[str, ChatModel]
    synthesizers: Mapping[str, SpeechSynthesizer]
    toolbox: Toolbox | None = None
    """The tools that the models may call on the server; None if there are none."""
    hidden_tags: tuple[str, ...] = ()
    """Names of tags, besides the known ones, whose contents are not spoken."""
    aliases: Aliases = Aliases()
    media: MediaServices = field(default_factory=MediaServices)
    """The services for pictures, videos and embeddings."""
    knowledge: Retriever | None = None
    """The documents and answered questions; None if they are switched off."""
    drawing_tools: Mapping[str, DrawingTool] = field(default_factory=dict)
    """The tools that draw pictures, by the names that the models call."""

    def recognizer(self, path: str, wanted: str) -> Found[SpeechRecognizer]:
        """Return the recogniser that the client named as ``wanted`` in the parameter
        ``path``.

        Raises ``RemoteProtocolError`` (NOT_FOUND) as ``ServiceNames.resolve``; so do
        `model` and `synthesizer`.
        """
        return _found(self.recognizers, self.aliases.recognizers, path, wanted)

    def model(self, path: str, wanted: str) -> Found[ChatModel]:
        """Return the chat model that the client named."""
        return _found(self.models, self.aliases.models, path, wanted)

    def synthesizer(self, path: str, wanted: str) -> Found[SpeechSynthesizer]:
        """Return the synthesiser that the client named."""
        return _found(self.synthesizers, self.aliases.synthesizers, path, wanted)

    @property
    def model_names(self) -> ServiceNames:
        """The names and aliases of the chat models."""
        return ServiceNames(frozenset(self.models), self.aliases.models)

    @property
    def synthesizer_names(self) -> ServiceNames:
        """The names and aliases of the synthesisers."""
        return ServiceNames(frozenset(self.synthesizers), self.aliases.synthesizers)

    def for_speech(self, model: ChatModel) -> ChatModel:
        """Wrap a chat model so that its text can be spoken: without thoughts and other
        hidden text.
        """
        return HiddenTextFilter(model, self.hidden_tags)

    def for_conversation(
        self,
        model: ChatModel,
        agent: Agent | None = None,
        drawings: SessionDrawings | None = None,
        consultation: Consultation | None = None,
    ) -> ChatModel:
        """Wrap a chat model for one conversation: with a history that fits its context
        window, without hidden text, and with the server's tools.

        An ``agent`` has only the tools that it names. Without ``drawings`` no pictures
        are drawn. ``consultation``: what the agent knows; None: nothing.
        """
        spoken = self.for_speech(ContextWindow(model))
        searching = () if consultation is None else consultation.tools
        toolbox = self._toolbox_of(agent or Agent(), drawings, searching)
        equipped = spoken if toolbox is None else ToolCallingModel(spoken, toolbox)
        return equipped if consultation is None else consultation.inform(equipped)

    def _toolbox_of(
        self, agent: Agent, drawings: SessionDrawings | None, searching: Sequence[ServerTool]
    ) -> Toolbox | None:
        own = [*searching]
        if agent.end_conversation:
            own.append(end_conversation_tool())
        if drawings is not None:
            own += drawings.tools(self.drawing_tools, agent.tools)
        if agent.transfers:
            own.append(transfer_tool(agent.transfers))
        more = {tool.name: tool for tool in own}
        toolbox = self.toolbox or Toolbox({})
        chosen = toolbox.narrowed(agent.tools, more)
        return chosen if chosen.tools else None

    def conversation_models(
        self,
        own: ChatModel,
        agent: Agent | None = None,
        drawings: SessionDrawings | None = None,
        consultation: Consultation | None = None,
    ) -> Callable[[str], ChatModel]:
        """Return a function from model name to the wrapped chat model of one
        conversation; the empty name means ``own``.

        Each model is wrapped once, because the wrapper remembers how much history its
        server accepts. The function raises as `model` does for an unknown name.
        """
        talking: dict[int, ChatModel] = {}

        def named(wanted: str) -> ChatModel:
            model = self.model("model", wanted).provider if wanted else own
            if id(model) not in talking:
                talking[id(model)] = self.for_conversation(model, agent, drawings, consultation)
            return talking[id(model)]

        return named

    async def start(self) -> None:
        """Start all providers concurrently.

        If a service fails although its settings are right, and another one of its chain
        has started, it is retried in the background. Any other failure is raised, and
        the remaining starts are cancelled.
        """
        chains = {chain.links[0]: chain for chain in self.chains}
        failures: dict[ChainLink[object], ProviderError] = {}

        async def start_link(link: ChainLink[object]) -> None:
            try:
                await link.start()
            except ConfigError:
                raise
            except Exception as error:
                if link not in chains or len(chains[link].links) == 1:
                    raise
                failures[link] = _as_provider_error(link, error)

        async with asyncio.TaskGroup() as group:
            for provider in self.distinct():
                starting = (
                    start_link(provider)
                    if isinstance(provider, ChainLink)
                    else as_provider(provider).start()
                )
                group.create_task(starting)
        fallbacks = {link: _fallback_of(chains[link], failures) for link in failures}
        for link, failure in failures.items():
            logger.warning(
                "%s did not start; %s answers until it does: %s",
                link.name,
                fallbacks[link],
                failure,
            )
            link.leave_unstarted(failure)

    async def aclose(self) -> None:
        """Close all providers concurrently. One that fails or hangs does not keep the
        others from closing.
        """
        closing = [self._close(provider) for provider in self.distinct()]
        await asyncio.gather(*closing)

    async def _close(self, provider: object) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await as_provider(provider).aclose()
        except Exception as error:  # noqa: BLE001 - one provider's failure must not keep the others from closing
            name = provider.name if isinstance(provider, ChainLink) else type(provider).__name__
            logger.warning("closing %s failed: %s", name, type(error).__name__)

    @property
    def chains(self) -> tuple[Chain[object], ...]:
        """The services that are chains, for metrics."""
        return tuple(service for service in self._all if isinstance(service, Chain))

    @property
    def links(self) -> tuple[ChainLink[object], ...]:
        """The links of all chains, each once, for metrics."""
        return tuple({link.name: link for chain in self.chains for link in chain.links}.values())

    @property
    def _all(self) -> tuple[object, ...]:
        synthesizers = [
            voices.service if isinstance(voices, LanguageVoices) else voices
            for voices in self.synthesizers.values()
        ]
        return (*self.recognizers.values(), *self.models.values(), *synthesizers)

    def distinct(self) -> Iterator[object]:
        """Yield each provider to start and close, once. Chains yield their links, which
        several chains may share.
        """
        seen: set[int] = set()
        for service in (*self._all, *self.media, self.toolbox, self.knowledge):
            for provider in service.links if isinstance(service, Chain) else (service,):
                if id(provider) not in seen:
                    seen.add(id(provider))
                    yield provider


def _found(
    services: Mapping[str, P], aliases: Mapping[str, str], path: str, wanted: str
) -> Found[P]:
    resolved = ServiceNames(frozenset(services), aliases).resolve(path, wanted)
    return Found(services[resolved.name], resolved)


def _fallback_of(chain: Chain[object], failures: Mapping[ChainLink[object], ProviderError]) -> str:
    """Return the name of the service that answers in place of one that did not start.
    Raises the failure if no service of its chain has started.
    """
    for link in chain.links:
        if link not in failures:
            return link.name
    raise failures[chain.links[0]]


def _as_provider_error(link: ChainLink[object], error: Exception) -> ProviderError:
    """Turn an exception that ``start`` must not raise into a ``ProviderError`` of the
    service.
    """
    if isinstance(error, ProviderError):
        return error
    message = f"its start raised {type(error).__name__} at {location_of(error)}"
    return ProviderError(link.name, FailureKind.BROKEN, message)
