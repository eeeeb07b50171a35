"""Measures the memory of a conversation, with many conversations in lockstep:
connected, listening, replying, and over.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from voicechat.bench.conversations import Workload
from voicechat.bench.resource_usage import usage_of
from voicechat.bench.script import DELAYS, FRAME, FRAME_MS, SPEECH_MS
from voicechat.bench.server import SCRIPTED, BenchServer, bench_server, running_on, separate_cores
from voicechat.client import (
    ClientConversation,
    TurnCompletedMessage,
    UpdatedMessage,
    chat_settings,
    connect,
)
from voicechat.errors import VoiceChatError

STEP_S = 60.0
"""The timeout of one step of all conversations."""
SETTLE_S = 0.5
CONNECTING = 20
"""Conversations that are opened concurrently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFigures:
    """The results of the bench, in MiB of the server's anonymous memory. None: this
    system does not report it.
    """

    workload: Workload
    base_mib: float | None
    """The server after one whole conversation, which loads everything that sessions
    share.
    """
    connected_mib: float | None
    """Per session, like all figures below. Each is the total of a session by then."""
    listening_mib: float | None
    """After 1 s of audio, while it is recognised."""
    replying_mib: float | None
    """While the reply is synthesised, encoded and sent."""
    over_mib: float | None
    """After the turn, still connected."""
    lost: int

    @property
    def sound(self) -> bool:
        """Whether every turn was answered."""
        return not self.lost


async def bench_memory(work: Workload, on_step: Callable[[], None]) -> MemoryFigures:
    """Take ``work.sessions`` conversations through one turn in lockstep. ``on_step`` is
    called after each of the four steps.

    The turn is push to talk; ``work.seconds`` is ignored. Raises BenchError like
    ``bench_conversations``.
    """
    cores, lost = separate_cores(), 0
    weights_mib: list[float | None] = []
    async with bench_server(SCRIPTED, cores.server) as server:
        with running_on(cores.client):
            async with AsyncExitStack() as stack:
                await _turn(await _opened(stack, server, work))
            await asyncio.sleep(SETTLE_S)
            base_mib = _weight_mib(server)
            async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
                users = await _all_opened(stack, server, work)
                steps = _Steps(users, group)
                for step in (steps.connected, steps.listening, steps.replying, steps.over):
                    async with asyncio.timeout(STEP_S):
                        await step()
                    weights_mib.append(_weight_mib(server))
                    on_step()
                lost = steps.lost
    connected, listening, replying, over = (
        _share(weight_mib, base_mib, work.sessions) for weight_mib in weights_mib
    )
    return MemoryFigures(
        workload=work,
        base_mib=base_mib,
        connected_mib=connected,
        listening_mib=listening,
        replying_mib=replying,
        over_mib=over,
        lost=lost,
    )


class _Steps:
    """The steps, each taken by all conversations at the same time."""

    def __init__(self, users: list[ClientConversation], group: asyncio.TaskGroup) -> None:
        self._users = users
        self._group = group
        self._hearing: list[asyncio.Task[bool]] = []

    @property
    def lost(self) -> int:
        """Conversations whose turn was not answered."""
        return sum(not hearing.result() for hearing in self._hearing)

    async def connected(self) -> None:
        await asyncio.sleep(SETTLE_S)

    async def listening(self) -> None:
        self._hearing = [self._group.create_task(_heard(user)) for user in self._users]
        due_s = asyncio.get_running_loop().time()
        for _ in range(SPEECH_MS // FRAME_MS):
            for user in self._users:
                await user.send_audio(FRAME)
            due_s += FRAME_MS / 1000
            await asyncio.sleep(due_s - asyncio.get_running_loop().time())

    async def replying(self) -> None:
        for user in self._users:
            await user.complete()
        await asyncio.sleep(DELAYS.first_audio_ms / 1000 + SETTLE_S)

    async def over(self) -> None:
        await asyncio.wait(self._hearing)
        await asyncio.sleep(SETTLE_S)


async def _heard(user: ClientConversation) -> bool:
    try:
        while not isinstance(await user.receive(), TurnCompletedMessage):
            pass
    except VoiceChatError:
        return False
    return True


async def _turn(user: ClientConversation) -> None:
    await user.send_audio(FRAME)
    await user.complete()
    async with asyncio.timeout(STEP_S):
        await _heard(user)


async def _all_opened(
    stack: AsyncExitStack, server: BenchServer, work: Workload
) -> list[ClientConversation]:
    users: list[ClientConversation] = []
    while len(users) < work.sessions:
        at_once = min(CONNECTING, work.sessions - len(users))
        users += await asyncio.gather(*(_opened(stack, server, work) for _ in range(at_once)))
    return users


async def _opened(stack: AsyncExitStack, server: BenchServer, work: Workload) -> ClientConversation:
    user = await stack.enter_async_context(connect(server.url, key=server.key))
    await user.update(chat_settings(output_format=work.output))
    async with asyncio.timeout(STEP_S):
        while not isinstance(await user.receive(), UpdatedMessage):
            pass
    return user


def _share(weight_mib: float | None, base_mib: float | None, sessions: int) -> float | None:
    return None if weight_mib is None or base_mib is None else (weight_mib - base_mib) / sessions


def _weight_mib(server: BenchServer) -> float | None:
    usage = usage_of(server.pid)
    return None if usage is None else usage.anonymous_bytes / 2**20
