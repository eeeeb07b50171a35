import asyncio
import logging
import threading

import pytest

from voicechat.errors import ToolError
from voicechat.runtime import toolbox as module
from voicechat.runtime.tool_function import open_tool
from voicechat.runtime.toolbox import FAILED, LATE, MAX_ANSWER_CHARACTERS, THREADS, Toolbox
from voicechat.session.types import ToolAnswer, ToolCall, ToolOutcome

HERE = "tests.runtime.test_toolbox"
SECRET = "a secret that no client may hear"
released = threading.Event()
canceled_at_s: list[float] = []


async def slow(wait_s: float) -> str:
    """Wait."""
    try:
        await asyncio.sleep(wait_s)
    except asyncio.CancelledError:
        canceled_at_s.append(asyncio.get_running_loop().time())
        raise
    return "done"


async def stubborn() -> str:
    """Do not react to being cancelled."""
    for _ in range(3):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            continue
    return "done"


async def broken() -> str:
    """Fail."""
    raise RuntimeError(SECRET)


async def unwilling(city: str) -> str:
    """Refuse."""
    raise ToolError(f"no weather is known of {city}")


async def structured(what: str) -> object:
    """Give all sorts of things."""
    return {"dict": {"degrees": 20}, "none": None, "long": "x" * 100_000, "odd": object()}[what]


def in_a_thread(city: str) -> str:
    """Say where it runs."""
    return f"{city} {threading.current_thread() is threading.main_thread()}"


def broken_in_a_thread() -> str:
    """Fail."""
    raise RuntimeError(SECRET)


def blocked() -> str:
    """Wait for the test."""
    released.wait(20)
    return "released"


def toolbox(deadline_s: float = 10.0) -> Toolbox:
    names = (
        "slow",
        "stubborn",
        "broken",
        "unwilling",
        "structured",
        "in_a_thread",
        "broken_in_a_thread",
        "blocked",
    )
    return Toolbox(
        {name: open_tool(name, f"{HERE}:{name}", deadline_s=deadline_s) for name in names}
    )


async def answer(box: Toolbox, name: str, arguments: str = "{}") -> ToolAnswer:
    return await box.start_call(ToolCall(0, "c", name, arguments)).wait_answer()


async def test_an_answer_says_what_it_was_and_how_long_it_took() -> None:
    assert await answer(toolbox(), "slow", '{"wait_s": 2}') == ToolAnswer(
        "done", ToolOutcome.ANSWERED, 2_000, "slow"
    )


async def test_past_its_deadline_a_tool_is_cancelled_and_the_model_told_so() -> None:
    canceled_at_s.clear()
    begun_s = asyncio.get_running_loop().time()
    late = await answer(toolbox(deadline_s=3), "slow", '{"wait_s": 20}')
    assert late == ToolAnswer(LATE, ToolOutcome.TIMEOUT, 3_000, "slow")
    await asyncio.sleep(0)
    assert canceled_at_s == [begun_s + 3]


async def test_a_cancelled_tool_learns_of_it_within_one_turn_of_the_loop() -> None:
    canceled_at_s.clear()
    run = toolbox().start_call(ToolCall(0, "c", "slow", '{"wait_s": 20}'))
    await asyncio.sleep(1)
    run.cancel()
    await asyncio.sleep(0)
    assert canceled_at_s == [asyncio.get_running_loop().time()]


async def test_a_tool_that_does_not_react_to_cancelling_holds_up_nobody() -> None:
    box = toolbox(deadline_s=1)
    assert (await answer(box, "stubborn")).outcome is ToolOutcome.TIMEOUT
    begun_s = asyncio.get_running_loop().time()
    await box.aclose()
    assert asyncio.get_running_loop().time() - begun_s == pytest.approx(module.CLOSE_S)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize(
    "name", ["broken", pytest.param("broken_in_a_thread", marks=pytest.mark.real_time)]
)
async def test_the_text_of_a_failure_stays_inside(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        failed = await answer(toolbox(), name)
    assert (failed.content, failed.outcome) == (FAILED, ToolOutcome.FAILED)
    assert f"tool {name} raised RuntimeError at" in caplog.text
    assert SECRET not in caplog.text


async def test_what_a_tool_says_of_its_failure_and_wrong_arguments_are_told_to_the_model() -> None:
    refused = await answer(toolbox(), "unwilling", '{"city": "Atlantis"}')
    assert (refused.content, refused.outcome) == (
        "no weather is known of Atlantis",
        ToolOutcome.FAILED,
    )
    wrong = await answer(toolbox(), "unwilling", '{"town": "Atlantis"}')
    assert wrong.outcome is ToolOutcome.FAILED
    assert "city" in wrong.content


async def test_what_is_no_text_is_told_as_json_and_what_is_long_is_cut() -> None:
    box = toolbox()
    assert (await answer(box, "structured", '{"what": "dict"}')).content == '{"degrees":20}'
    assert (await answer(box, "structured", '{"what": "none"}')).content == "null"
    long = (await answer(box, "structured", '{"what": "long"}')).content
    assert long == "x" * MAX_ANSWER_CHARACTERS + "... (cut)"
    odd = await answer(box, "structured", '{"what": "odd"}')
    assert odd.outcome is ToolOutcome.FAILED
    assert "JSON" in odd.content


@pytest.mark.real_time
async def test_a_function_that_is_not_asynchronous_runs_in_a_thread() -> None:
    assert (await answer(toolbox(), "in_a_thread", '{"city": "Paris"}')).content == "Paris False"


@pytest.mark.real_time
async def test_threads_are_bounded_and_a_blocked_one_keeps_its_place() -> None:
    released.clear()
    box = toolbox(deadline_s=0.2)
    blocked_runs = [box.start_call(ToolCall(0, "c", "blocked", "{}")) for _ in range(THREADS + 3)]
    late = await asyncio.gather(*(run.wait_answer() for run in blocked_runs))
    assert {done.outcome for done in late} == {ToolOutcome.TIMEOUT}
    assert sum(thread.name == "tool-blocked" for thread in threading.enumerate()) == THREADS
    assert (await answer(box, "in_a_thread", '{"city": "Rome"}')).outcome is ToolOutcome.TIMEOUT
    released.set()
    patient = toolbox_of(box, deadline_s=20)
    assert (await answer(patient, "in_a_thread", '{"city": "Rome"}')).content == "Rome False"
    await box.aclose()


def toolbox_of(box: Toolbox, deadline_s: float) -> Toolbox:
    """The same places for threads, with more patience."""
    other = toolbox(deadline_s)
    other._slots = box._slots
    return other


async def test_closing_cancels_what_still_runs() -> None:
    canceled_at_s.clear()
    box = toolbox()
    box.start_call(ToolCall(0, "c", "slow", '{"wait_s": 20}'))
    await asyncio.sleep(0)
    await box.aclose()
    assert len(canceled_at_s) == 1
