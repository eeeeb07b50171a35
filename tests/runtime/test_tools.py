"""Tools on the real runtime, in virtual time: the client's and the server's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from voicechat.audio.encode import Encoder, Packets
from voicechat.providers.interfaces import ChatRequest, ReplyPart, TextDelta
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.hidden_text_filter import HiddenTextFilter
from voicechat.runtime.reply_task import ReplyTask
from voicechat.runtime.tool_calling import ToolCallingModel
from voicechat.runtime.tool_function import open_tool
from voicechat.runtime.toolbox import LATE, Toolbox
from voicechat.session.commands import AnswerTool, Cancel, CommitTurn
from voicechat.session.effects import StartReply, ToolEnded, TurnEnded
from voicechat.session.events import Event, ReplyFailed, ReplyTextArrived, ReplyTextEnded, ToolsUsed
from voicechat.session.filler import Filler
from voicechat.session.notices import (
    Failed,
    Outcome,
    Rejected,
    ReplyAudio,
    ReplyAudioFinished,
    ReplyText,
    ReplyTextFinished,
    ReplyToolCall,
    TurnCompleted,
    Why,
)
from voicechat.session.tool_calls import NO_ANSWER_IN_TIME
from voicechat.session.types import (
    ChatSettings,
    Settings,
    ToolCall,
    ToolOutcome,
    VoiceSettings,
)
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.scripted import ScriptedModel, ScriptedSynthesizer

HERE = "tests.runtime.test_tools"
CALL = ToolCall(0, "c0", "weather", '{"city": "Paris"}')
CLIENTS_TOOLS = Settings(chat=ChatSettings(answers_tools=True))
begun: list[str] = []


async def weather(city: str, wait_s: float = 0) -> str:
    """Tell the weather."""
    begun.append(city)
    await asyncio.sleep(wait_s)
    return f"20 degrees in {city}"


def with_tools(model: ScriptedModel, deadline_s: float = 60, filler: Filler | None = None) -> Any:
    """The model as it serves conversations; its stage counts what is open of the
    scripted one.
    """
    tool = open_tool("weather", f"{HERE}:weather", deadline_s=deadline_s, filler=filler)
    outer: Any = ToolCallingModel(model, Toolbox({"weather": tool}))
    outer.open = 0
    return outer


def answers(stage: ScriptedHarness, call_id: str, content: str) -> None:
    stage.send(AnswerTool(call_id, content))


def asks(stage: ScriptedHarness, text: str = "Is it warm in Paris?") -> None:
    stage.send(CommitTurn(text))


async def test_the_clients_answer_is_spoken_in_the_same_stream_of_audio() -> None:
    model = ScriptedModel(replies=[("Let me look", CALL), ("It is 20 degrees.",)])
    async with ScriptedHarness(model=model, settings=CLIENTS_TOOLS) as stage:
        asks(stage)
        called = await stage.notice(ReplyTextFinished)
        assert called.finish_reason == "tool_calls"
        await stage.notice(ReplyAudio)
        answers(stage, "c0", "20")
        await stage.notice(TurnCompleted)
    assert stage.synthesizer.texts == ["Let me look", "It is 20 degrees."]
    assert len(stage.of(ReplyAudioFinished)) == len(stage.of(TurnCompleted)) == 1
    assert {told.reply for told in stage.of(ReplyAudio)} == {called.reply}
    assert stage.model.requests[1].messages[-1] == {
        "role": "tool",
        "tool_call_id": "c0",
        "content": "20",
    }


async def test_the_model_is_asked_at_once_although_the_audio_before_it_is_still_being_made() -> (
    None
):
    model = ScriptedModel(replies=[("Let me look at that for you.", CALL), ("It is 20 degrees.",)])
    synthesizer = ScriptedSynthesizer(first_ms=2_000)
    async with ScriptedHarness(
        model=model, settings=CLIENTS_TOOLS, synthesizer=synthesizer
    ) as stage:
        asks(stage)
        await stage.notice(ReplyTextFinished)
        answers(stage, "c0", "20")
        await stage.notice(ReplyTextFinished, 2)
        assert stage.of(ReplyAudio) == []
        await stage.notice(TurnCompleted)


async def test_a_client_that_does_not_answer_gets_a_reply_all_the_same() -> None:
    model = ScriptedModel(replies=[(CALL,), ("I cannot say.",)])
    async with ScriptedHarness(model=model, settings=CLIENTS_TOOLS) as stage:
        begun_s = asyncio.get_running_loop().time()
        asks(stage)
        await asyncio.sleep(29)
        await stage.notice(TurnCompleted)
        assert 30 <= asyncio.get_running_loop().time() - begun_s < 32
    assert stage.model.requests[1].messages[-1]["content"] == NO_ANSWER_IN_TIME
    assert [fact.outcome for fact in stage.facts if isinstance(fact, ToolEnded)] == [
        ToolOutcome.TIMEOUT
    ]


async def test_waiting_for_the_client_holds_no_request_open_and_can_be_cancelled() -> None:
    model = ScriptedModel(replies=[(CALL,), ("All right.",)])
    async with ScriptedHarness(model=model, settings=CLIENTS_TOOLS) as stage:
        asks(stage)
        await stage.notice(ReplyTextFinished)
        await asyncio.sleep(20)
        assert stage.model.open == 0
        stage.send(Cancel())
        await stage.notice(TurnCompleted)
        answers(stage, "c0", "20")
        refused = await stage.notice(Rejected)
        assert refused.why is Why.NO_CALL
        assert "'c0'" in refused.message
        asks(stage, "Never mind.")
        await stage.notice(TurnCompleted, 2)
    assert len(stage.model.requests) == 2, "the late answer asked for nothing"


async def test_the_servers_tool_is_not_told_to_the_client_and_is_remembered() -> None:
    inner = ScriptedModel(replies=[("Let me look", CALL), ("It is warm.",), ("You are welcome.",)])
    async with ScriptedHarness(model=with_tools(inner)) as stage:
        asks(stage)
        await stage.notice(TurnCompleted)
        asks(stage, "Thanks.")
        await stage.notice(TurnCompleted, 2)
    assert not stage.of(ReplyToolCall)
    assert "".join(told.text for told in stage.of(ReplyText)[:3]) == "Let me look\nIt is warm."
    assert stage.synthesizer.texts[:2] == ["Let me look", "It is warm."]
    said = [(m["role"], m["content"]) for m in inner.requests[2].messages]
    assert said == [
        ("user", "Is it warm in Paris?"),
        ("assistant", "Let me look"),
        ("tool", "20 degrees in Paris"),
        ("assistant", "It is warm."),
        ("user", "Thanks."),
    ]
    assert ToolEnded("weather", ToolOutcome.ANSWERED, 0) in stage.facts


async def test_a_slow_tool_does_not_make_the_model_late_and_a_filler_is_heard_meanwhile() -> None:
    slow = replace(CALL, arguments='{"city": "Paris", "wait_s": 40}')
    inner = ScriptedModel(replies=[(slow,), ("It is warm.",)])
    async with ScriptedHarness(model=with_tools(inner, filler=Filler(en="Let me look."))) as stage:
        asks(stage)
        await asyncio.sleep(3)
        assert stage.synthesizer.texts == ["Let me look."]
        assert stage.of(ReplyAudio)
        await asyncio.sleep(36)
        await stage.notice(TurnCompleted)
    assert stage.of(Failed) == []
    assert [fact.outcome for fact in stage.facts if isinstance(fact, TurnEnded)] == [Outcome.SPOKEN]


async def test_a_tool_past_its_own_deadline_is_told_to_the_model_and_the_reply_goes_on() -> None:
    slow = replace(CALL, arguments='{"city": "Paris", "wait_s": 40}')
    inner = ScriptedModel(replies=[(slow,), ("I cannot say.",)])
    async with ScriptedHarness(model=with_tools(inner, deadline_s=25)) as stage:
        asks(stage)
        await asyncio.sleep(24)
        await stage.notice(TurnCompleted)
    assert inner.requests[1].messages[-1]["content"] == LATE
    assert ToolEnded("weather", ToolOutcome.TIMEOUT, 25_000) in stage.facts


async def test_interrupting_a_reply_stops_its_tool() -> None:
    slow = replace(CALL, arguments='{"city": "Paris", "wait_s": 40}')
    async with ScriptedHarness(model=with_tools(ScriptedModel(replies=[(slow,)]))) as stage:
        asks(stage)
        await asyncio.sleep(2)
        assert "tool-weather" in {task.get_name() for task in asyncio.all_tasks()}
        stage.send(Cancel())
        await stage.notice(TurnCompleted)
        assert "tool-weather" not in {task.get_name() for task in asyncio.all_tasks()}


class BareSamples(EncodingThreads):
    async def encode(
        self, encoder: Encoder, pieces: Sequence[bytes], rate_hz: int, *, at_once: bool = False
    ) -> list[Packets]:
        return [(pcm,) for pcm in pieces]


def a_turn(model: Any, posted: list[Event], *, preemptive: bool = False) -> ReplyTask:
    start = StartReply(
        1,
        ({"role": "user", "content": "Is it warm?"},),
        ChatSettings(),
        VoiceSettings(format="PCM_16000HZ_MONO_16BIT"),
        preemptive=preemptive,
    )

    def post(event: Event) -> None:
        posted.append(event)
        if isinstance(event, ReplyTextEnded | ReplyFailed):
            turn.finish_speech()

    async def room() -> None:
        pass

    turn = ReplyTask(
        start, model, ScriptedSynthesizer(), threads=BareSamples(), post=post, room=room
    )
    return turn


async def test_tools_of_a_reply_begun_early_wait_until_it_is_adopted() -> None:
    begun.clear()
    posted: list[Event] = []
    turn = a_turn(
        with_tools(ScriptedModel(replies=[(CALL,), ("It is warm.",)])), posted, preemptive=True
    )
    running = asyncio.get_running_loop().create_task(turn.run())
    await asyncio.sleep(60)
    assert begun == []
    assert posted == [], "waiting is not the model's fault"
    turn.adopt()
    await running
    assert begun == ["Paris"]
    assert [type(event) for event in posted[:3]] == [ToolsUsed, ReplyTextArrived, ReplyTextEnded]


async def test_a_model_that_calls_without_end_is_stopped() -> None:
    class Endless:
        async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
            number = 0
            while True:
                yield ToolCall(number, f"c{number}", "f", "")
                number += 1

    posted: list[Event] = []
    await a_turn(Endless(), posted).run()
    (ended,) = (event for event in posted if isinstance(event, ReplyTextEnded))
    assert ended.finish_reason == "length"


async def test_a_model_that_thinks_without_end_is_stopped() -> None:
    class Endless:
        async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
            yield TextDelta("Well. ")
            while True:
                yield TextDelta("<plan>" + "x" * 1_000)

    posted: list[Event] = []
    await a_turn(HiddenTextFilter(Endless(), ("plan",)), posted).run()
    (ended,) = (event for event in posted if isinstance(event, ReplyTextEnded))
    assert ended.finish_reason == "length"


@pytest.mark.parametrize(
    ("text", "failed"),
    [("...", True), (" *** ", True), ("\N{THUMBS UP SIGN}", False), ("好", False)],
)
async def test_a_reply_that_says_nothing_is_a_failure(text: str, failed: bool) -> None:
    posted: list[Event] = []
    await a_turn(ScriptedModel(replies=[(text,)]), posted).run()
    assert any(isinstance(event, ReplyFailed) for event in posted) is failed
