"""The one timer of a session, on the event loop that servers run on."""

import asyncio

import pytest
import uvloop

from voicechat.runtime.conversation import Cast, Conversation
from voicechat.runtime.encoding import EncodingThreads
from voicechat.session.effects import Effect, Fact
from voicechat.session.events import Event, PongReceived, Ticked
from voicechat.session.limits import SessionLimits
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer
from voicechat.testing.socket import MemorySocket
from voicechat.wire import speech_chat
from voicechat.wire.dialect import Greeting


class DueMachine:
    """Always wants a tick for a time that has come, until it gets it."""

    held_ms = 0

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


async def tick() -> list[Event]:
    machine, limits = DueMachine(), SessionLimits()
    model, synthesizer = ScriptedModel(), ScriptedSynthesizer()
    facts: list[Fact] = []
    conversation = Conversation(
        machine,
        speech_chat.open_dialect(Greeting()),
        MemorySocket(),
        Cast(
            recognizer=ScriptedRecognizer(), models=lambda _: model, synthesizer=synthesizer, threads=EncodingThreads()
        ),
        limits=limits,
        observe=facts.append,
    )
    conversation.post(PongReceived())
    conversation.post(PongReceived())
    async with asyncio.timeout(5):
        await machine.ticked.wait()
    return machine.seen


@pytest.mark.real_time
@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_a_time_that_has_come_is_a_tick_once(loop_name: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop_name == "uvloop" else None) as runner:
        seen = runner.run(tick())
    assert seen == [PongReceived(), PongReceived(), Ticked()]
