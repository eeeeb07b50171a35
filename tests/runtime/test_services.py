"""What becomes of services that do not start, and which tools models have."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.interfaces import ChatModel, ChatRequest, TextDelta
from voicechat.runtime.fallback.chat import ChatChain
from voicechat.runtime.fallback.circuit_breaker import CircuitState
from voicechat.runtime.fallback.link import START_S, ChainLink
from voicechat.runtime.fallback.policy import ServicePolicy, StageTimeouts
from voicechat.runtime.services import Services
from voicechat.runtime.tool_function import open_tool
from voicechat.runtime.toolbox import Toolbox
from voicechat.session.agent import Agent
from voicechat.session.types import ToolCall, ToolExchange
from voicechat.testing.scripted import ScriptedModel

NO_FILE = ProviderError("starting", FailureKind.BROKEN, "no model file")


@dataclass
class Starting(ScriptedModel):
    """A model that must be started, and may fail to: with each of ``fails`` in turn;
    None: it hangs.
    """

    fails: list[Exception | None] = field(default_factory=list)
    starts: int = 0
    started: bool = False

    async def start(self) -> None:
        self.starts += 1
        if self.fails:
            failure = self.fails.pop(0)
            if failure is None:
                await asyncio.Event().wait()
            else:
                raise failure
        self.started = True


@dataclass
class StartingProbed(Starting):
    probed: list[bool] = field(default_factory=list)
    """Of each probe, whether it came after the start."""
    well: bool = False

    async def probe(self) -> None:
        self.probed.append(self.started)
        if not self.well:
            raise ProviderError("starting", FailureKind.CONNECTIVITY, "not yet")


def saying(text: str, *fails: Exception | None) -> Starting:
    return Starting(replies=[[text]], fails=list(fails))


def services(**models: ChatModel) -> Services:
    """Each stands in for the one before it."""
    links = [
        ChainLink(f"llm.{name}", model, ServicePolicy(breaker_pause_s=1))
        for name, model in models.items()
    ]
    timeouts = StageTimeouts(first_s=5, between_s=5)
    chains = {
        link.name.removeprefix("llm."): ChatChain(links[at:], timeouts)
        for at, link in enumerate(links)
    }
    return Services({}, chains, {})


async def answer(opened: Services, name: str = "default") -> str:
    parts = opened.models[name].reply(ChatRequest(messages=()))
    return "".join([part.text async for part in parts if isinstance(part, TextDelta)])


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_with_a_fallback_the_server_starts_and_says_who_stands_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    default, spare = saying("first", NO_FILE), saying("second")
    opened = services(default=default, spare=spare)
    await opened.start()
    assert warnings(caplog) == [
        "llm.default did not start; llm.spare answers until it does: starting: broken: no model file"
    ]
    assert await answer(opened) == "second"
    assert not default.requests, "what has not started is not asked"
    assert opened.links[0].failures[FailureKind.BROKEN] == 1
    await opened.aclose()


async def test_it_is_started_again_before_it_is_used_again() -> None:
    default = saying("first", NO_FILE, NO_FILE, NO_FILE)
    opened = services(default=default, spare=saying("second"))
    await opened.start()
    await asyncio.sleep(6.9)
    assert default.starts == 3, "after 1 and 3 s"
    assert await answer(opened) == "second"
    await asyncio.sleep(0.2)
    assert default.starts == 4, "after 7 s"
    assert await answer(opened) == "first"
    assert opened.links[0].breaker.state is CircuitState.CLOSED
    await asyncio.sleep(100)
    assert default.starts == 4, "what has started is not started again"
    await opened.aclose()


async def test_one_that_can_be_probed_is_started_and_then_probed() -> None:
    default = StartingProbed(replies=[["first"]], fails=[NO_FILE, NO_FILE])
    opened = services(default=default, spare=saying("second"))
    await opened.start()
    await asyncio.sleep(20)
    assert default.starts == 3
    assert default.probed
    assert all(default.probed)
    assert await answer(opened) == "second", "it has started, and is not well"
    default.well = True
    await asyncio.sleep(60)
    assert await answer(opened) == "first"
    assert default.starts == 3
    await opened.aclose()


async def test_a_start_that_hangs_when_it_is_tried_again_is_given_up_and_tried_once_more() -> None:
    default = saying("first", NO_FILE, None)
    opened = services(default=default, spare=saying("second"))
    await opened.start()
    await asyncio.sleep(START_S)
    assert await answer(opened) == "second", "its pause is over, but it has not started"
    await asyncio.sleep(2.9)
    assert default.starts == 2
    await asyncio.sleep(0.2)
    assert default.starts == 3
    assert await answer(opened) == "first"
    await opened.aclose()


async def test_what_a_start_must_not_raise_is_survived_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    default = saying("first", OSError("secret"), RuntimeError("secret"))
    opened = services(default=default, spare=saying("second"))
    await opened.start()
    (told,) = warnings(caplog)
    assert "llm.default: broken: its start raised OSError at " in told
    await asyncio.sleep(3.1)
    assert default.starts == 3
    assert await answer(opened) == "first"
    assert "secret" not in caplog.text
    await opened.aclose()


async def test_closing_ends_the_attempts() -> None:
    before = asyncio.all_tasks()
    opened = services(default=saying("first", *[NO_FILE] * 9), spare=saying("second"))
    await opened.start()
    assert asyncio.all_tasks() != before
    await opened.aclose()
    assert asyncio.all_tasks() == before


async def test_without_a_fallback_it_stops_the_start() -> None:
    opened = services(default=saying("first", NO_FILE))
    with pytest.raises(ExceptionGroup) as raised:
        await opened.start()
    assert raised.group_contains(ProviderError, match="no model file")


async def test_a_spare_that_nobody_stands_in_for_stops_the_start_too() -> None:
    opened = services(default=saying("first"), spare=saying("second", NO_FILE))
    with pytest.raises(ExceptionGroup) as raised:
        await opened.start()
    assert raised.group_contains(ProviderError, match="no model file")


async def test_when_nobody_of_a_chain_starts_the_start_stops() -> None:
    before = asyncio.all_tasks()
    links = [
        ChainLink("llm.default", saying("first", NO_FILE)),
        ChainLink("llm.spare", saying("second", NO_FILE)),
    ]
    timeouts = StageTimeouts(first_s=5, between_s=5)
    chains = {"default": ChatChain(links, timeouts), "spare": ChatChain(links[::-1], timeouts)}
    opened = Services({}, chains, {})
    with pytest.raises(ProviderError, match="no model file"):
        await opened.start()
    assert asyncio.all_tasks() == before, "nobody is tried again"
    await opened.aclose()


async def test_wrong_settings_stop_the_start_always() -> None:
    opened = services(
        default=saying("first", ConfigError("voice: there is none")), spare=saying("second")
    )
    with pytest.raises(ExceptionGroup) as raised:
        await opened.start()
    assert raised.group_contains(ConfigError, match="voice")


async def book() -> str:
    """Book a room."""
    raise AssertionError("nobody asks for it")


async def lamp() -> str:
    """Switch a lamp on."""
    raise AssertionError("nobody asks for it")


TOOLBOX = Toolbox({name: open_tool(name, f"{__name__}:{name}") for name in ("book", "lamp")})


@pytest.mark.parametrize(
    ("agent", "names"),
    [
        (Agent(), ["book", "lamp"]),
        (Agent(tools=("book",)), ["book"]),
        (Agent(tools=("book",), end_conversation=True), ["book", "end_conversation"]),
        (Agent(tools=()), []),
    ],
)
async def test_a_model_has_the_tools_of_its_agent(agent: Agent, names: list[str]) -> None:
    model = ScriptedModel()
    services = Services({}, {"default": model}, {}, toolbox=TOOLBOX)
    talking = services.conversation_models(model, agent)("")
    async for _ in talking.reply(ChatRequest(messages=({"role": "user", "content": "hi"},))):
        pass
    offered: Any = model.requests[0].options.get("tools", ())
    assert [tool["function"]["name"] for tool in offered] == names


async def test_a_model_that_ends_the_conversation_is_answered_and_says_its_last_words() -> None:
    call = ToolCall(0, "c", "end_conversation", "{}")
    model = ScriptedModel(((call,), ("Goodbye!",)))
    services = Services({}, {"default": model}, {})
    talking = services.conversation_models(model, Agent(end_conversation=True))("")
    parts = [
        part
        async for part in talking.reply(ChatRequest(messages=({"role": "user", "content": "bye"},)))
    ]
    exchange = next(part for part in parts if isinstance(part, ToolExchange))
    assert exchange.answers[0].tool == "end_conversation"
    assert TextDelta("Goodbye!") in parts
