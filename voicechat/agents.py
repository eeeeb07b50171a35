"""Which configured agent answers a connection. No I/O.

Agents and chat models share the parameter ``model``: a client that can say nothing else
can still choose.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from voicechat.names import ANY, DEFAULT, ServiceNames
from voicechat.session.agent import Agent

_NOT_IN_NUMBERS = re.compile(r"[\s().\-/]")
_NUMBER = re.compile(r"\+?[0-9]{2,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What is known about a connection before anything was said on it.

    What is not known is empty.
    """

    agent: str = ""
    """The agent that its address names."""
    model: str = ""
    """The ``model`` that it asks for: an agent, or a chat model."""
    model_path: str = "model"
    """What the protocol calls that parameter; refusals begin with it."""
    key_id: str = ""
    """The id of the key that it was opened with."""
    called: str = ""
    """The number that was called."""
    caller: str = ""
    """The number that calls."""
    device: str = ""
    """The device's id."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What else the protocol lets it say, by name."""

    def values(self, now: datetime) -> dict[str, str]:
        """Give the values of the agents' variables; ``now`` is the time where the
        server stands.
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
    """Who answers."""

    agent: Agent
    note: str = ""
    """What the client is to be told because a name that it used is not known; see
    ``names.ResolvedName``."""


@dataclass(frozen=True, slots=True)
class Agents:
    """All configured agents; one called ``default`` always exists."""

    agents: Mapping[str, Agent] = field(default_factory=lambda: {DEFAULT: Agent()})
    aliases: Mapping[str, str] = field(default_factory=dict)
    """By another name, the agent: of a model, a number, a device's or a key's id, or
    ``names.ANY``."""
    models: ServiceNames = field(default_factory=ServiceNames)
    """The chat models, which may be asked for instead of an agent."""

    def choose_agent(self, arrival: Arrival) -> ChosenAgent:
        """Find who answers a connection: the first of these that is an agent.

        The address, the ``model``, the number called, the device, the key; then the
        agent with the alias ``*`` where the ``model`` is absent or not known; then the
        default agent. A ``model`` that is a chat model's name only changes which model
        answers for the agent. Raises ``RemoteProtocolError`` (NOT_FOUND) when the
        address or the ``model`` names nobody and there is a choice.
        """
        if arrival.agent:
            resolved = ServiceNames(frozenset(self.agents), self.aliases).resolve(
                "agent", arrival.agent
            )
            return ChosenAgent(self._with_model(resolved.name, arrival.model), resolved.note)
        if arrival.model != DEFAULT and (asked := self._called(arrival.model)) is not None:
            return ChosenAgent(self.agents[asked])
        for name in (arrival.called, arrival.device, arrival.key_id):
            if (bound := self._called(name)) is not None:
                return ChosenAgent(self._with_model(bound, arrival.model))
        if arrival.model in self.models:
            return ChosenAgent(self._with_model(DEFAULT, arrival.model))
        if not arrival.model:
            return ChosenAgent(self.agents[self.aliases.get(ANY, DEFAULT)])
        resolved = self.names.resolve(arrival.model_path, arrival.model)
        if resolved.name in self.agents:
            return ChosenAgent(self.agents[resolved.name], resolved.note)
        return ChosenAgent(self._with_model(DEFAULT, resolved.name))

    @property
    def names(self) -> ServiceNames:
        """Everything that a ``model`` may be: agents and chat models."""
        names = frozenset(self.agents) | self.models.names
        return ServiceNames(names, {**self.models.aliases, **self.aliases})

    def _called(self, name: str) -> str | None:
        """Give the agent of that name or alias, but not the one of ``*``; None: there
        is none.
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
    """Write a number as its digits alone, and any other name in small letters."""
    digits = _NOT_IN_NUMBERS.sub("", name)
    return digits if _NUMBER.fullmatch(digits) else name.lower()
