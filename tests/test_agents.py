from datetime import datetime

import pytest

from voicechat.agents import Agents, Arrival, ChosenAgent, normalized_name
from voicechat.errors import RemoteProtocolError, Status
from voicechat.names import ServiceNames
from voicechat.session.agent import Agent

NOBODY_ELSE = Agents()
MANY = Agents(
    {"default": Agent(), "hotel": Agent(name="hotel", llm="big"), "shop": Agent(name="shop")},
    {"gpt-realtime": "hotel", "+49301234": "shop", "aa:bb": "hotel", "1a2b3c4d": "shop"},
    ServiceNames(frozenset({"default", "big"}), {"gpt-4o": "big"}),
)


def chosen(agents: Agents, **arrival: str) -> tuple[str, str]:
    agent = agents.choose_agent(Arrival(**arrival)).agent  # type: ignore[arg-type]
    return agent.name, agent.llm


def test_without_agents_a_conversation_is_what_it_is() -> None:
    assert NOBODY_ELSE.choose_agent(Arrival()) == ChosenAgent(Agent())
    assert NOBODY_ELSE.choose_agent(
        Arrival(model="default", called="+1", device="x", key_id="k")
    ) == ChosenAgent(Agent())


@pytest.mark.parametrize(
    ("arrival", "name", "llm"),
    [
        ({"agent": "hotel"}, "hotel", "big"),
        ({"agent": "gpt-realtime", "called": "+49301234"}, "hotel", "big"),
        ({"agent": "shop", "model": "gpt-4o"}, "shop", "big"),
        ({"agent": "shop", "model": "whatever"}, "shop", "default"),
        ({"model": "hotel"}, "hotel", "big"),
        ({"model": "gpt-realtime", "key_id": "1a2b3c4d"}, "hotel", "big"),
        ({"model": "default"}, "default", "default"),
        ({"model": "big"}, "default", "big"),
        ({"model": "gpt-4o"}, "default", "big"),
        ({"called": "+49 (30) 12-34"}, "shop", "default"),
        ({"called": "+49301234", "device": "aa:bb"}, "shop", "default"),
        ({"called": "+1", "device": "AA:BB"}, "hotel", "big"),
        ({"device": "cc:dd", "key_id": "1a2b3c4d", "model": "default"}, "shop", "default"),
        ({"key_id": "1a2b3c4d", "model": "gpt-4o"}, "shop", "big"),
        ({"key_id": "1a2b3c4d", "model": "Qwen2.5"}, "shop", "default"),
        ({"device": "*"}, "default", "default"),
    ],
)
def test_an_agent_is_found_by_address_model_number_device_and_key(
    arrival: dict[str, str], name: str, llm: str
) -> None:
    assert chosen(MANY, **arrival) == (name, llm)


@pytest.mark.parametrize("arrival", [{"agent": "nobody"}, {"model": "nobody"}])
def test_an_unknown_name_is_refused_where_there_is_a_choice(arrival: dict[str, str]) -> None:
    with pytest.raises(RemoteProtocolError, match=r'"nobody" is not one of .*hotel') as refused:
        MANY.choose_agent(Arrival(**arrival))  # type: ignore[arg-type]
    assert refused.value.status is Status.NOT_FOUND


def test_where_there_is_none_any_name_is_the_default_and_the_client_is_told() -> None:
    for arrival in (Arrival(model="Qwen2.5"), Arrival(agent="Qwen2.5")):
        found = NOBODY_ELSE.choose_agent(arrival)
        assert found.agent == Agent()
        assert '"Qwen2.5" is not configured here; default serves' in found.note


def test_the_star_takes_who_asks_for_nobody_that_is_known() -> None:
    agents = Agents(dict(MANY.agents), {**MANY.aliases, "*": "shop"}, MANY.models)
    assert chosen(agents, model="Qwen2.5") == ("shop", "default")
    assert chosen(agents) == ("shop", "default")
    assert chosen(agents, model="default") == ("default", "default")
    assert chosen(agents, model="big") == ("default", "big")
    assert not agents.choose_agent(Arrival(model="Qwen2.5")).note
    models = Agents(models=ServiceNames(frozenset({"default", "big"}), {"*": "big"}))
    assert chosen(models, model="Qwen2.5") == ("default", "big")


def test_numbers_are_compared_by_their_digits_and_devices_in_small_letters() -> None:
    assert normalized_name("+49 (0)30 / 12-34") == "+490301234"
    assert normalized_name("AA:BB:CC") == "aa:bb:cc"
    assert normalized_name("Qwen2.5") == "qwen2.5"


def test_an_arrivals_values_are_what_it_knows_and_when_it_came() -> None:
    arrival = Arrival(
        called="+49", caller="+1", device="d", variables={"guest": "Li", "caller": "forged"}
    )
    assert arrival.values(datetime(2026, 11, 30, 9, 5)) == {  # noqa: DTZ001 - the clock on the wall
        "guest": "Li",
        "called": "+49",
        "caller": "+1",
        "device": "d",
        "date": "2026-11-30",
        "time": "09:05",
    }
