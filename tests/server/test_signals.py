import asyncio
import os
import signal

import pytest

from voicechat.server.signals import stop_on_signals

pytestmark = pytest.mark.real_time


@pytest.fixture(params=["with handlers", "without"], autouse=True)
def _loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops that handle signals themselves, and such as Windows has."""

    def not_implemented(*_: object) -> None:
        raise NotImplementedError

    if request.param == "without":
        monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", not_implemented)
        monkeypatch.setattr(asyncio.SelectorEventLoop, "remove_signal_handler", not_implemented)


async def test_the_first_signal_asks_to_drain_and_the_second_stops_at_once() -> None:
    reached = []
    with stop_on_signals() as stop:
        stop.may_drain = True
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.requested.wait()
        reached.append("draining")
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        reached.append("drained")
    assert reached == ["draining"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_before_draining_is_possible_a_signal_stops_at_once() -> None:
    reached = []
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        reached.append("started")
    assert reached == []
    assert not stop.requested.is_set()


async def test_a_cancellation_by_others_goes_through() -> None:
    async def serve() -> None:
        with stop_on_signals():
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve())
        await asyncio.sleep(0)
        serving.cancel()
    assert serving.cancelled()


async def test_the_handlers_are_gone_afterwards() -> None:
    with stop_on_signals():
        pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
