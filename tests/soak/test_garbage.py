"""A session that has ended is gone at once: nothing of it refers to itself and waits
for the collector.
"""

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tools.soak.connects import Scene, scene
from tools.soak.visits import ANSWER_S, STATES, Visit, say, until
from voicechat.session.types import TurnDetection

pytestmark = pytest.mark.real_time


async def hands_free(visit: Visit) -> None:
    connection = await visit.converse()
    update = {
        "create_transcription_task_req": {},
        "chat_completion_with_voice_output_req": {
            "chat_completion_req": {},
            "speech_synthesis_req": {},
        },
        "turn_detection": {"type": "server_vad", "threshold": TurnDetection().threshold},
    }
    await say(connection, "chat.update", message=update)
    await until(connection, "chat.updated")
    await connection.send(bytes(32_000))


async def with_an_unread_queue(visit: Visit) -> None:
    """Frames that nobody has received when the connection is lost."""
    connection = await visit.converse()
    for _ in range(200):
        await say(connection, "ping")


@pytest.fixture
async def stage(
    monkeypatch: pytest.MonkeyPatch, objects_are_frozen_again: None
) -> AsyncIterator[Scene]:
    # pytest keeps every log record until the test's end, and with it the frames of its
    # traceback.
    monkeypatch.setattr(logging.getLogger("voicechat"), "propagate", False)
    async with scene(embedded=False) as made:
        gc.freeze()  # what is there already need not be looked at again and again
        yield made


@pytest.mark.parametrize(
    "way",
    [
        "cut",
        pytest.param("closed", marks=pytest.mark.long),
        pytest.param("reset", marks=pytest.mark.long),
    ],
)
async def test_nothing_of_a_session_waits_for_the_collector(way: str, stage: Scene) -> None:
    states = (*STATES, hands_free, with_an_unread_queue)
    await asyncio.gather(*(visit_and_leave(state, way, stage) for state in states))  # fills caches
    left = {}
    for state in states:
        gc.collect()
        gc.disable()
        try:
            await visit_and_leave(state, way, stage)
            await all_gone(stage)
            left[state.__name__] = _garbage()
        finally:
            gc.enable()
    assert {name: garbage for name, garbage in left.items() if garbage} == {}


async def visit_and_leave(
    state: Callable[[Visit], Awaitable[None]], way: str, stage: Scene
) -> None:
    assert stage.server.key is not None
    visit = Visit(stage.server.url, stage.server.key, id(state))
    async with asyncio.timeout(ANSWER_S):
        await state(visit)
        if way == "closed":
            await visit.leave()
        else:
            visit.cut(reset=way == "reset")


async def all_gone(stage: Scene) -> None:
    """Wait until the sessions have ended, and then the tasks of their connections."""
    async with asyncio.timeout(ANSWER_S):
        while stage.server.admission.sessions or stage.provider_streams:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        while any("RequestHandler.start" in repr(task) for task in asyncio.all_tasks()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _garbage() -> Counter[str]:
    """Objects of the server's classes that only a collection has found."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return Counter(
            f"{type(found).__module__}.{type(found).__qualname__}"
            for found in gc.garbage
            if type(found).__module__.startswith(
                ("voicechat.server", "voicechat.runtime", "voicechat.session")
            )
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
