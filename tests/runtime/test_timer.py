"""The one timer of a session, on the event loop that servers run on."""

import asyncio

import pytest
import uvloop

from voicechat.runtime.conversation import Conversation
from voicechat.session.commands import Alive
from voicechat.session.effects import Effect, Route, RouteAudio
from voicechat.session.events import AudioStarted, Event, Ticked
from voicechat.session.types import InputSettings
from voicechat.testing.harness import ConversationHarness


class DueMachine:
    """Always wants a tick for a time that has come, until it gets it."""

    held_ms = 0

    words_so_far = ""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.ticked = asyncio.Event()

    def receive(self, event: Event, now_ms: int) -> list[Effect]:
        self.seen.append(event)
        if isinstance(event, Ticked):
            self.ticked.set()
        return []

    def deadline_ms(self) -> int | None:
        return None if self.ticked.is_set() else 0


class PacedMachine(DueMachine):
    """Wants a tick every 7 ms."""

    def __init__(self, ticks: int) -> None:
        super().__init__()
        self.asked = 0
        self._ticks = ticks
        self._due_ms = 7

    def receive(self, event: Event, now_ms: int) -> list[Effect]:
        self.seen.append(event)
        if isinstance(event, Ticked):
            assert now_ms >= self._due_ms
            self._due_ms = now_ms + 7
            self._ticks -= 1
            if self._ticks == 0:
                self.ticked.set()
        return []

    def deadline_ms(self) -> int | None:
        self.asked += 1
        return self._due_ms


class RoutingMachine(PacedMachine):
    """The same, and lets audio pass."""

    def receive(self, event: Event, now_ms: int) -> list[Effect]:
        super().receive(event, now_ms)
        return (
            [RouteAudio(Route.SKIP, InputSettings(), 0)] if isinstance(event, AudioStarted) else []
        )


async def tick(machine: DueMachine, *events: Event) -> list[Event]:
    conversation = ConversationHarness(machine=machine).conversation
    for event in events:
        conversation.post(event)
    async with asyncio.timeout(120):
        await machine.ticked.wait()
    return machine.seen


def on_loop(loop_name: str, machine: DueMachine, *events: Event) -> list[Event]:
    with asyncio.Runner(
        loop_factory=uvloop.new_event_loop if loop_name == "uvloop" else None
    ) as runner:
        return runner.run(tick(machine, *events))


@pytest.mark.real_time
@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_a_time_that_has_come_is_a_tick_once(loop_name: str) -> None:
    seen = on_loop(loop_name, DueMachine(), Alive(), Alive())
    assert seen == [Alive(), Alive(), Ticked()]


@pytest.mark.real_time
@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_a_timer_is_not_set_again_because_sums_of_seconds_are_not_exact(
    loop_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_for: list[float] = []
    start_timer = Conversation._start_timer

    def noted(self: Conversation, when_s: float) -> None:
        set_for.append(when_s)
        start_timer(self, when_s)

    monkeypatch.setattr(Conversation, "_start_timer", noted)
    machine = PacedMachine(ticks=50)
    on_loop(loop_name, machine, Alive())
    early = len(set_for) - 1 - 50
    assert early <= 5, "a timer that fires a millisecond before its time is set once more"


async def test_a_tick_tells_of_audio_and_sets_one_timer() -> None:
    ticks = 20
    machine = RoutingMachine(ticks)
    async with ConversationHarness(machine=machine) as harness:
        harness.send_frame(bytes(640))
        await asyncio.sleep(0.001)
        machine.asked = 0
        while not machine.ticked.is_set():
            harness.send_frame(bytes(640))
            await asyncio.sleep(0.001)
        told = [event for event in machine.seen if isinstance(event, Ticked)]
        assert len(told) == ticks
        assert all(tick.audio_ms is not None for tick in told)
        assert machine.asked == ticks, "after the tick, which alone can change it"
