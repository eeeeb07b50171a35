"""Chooses the configured agent that answers a connection. No I/O.

Agents and chat models share the parameter ``model``, so that a client that can set
nothing else can still choose.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from voicechat.errors import RemoteProtocolError
from voicechat.names import ANY, DEFAULT, ServiceNames
from voicechat.session.agent import Agent

_NOT_IN_NUMBERS = re.compile(r"[\s().\-/]")
_NUMBER = re.compile(r"\+?[0-9]{2,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What is known about a connection before its first message; unknown fields are
    empty.
    """

    agent: str = ""
    """The agent that its address names."""
    model: str = ""
    """The requested ``model``: an agent, or a chat model."""
    model_path: str = "model"
    """The protocol's name of that parameter, for error messages."""
    any_model: bool = False
    """Whether a ``model`` that is not known means none: a stock client has its vendor's
    names compiled in.
    """
    key_id: str = ""
    """The id of its key."""
    called: str = ""
    """The number that was called."""
    caller: str = ""
    """The number that calls."""
    device: str = ""
    """The device's id."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further variables that the protocol provides, by name."""

    def values(self, now: datetime) -> dict[str, str]:
        """Return the values of the agents' variables; ``now`` is the server's local
        time.
        """
        return {
            **self.variables,
            "called": self.called,
            "caller": self.caller,
            "device": self.device,
            "date": f"{now:%Y-%m-%d}",
            "time": f"{now:%H:%M}",
        }


@dataclass(frozen=True, slots=True)
class ChosenAgent:
    """The agent that answers."""

    agent: Agent
    note: str = ""
    """A note to the client when a name was unknown; see ``names.ResolvedName``."""


@dataclass(frozen=True, slots=True)
class Agents:
    """All configured agents; one called ``default`` always exists."""

    agents: Mapping[str, Agent] = field(default_factory=lambda: {DEFAULT: Agent()})
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Agents by alias: a model, a telephone number, the id of a device or key, or
    ``names.ANY``.
    """
    models: ServiceNames = field(default_factory=ServiceNames)
    """The chat models, which may be requested instead of an agent."""

    def choose_agent(self, arrival: Arrival) -> ChosenAgent:
        """Return the agent for a connection: the first of the following that exists.

        The address, the ``model``, the number called, the device, the key; then the
        agent with the alias ``*`` where the ``model`` is absent or unknown; then the
        default agent. The name of a chat model as ``model`` only changes which model
        the agent uses. Raises ``RemoteProtocolError`` (NOT_FOUND) when the address or
        the ``model`` is unknown and there is a choice.
        """
        # The address names the agent, and ``model`` may change its LLM.
        if arrival.agent:
            resolved = ServiceNames(frozenset(self.agents), self.aliases).resolve(
                "agent", arrival.agent
            )
            return ChosenAgent(self._with_model(resolved.name, arrival.model), resolved.note)
        # ``default`` is what protocols make every client send, so it chooses nothing.
        if arrival.model != DEFAULT and (asked := self._called(arrival.model)) is not None:
            return ChosenAgent(self.agents[asked])
        # A bound number, device or key chooses the agent; ``model`` may change its LLM.
        for name in (arrival.called, arrival.device, arrival.key_id):
            if (bound := self._called(name)) is not None:
                return ChosenAgent(self._with_model(bound, arrival.model))
        if arrival.model in self.models:
            return ChosenAgent(self._with_model(DEFAULT, arrival.model))
        if not arrival.model or (arrival.any_model and ANY not in self.models.aliases):
            return ChosenAgent(self.agents[self.aliases.get(ANY, DEFAULT)])
        # The ``*`` alias, the only agent and model there is, or an error.
        resolved = self.names.resolve(arrival.model_path, arrival.model)
        if resolved.name in self.agents:
            return ChosenAgent(self.agents[resolved.name], resolved.note)
        return ChosenAgent(self._with_model(DEFAULT, resolved.name))

    def language_of(self, arrival: Arrival) -> str:
        """Return the language of the agent that answers a connection, or of the default
        agent where none does; empty: it is not configured.
        """
        try:
            return self.choose_agent(arrival).agent.language
        except RemoteProtocolError:
            return self.agents[DEFAULT].language

    def find_agent(self, name: str) -> Agent | None:
        """Return the agent with that name or alias; None without one."""
        found = self._called(name)
        return None if found is None else self.agents[found]

    @property
    def names(self) -> ServiceNames:
        """Every valid ``model``: agents and chat models."""
        names = frozenset(self.agents) | self.models.names
        return ServiceNames(names, {**self.models.aliases, **self.aliases})

    def _called(self, name: str) -> str | None:
        """Return the agent with that name or alias, except the alias ``*``; None
        without one.
        """
        if not name or name == ANY:
            return None
        found = (each for each in (name, normalized_name(name)) if each in self.agents)
        return next(found, self.aliases.get(name, self.aliases.get(normalized_name(name))))

    def _with_model(self, name: str, model: str) -> Agent:
        agent = self.agents[name]
        if model == DEFAULT or model not in self.models:
            return agent
        return replace(agent, llm=self.models.resolve("model", model).name)


def normalized_name(name: str) -> str:
    """Return a telephone number as digits only, and any other name in lower case."""
    digits = _NOT_IN_NUMBERS.sub("", name)
    return digits if _NUMBER.fullmatch(digits) else name.lower()
