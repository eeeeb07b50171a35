"""The user of the bench against a conversation in memory: what is counted, and as
what.
"""

import asyncio
from collections.abc import Callable

from voicechat.bench.script import DELAYS
from voicechat.bench.talker import INTERRUPT_AT_FRAME, Talker, Tally
from voicechat.client import (
    CanceledMessage,
    CompletedMessage,
    PongMessage,
    ReplyAudioMessage,
    ReplyTextMessage,
    ServerMessage,
    TurnCompletedMessage,
)
from voicechat.client.connection import ConnectionLostError
from voicechat.client.conversation import ClientConversation

OUTPUT = "PCM_16000HZ_MONO_16BIT"
ENGINE_MS = 7
INTERRUPTION_MS = 3


class ScriptedEngine(ClientConversation):
    """Answers like a server whose overhead is ``ENGINE_MS``."""

    def __init__(
        self, *, stale: bool = False, silent: bool = False, speaks_on: bool = True
    ) -> None:
        self.stale = stale
        self.silent = silent
        self.speaks_on = speaks_on
        self.turns = 0
        self._down: asyncio.Queue[ServerMessage] = asyncio.Queue()

    async def send_audio(self, audio: bytes) -> None:
        assert audio

    async def complete(self) -> None:
        self.turns += 1
        self._down.put_nowait(CompletedMessage(0, ""))
        if self.silent:
            return
        reply = f"reply-{self.turns}"
        later((DELAYS.first_audio_ms + ENGINE_MS) / 1000, lambda: self._speak(reply))

    async def cancel(self) -> None:
        reply = f"reply-{self.turns}"
        later(INTERRUPTION_MS / 1000, lambda: self._stop(reply))

    async def ping(self) -> None:
        self._down.put_nowait(PongMessage(0, ""))

    async def receive(self) -> ServerMessage:
        return await self._down.get()

    def _speak(self, reply: str) -> None:
        self._down.put_nowait(ReplyTextMessage(reply, "text"))
        for _ in range(INTERRUPT_AT_FRAME):
            self._down.put_nowait(ReplyAudioMessage(reply, b"audio"))
        if self.speaks_on and self.turns % 2:
            self._down.put_nowait(TurnCompletedMessage(0, ""))

    def _stop(self, reply: str) -> None:
        self._down.put_nowait(CanceledMessage(0, ""))
        if self.stale:
            self._down.put_nowait(ReplyAudioMessage(reply, b"late"))
        self._down.put_nowait(TurnCompletedMessage(0, ""))


def later(delay_s: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(delay_s, call)


async def talked(engine: ClientConversation, seconds: float = 10) -> Tally:
    tally = Tally()
    await Talker(engine, tally, output=OUTPUT).talk_until(
        asyncio.get_running_loop().time() + seconds
    )
    return tally


async def test_overhead_is_what_the_script_does_not_explain() -> None:
    tally = await talked(ScriptedEngine())
    assert tally.turns > 2
    assert {round(overhead_ms) for overhead_ms in tally.overheads_ms} == {ENGINE_MS}
    assert {round(took_ms) for took_ms in tally.interruptions_ms} == {INTERRUPTION_MS}
    assert (tally.lost, tally.stale, tally.late) == (0, 0, 0)


async def test_every_second_turn_is_interrupted() -> None:
    engine = ScriptedEngine()
    tally = await talked(engine, 20)
    assert len(tally.interruptions_ms) == engine.turns // 2 > 1


async def test_some_users_interrupt_at_once() -> None:
    tally = Tally()
    engine = ScriptedEngine(speaks_on=False)
    await Talker(engine, tally, output=OUTPUT, interrupts_first=True).talk_until(
        asyncio.get_running_loop().time() + 1
    )
    assert (tally.turns, len(tally.interruptions_ms)) == (1, 1)


async def test_a_message_of_an_interrupted_reply_after_canceled_is_stale() -> None:
    tally = await talked(ScriptedEngine(stale=True))
    assert tally.stale == len(tally.interruptions_ms) > 0


async def test_a_turn_without_an_answer_is_lost_in_bounded_time() -> None:
    begun_s = asyncio.get_running_loop().time()
    tally = await talked(ScriptedEngine(silent=True), 60)
    assert (tally.lost, tally.turns) == (1, 0)
    assert asyncio.get_running_loop().time() - begun_s < 20


async def test_a_lost_connection_is_a_lost_turn() -> None:
    class Gone(ScriptedEngine):
        async def receive(self) -> ServerMessage:
            raise ConnectionLostError(1006, "")

    assert (await talked(Gone())).lost == 1
