"""Pictures that the model has drawn: they never hold up the conversation."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

import pytest

from voicechat.dialects.base import Reaction
from voicechat.dialects.drawings import Drawing
from voicechat.errors import ToolError
from voicechat.runtime.drawing import (
    FILLER,
    IN_PROGRESS,
    MAX_PROMPT_CHARACTERS,
    MOST_AT_ONCE,
    NOT_SHOWN,
    SHOWN,
    TOO_MANY,
    DrawingTool,
    SessionDrawings,
)
from voicechat.runtime.services import Services
from voicechat.session.agent import Agent
from voicechat.session.commands import Cancel, CommitTurn
from voicechat.session.notices import ReplyBegun, SentenceBegun, TurnCompleted
from voicechat.session.types import ToolCall
from voicechat.testing.harness import ConversationHarness, DirectDialect
from voicechat.testing.scripted import ScriptedModel

DRAWN = Drawing(id="t1", prompt="a cat", address="http://h/media/t1.png")


def asks(prompt: str = "a cat", name: str = "draw") -> tuple[ToolCall]:
    return (ToolCall(0, "c", name, f'{{"prompt": "{prompt}"}}'),)


@dataclass
class Painter:
    """Draws in ``takes_s``, or fails then."""

    takes_s: float = 1.0
    failure: Exception | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    stopped: int = 0

    async def __call__(self, service: str, prompt: str) -> Drawing:
        self.asked.append((service, prompt))
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self.failure is not None:
            raise self.failure
        return DRAWN


class Screen(DirectDialect):
    """A client that shows pictures."""

    shows_drawings = True

    def __init__(self) -> None:
        self.seen: list[Drawing] = []

    def show_drawing(self, drawing: Drawing, now_ms: int) -> Iterable[Reaction]:
        self.seen.append(drawing)
        return ()


@dataclass
class Studio:
    """A conversation whose model may draw."""

    painter: Painter
    scripted: ScriptedModel
    harness: ConversationHarness
    screen: Screen

    @property
    def told(self) -> list[str]:
        """What the model read of its calls, in its last request."""
        messages: list[Mapping[str, object]] = list(self.scripted.requests[-1].messages)
        return [str(each["content"]) for each in messages if each["role"] == "tool"]


def studio(
    *replies: tuple[str | ToolCall, ...],
    painter: Painter | None = None,
    agent: Agent | None = None,
    shows: bool = True,
) -> Studio:
    painter = painter or Painter()
    scripted = ScriptedModel(replies=replies or (asks(), ("Here it is.",)))
    drawings = SessionDrawings(painter)
    services = Services(
        {}, {"default": scripted}, {}, drawing_tools={"draw": DrawingTool(service="brush")}
    )
    screen = Screen()
    harness = ConversationHarness(
        model=services.for_conversation(scripted, agent, drawings),
        dialect=screen if shows else DirectDialect(),
        drawings=drawings,
    )
    return Studio(painter, scripted, harness, screen)


async def test_a_picture_that_is_finished_soon_is_shown_and_the_model_knows() -> None:
    here = studio()
    async with here.harness as harness:
        harness.send(CommitTurn("Draw a cat"))
        await harness.notice(TurnCompleted)
        assert here.screen.seen == [DRAWN]
    assert here.painter.asked == [("brush", "a cat")]
    assert here.told == [SHOWN]
    (tool,) = cast("list[dict[str, dict[str, object]]]", here.scripted.requests[0].options["tools"])
    assert tool["function"]["name"] == "draw"
    assert cast("dict[str, object]", tool["function"]["parameters"])["required"] == ["prompt"]


async def test_the_conversation_goes_on_while_a_picture_takes_long() -> None:
    here = studio(asks(), ("Soon.",), ("You are welcome.",), painter=Painter(takes_s=60))
    async with here.harness as harness:
        harness.send(CommitTurn("Draw a cat"))
        await harness.notice(TurnCompleted)
        assert here.told == [IN_PROGRESS]
        harness.send(CommitTurn("Thanks"))
        await harness.notice(TurnCompleted, 2)
        assert here.screen.seen == []
        await harness.until(lambda: here.screen.seen)
        assert here.screen.seen == [DRAWN]


async def test_an_interruption_stops_the_reply_at_once_and_not_the_drawing() -> None:
    here = studio(painter=Painter(takes_s=5))
    async with here.harness as harness:
        harness.send(CommitTurn("Draw a cat"))
        await harness.until(lambda: here.painter.asked)
        harness.send(Cancel())
        await harness.notice(TurnCompleted)
        assert here.screen.seen == []
        await harness.until(lambda: here.screen.seen)
    assert here.screen.seen == [DRAWN]
    assert len(here.scripted.requests) == 1


async def test_the_end_of_the_conversation_ends_the_wait() -> None:
    here = studio(painter=Painter(takes_s=600))
    async with here.harness as harness:
        harness.send(CommitTurn("Draw a cat"))
        await harness.until(lambda: here.painter.asked)
    assert (here.painter.stopped, here.screen.seen) == (1, [])


async def test_what_fails_soon_is_told_by_the_model_and_what_fails_late_is_shown() -> None:
    refused = ToolError("the service refused it")
    here = studio(painter=Painter(failure=refused))
    async with here.harness as harness:
        harness.send(CommitTurn("Draw a cat"))
        await harness.notice(TurnCompleted)
    assert here.told == ["The picture could not be drawn: the service refused it"]
    assert here.screen.seen == []

    here = studio(painter=Painter(takes_s=60, failure=refused))
    async with here.harness as harness:
        harness.send(CommitTurn("Draw a cat"))
        await harness.until(lambda: here.screen.seen)
    assert here.screen.seen == [Drawing(id="", prompt="a cat", failure=str(refused))]


async def test_a_fault_of_the_server_does_not_end_the_conversation() -> None:
    here = studio(asks(), ("Sorry.",), ("Hello.",), painter=Painter(failure=KeyError("secret")))
    async with here.harness as harness:
        harness.send(CommitTurn("Draw a cat"))
        await harness.notice(TurnCompleted)
        assert here.told == ["The picture could not be drawn: the server failed"]
        harness.send(CommitTurn("Hi"))
        await harness.notice(TurnCompleted, 2)


async def test_only_so_many_are_drawn_at_once() -> None:
    replies: list[tuple[str | ToolCall, ...]] = [asks(), ("Soon.",)] * (MOST_AT_ONCE + 1)
    here = studio(*replies, painter=Painter(takes_s=3_000))
    async with here.harness as harness:
        for turn in range(MOST_AT_ONCE + 1):
            harness.send(CommitTurn("Draw a cat"))
            await harness.notice(TurnCompleted, turn + 1)
        assert here.told[-2:] == [IN_PROGRESS, TOO_MANY]
        assert len(here.painter.asked) == MOST_AT_ONCE


async def test_a_client_that_shows_no_pictures_is_told_by_voice() -> None:
    here = studio(shows=False)
    async with here.harness as harness:
        harness.send(CommitTurn("Draw a cat"))
        await harness.notice(TurnCompleted)
    assert here.told == [NOT_SHOWN]


@pytest.mark.parametrize(("user", "filler"), [("Draw a cat", FILLER.en), ("画一只猫", FILLER.zh)])
async def test_a_filler_is_spoken_meanwhile(user: str, filler: str) -> None:
    here = studio(painter=Painter(takes_s=8))
    async with here.harness as harness:
        harness.send(CommitTurn(user))
        await harness.notice(SentenceBegun)
        assert (harness.of(SentenceBegun)[0].text, here.screen.seen) == (filler, [])
        await harness.notice(TurnCompleted)
        assert len(harness.of(ReplyBegun)) == 1


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("  ", "prompt: is empty; say what the picture shows"),
        ("x" * (MAX_PROMPT_CHARACTERS + 1), "prompt: 4001 characters are more than 4000"),
    ],
)
async def test_prompts_have_bounds(prompt: str, complaint: str) -> None:
    here = studio(asks(prompt), ("Sorry.",))
    async with here.harness as harness:
        harness.send(CommitTurn("Draw"))
        await harness.notice(TurnCompleted)
    assert here.told == [complaint]
    assert here.painter.asked == []


@pytest.mark.parametrize(
    ("tools", "offered"), [(None, True), (("draw",), True), (("weather",), False), ((), False)]
)
async def test_agents_have_the_tool_that_they_name(
    tools: tuple[str, ...] | None, *, offered: bool
) -> None:
    here = studio(("Hello.",), agent=Agent(tools=tools))
    async with here.harness as harness:
        harness.send(CommitTurn("Hi"))
        await harness.notice(TurnCompleted)
    assert ("tools" in here.scripted.requests[0].options) is offered
