"""Opens what a configuration describes: services, their fallback chains, and tools."""

from collections.abc import Mapping
from typing import Any

from voicechat.config.knowledge import open_knowledge
from voicechat.config.mcp_server import McpServer, McpSettings
from voicechat.config.media import open_media
from voicechat.config.sections import Config, ServiceConfig, ServiceKind
from voicechat.config.tool_sections import ToolConfig
from voicechat.errors import ConfigError
from voicechat.names import aliases_of
from voicechat.providers.interfaces import SpeechSynthesizer
from voicechat.providers.registry import find_factory
from voicechat.runtime.drawing import DrawingTool
from voicechat.runtime.fallback.chains import (
    chat_chains,
    order_of,
    recognition_chains,
    speech_chains,
)
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.language_voices import LanguageVoice, LanguageVoices
from voicechat.runtime.services import Aliases, Services
from voicechat.runtime.speech_cache import CachingSynthesizer
from voicechat.runtime.tool_function import NAME, NO_NAME, ServerTool, open_tool
from voicechat.runtime.toolbox import Toolbox


def build_services(config: Config) -> Services:
    """Open every configured service once, and chain it with its fallbacks.

    Nothing runs before ``Services.start``. Raises ConfigError naming the section.
    """
    media = open_media(config.media_services)
    return Services(
        recognizers=recognition_chains(
            _links("asr", config.asr), fallback_orders("asr", config.asr), config.limits
        ),
        models=chat_chains(
            _links("llm", config.llm), fallback_orders("llm", config.llm), config.limits
        ),
        synthesizers=_by_language(
            config.tts,
            speech_chains(_voice_links(config), fallback_orders("tts", config.tts), config.limits),
        ),
        toolbox=_open_toolbox(config.tools),
        hidden_tags=config.replies.hidden_tags,
        aliases=Aliases(
            recognizers=service_aliases("asr", config.asr),
            models=service_aliases("llm", config.llm),
            synthesizers=service_aliases("tts", config.tts),
        ),
        media=media,
        knowledge=open_knowledge(config, media.embedders),
        drawing_tools={
            name: configured_drawing(config, name)
            for name, tool in config.tools.items()
            if tool.images
        },
    )


def service_aliases(kind: ServiceKind, services: Mapping[str, ServiceConfig]) -> dict[str, str]:
    """Return the services by alias. Raises ConfigError naming the section when two have
    the same alias.
    """
    try:
        return aliases_of({name: service.also for name, service in services.items()})
    except ValueError as error:
        raise ConfigError(f"{kind}.{error}") from None


def fallback_orders(
    kind: ServiceKind, services: Mapping[str, ServiceConfig]
) -> dict[str, tuple[str, ...]]:
    """Return for each service its name and its fallbacks' names, in order. Raises
    ConfigError naming the section.
    """
    fallbacks = {name: service.fallback for name, service in services.items()}
    orders = {}
    for name in services:
        try:
            orders[name] = order_of(name, fallbacks)
        except ValueError as error:
            raise ConfigError(f"{kind}.{name}.fallback: {error}") from None
    return orders


def _links(kind: ServiceKind, services: Mapping[str, ServiceConfig]) -> dict[str, ChainLink[Any]]:
    for name, service in services.items():
        if service.by_language.chosen:
            raise ConfigError(f"{kind}.{name}.by_language: only tts services have voices")
    return {
        name: ChainLink(f"{kind}.{name}", open_service(kind, name, service), service.policy)
        for name, service in services.items()
    }


def _voice_links(config: Config) -> dict[str, ChainLink[SpeechSynthesizer]]:
    """Open the synthesisers, each with its own cache: speech of a fallback must not be
    heard after the outage.
    """
    cache_bytes = config.server.speech_cache_mib * 2**20

    def opened(name: str, service: ServiceConfig) -> SpeechSynthesizer:
        synthesizer: SpeechSynthesizer = open_service("tts", name, service)
        return CachingSynthesizer(synthesizer, cache_bytes) if cache_bytes else synthesizer

    return {
        name: ChainLink(f"tts.{name}", opened(name, service), service.policy)
        for name, service in config.tts.items()
    }


def _by_language(
    services: Mapping[str, ServiceConfig], chains: Mapping[str, SpeechSynthesizer]
) -> dict[str, SpeechSynthesizer]:
    """Give each service its voices by language. Raises ConfigError naming the key."""
    voiced = dict(chains)
    for name, service in services.items():
        chosen: dict[str, LanguageVoice] = {}
        for language, wanted in service.by_language.chosen.items():
            key = f"tts.{name}.by_language.{language}"
            other = wanted.service or name
            if other not in chains:
                raise ConfigError(f"{key}: there is no service tts.{other}")
            if wanted.voice and wanted.voice not in chains[other].voices:
                raise ConfigError(f"{key}: tts.{other} has no voice {wanted.voice!r}")
            chosen[language] = LanguageVoice(chains[other], wanted.voice)
        if chosen:
            voiced[name] = LanguageVoices(chains[name], chosen)
    return voiced


def _open_toolbox(tools: Mapping[str, ToolConfig]) -> Toolbox | None:
    if not tools:
        return None
    functions = {name: configured_tool(name, tool) for name, tool in tools.items() if tool.function}
    servers = [configured_server(name, tool) for name, tool in tools.items() if tool.is_mcp]
    return Toolbox(functions, servers)


def configured_tool(name: str, tool: ToolConfig) -> ServerTool:
    """Load one tool without calling it. Raises ConfigError naming the section."""
    try:
        return open_tool(
            name,
            tool.function,
            description=tool.description,
            parameters=tool.parameters,
            deadline_s=tool.deadline_s,
            filler=tool.filler.filler,
            filler_after_ms=tool.filler_after_ms,
        )
    except ConfigError as error:
        raise ConfigError(f"tools.{name}: {error}") from error


def configured_drawing(config: Config, name: str) -> DrawingTool:
    """Return a tool that draws. Raises ConfigError naming the section."""
    tool, services = config.tools[name], config.media_services.get("images", {})
    if not NAME.fullmatch(name):
        raise ConfigError(f"tools.{name}: {name!r} {NO_NAME}")
    if tool.images not in services:
        known = ", ".join(services) or "none"
        raise ConfigError(
            f"tools.{name}.images: there is no service [images.{tool.images}]; there are: {known}"
        )
    return tool.drawing


def configured_server(name: str, tool: ToolConfig) -> McpServer:
    """Prepare one MCP server without connecting. Raises ConfigError naming the
    section.
    """
    settings = McpSettings(
        url=tool.mcp_url,
        command=tool.mcp_command,
        headers=tool.mcp_headers,
        tools=tool.mcp_tools,
        deadline_s=tool.deadline_s,
        filler=tool.filler.filler,
        filler_after_ms=tool.filler_after_ms,
    )
    try:
        return McpServer(name, settings)
    except ConfigError as error:
        raise ConfigError(f"tools.{name}: {error}") from error


def open_service(kind: ServiceKind, name: str, service: ServiceConfig) -> Any:
    """Open one service, inactive until its ``start``. Raises ConfigError naming the
    section.
    """
    try:
        return find_factory(kind, service.provider, service.written)(**service.arguments)
    except ConfigError as error:
        raise ConfigError(f"{kind}.{name}: {error}") from error
