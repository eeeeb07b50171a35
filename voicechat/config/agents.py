"""Builds the configured agents, and checks that what they refer to exists."""

from collections.abc import Iterable, Mapping

from voicechat.agents import Agents, normalized_name
from voicechat.config.agent_sections import AgentConfig
from voicechat.errors import ConfigError
from voicechat.names import ANY, DEFAULT, ServiceNames, aliases_of
from voicechat.session.agent import VARIABLES, Agent, Keypad, references


def build_agents(
    agents: Mapping[str, AgentConfig],
    *,
    llm: ServiceNames,
    asr: Iterable[str],
    tts: Iterable[str],
    tools: Iterable[str],
) -> Agents:
    """Build the agents; ``default`` is added unless it is configured.

    Raises ConfigError naming the key of a reference to something that does not exist,
    or of a name with two meanings.
    """
    agents = {DEFAULT: AgentConfig(), **agents}
    for name, agent in agents.items():
        path = f"agents.{name}"
        _require(f"{path}.llm", [agent.llm], sorted(llm.names))
        _require(f"{path}.asr", [agent.asr], asr)
        _require(f"{path}.tts", [agent.tts], tts)
        _require(f"{path}.tools", agent.tools or (), tools, "tool")
        if agent.keypad and agent.keypad.tool:
            _require(f"{path}.keypad.tool", [agent.keypad.tool], agent.tools or tools, "tool")
        for key, text in agent.texts().items():
            _require(f"{path}.{key}", references(text), (*VARIABLES, *agent.variables), "variable")
    return Agents(
        {name: _agent(name, agent) for name, agent in agents.items()}, _aliases(agents, llm), llm
    )


def _require(path: str, wanted: Iterable[str], there_is: Iterable[str], kind: str = "") -> None:
    known = tuple(there_is)
    for name in wanted:
        if name not in known:
            there_are = ", ".join(known) or "none"
            what = kind or path.rpartition(".")[2]
            raise ConfigError(f"{path}: there is no {what} {name!r} (there are: {there_are})")


def _agent(name: str, agent: AgentConfig) -> Agent:
    return Agent(
        name=name,
        llm=agent.llm,
        asr=agent.asr,
        tts=agent.tts,
        voice=agent.voice,
        instructions=agent.instructions,
        instructions_by_language=dict(agent.instructions_by_language.items()),
        greeting=agent.greeting,
        greeting_prompt=agent.greeting_prompt,
        language=agent.language,
        tools=agent.tools,
        knowledge=agent.knowledge,
        search_knowledge=agent.search_knowledge,
        turn_detection=agent.turn_detection.detection if agent.turn_detection else None,
        idle_prompts=agent.idle_prompts.idle_prompts if agent.idle_prompts else None,
        goodbye=agent.goodbye,
        max_duration_ms=round(agent.max_duration_s * 1000) if agent.max_duration_s else None,
        end_conversation=agent.end_conversation,
        remembers=agent.memory == "device",
        record=agent.record,
        filler=agent.filler.filler if agent.filler is not None else None,
        filler_after_ms=agent.filler_after_ms,
        keypad=agent.keypad.keypad if agent.keypad else Keypad(),
        transfers=agent.transfers,
        client_tools=tuple(tool.definition(name) for name, tool in agent.client_tools.items()),
        variables=agent.variables,
    )


def _aliases(agents: Mapping[str, AgentConfig], llm: ServiceNames) -> dict[str, str]:
    """Return the agents by alias.

    A client's ``model`` may be an agent or a chat model, so no name may be both.
    """
    try:
        aliases = aliases_of({name: agent.also for name, agent in agents.items()})
    except ValueError as error:
        raise ConfigError(f"agents.{error}") from None
    for name, agent in {**{name: name for name in agents if name != DEFAULT}, **aliases}.items():
        if name in llm:
            what = "stands for every name already" if name == ANY else "is the name of a chat model"
            raise ConfigError(
                f"agents.{agent}: {name!r} {what}, and a client's model may be either"
            )
    return {**{normalized_name(alias): agent for alias, agent in aliases.items()}, **aliases}
