"""Who ends when, if a server with many sessions drains. In virtual time."""

import asyncio
from typing import cast

from voicechat.runtime.conversation import Conversation
from voicechat.server.admission import ANNOUNCED_S, SPREAD_S, Admission
from voicechat.server.auth import Principal
from voicechat.session.events import DrainAnnounced, DrainRequested, Event

DRAIN_S = 30.0


class FakeConversation:
    """Ends when it is asked to, after the rest of its turn."""

    def __init__(self, *, announces_end: bool, turn_s: float = 0.0) -> None:
        self.announces_end = announces_end
        self.now_ms = 1_000
        self.left_ms: int | None = None
        """What it was told."""
        self.ended_s = 0.0
        self._turn_s = turn_s
        self._asked = asyncio.Event()

    def post(self, event: Event) -> None:
        if isinstance(event, DrainAnnounced):
            assert not self._asked.is_set()
            self.left_ms = event.left_ms
        if isinstance(event, DrainRequested):
            assert event.deadline_ms == self.now_ms + DRAIN_S * 1000
            self._asked.set()

    async def run(self) -> None:
        await self._asked.wait()
        await asyncio.sleep(self._turn_s)
        self.ended_s = asyncio.get_running_loop().time()


async def drained(*conversations: FakeConversation) -> float:
    """Drain a server with these sessions; gives the seconds that it took."""
    admission, principal = Admission(1_000), Principal("id")

    async def serve(conversation: FakeConversation) -> None:
        async with admission.admitted(principal):
            await admission.serve_conversation(cast(Conversation, conversation), principal)

    async with asyncio.TaskGroup() as serving:
        for conversation in conversations:
            serving.create_task(serve(conversation))
        await asyncio.sleep(0)
        begun_s = asyncio.get_running_loop().time()
        await admission.drain(DRAIN_S)
        took_s = asyncio.get_running_loop().time() - begun_s
    for conversation in conversations:
        conversation.ended_s -= begun_s
    return took_s


async def test_three_hundred_sessions_are_gone_in_seconds_and_not_all_at_once() -> None:
    told = [FakeConversation(announces_end=True) for _ in range(300)]
    took_s = await drained(*told)
    assert took_s <= ANNOUNCED_S + SPREAD_S
    ends_s = sorted(each.ended_s for each in told)
    assert ends_s[0] >= ANNOUNCED_S
    assert max(sum(end <= other < end + 0.1 for other in ends_s) for end in ends_s) <= 20
    for each in told:
        assert each.left_ms is not None
        assert abs(each.left_ms / 1000 - each.ended_s) < 0.01, "as it was told"


async def test_those_who_did_not_ask_end_at_once_and_are_told_nothing() -> None:
    quiet = [FakeConversation(announces_end=False) for _ in range(3)]
    assert await drained(*quiet, FakeConversation(announces_end=True)) == ANNOUNCED_S
    assert [(each.left_ms, each.ended_s) for each in quiet] == [(None, 0.0)] * 3


async def test_a_turn_in_progress_may_end() -> None:
    assert await drained(FakeConversation(announces_end=True, turn_s=8)) == ANNOUNCED_S + 8
