"""Measures how many conversations this machine holds, with scripted services, real
sockets and real time.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from voicechat.bench.figures import Spread, spread
from voicechat.bench.hands_free import HandsFreeTalker
from voicechat.bench.recognising import synthesised
from voicechat.bench.resource_usage import ResourceUsage, usage_of
from voicechat.bench.script import DELAYS, FRAME, REPLY_AUDIO_MS, SPEECH_MS
from voicechat.bench.server import (
    SCRIPTED,
    BenchServer,
    Cores,
    bench_server,
    running_on,
    separate_cores,
)
from voicechat.bench.stages import Stages, stages_of
from voicechat.bench.talker import TURN_S, Talker, Tally
from voicechat.client import ClientConversation, UpdatedMessage, chat_settings, connect
from voicechat.errors import VoiceChatError

_CYCLE_S = (SPEECH_MS + DELAYS.first_audio_ms + REPLY_AUDIO_MS) / 1000
"""The length of one turn. The users' starts are spread over it evenly."""
HANDS_FREE_SPEECH = "How many conversations?"
LAG_PERIOD_S = 0.05
CLIENT_LAG_MS = 5.0
"""Lag (p99) of the clients' event loop above which the figures are unreliable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What the simulated users of a bench do."""

    sessions: int
    seconds: float
    output: str
    """The audio format of replies."""
    hands_free: bool = False
    """Whether the microphone is always open; else users complete their turns."""
    workers: int = 1
    """Worker processes of the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationFigures:
    """The results of a conversation bench. None: there was nothing to measure, or this
    system does not report it.
    """

    workload: Workload
    cores: Cores
    turns: int
    overhead: Spread | None
    """Latency that the engine added to each turn: the sum of its ``stages``."""
    stages: dict[str, Spread | None]
    """The overhead of each stage; see ``Stages``."""
    first_audio: Spread | None
    """Time to first audio less the scripted delays: ``overhead`` plus
    ``script_late``.
    """
    script_late: Spread | None
    """How late the timers of the scripted services fired."""
    wait: Spread | None
    """Hands-free, in place of the four above: from the end of the user's speech to the
    first audio, including the scripted delays.
    """
    late_audio: Spread | None
    """For each reply, the longest underrun of a player without a jitter buffer."""
    interruption: Spread | None
    stale: int
    lost: int
    late: int
    cpu_s_per_session_minute: float | None
    mib_per_session: float | None
    idle_mib: float | None
    collector_pauses: int | None
    longest_pause_ms: float | None
    client_lag: Spread | None
    """Lag of the clients' event loop, which is part of every figure above."""
    others_cores: float | None
    """CPU time per second of all other processes, clients included."""

    @property
    def sound(self) -> bool:
        """Whether every turn was answered, and no message of a cancelled reply arrived
        after ``canceled``.
        """
        return not self.lost and not self.stale

    @property
    def client_lagged(self) -> bool:
        """Whether the clients lagged too much for the figures to be of use."""
        return self.client_lag is not None and self.client_lag.p99_ms > CLIENT_LAG_MS


async def bench_conversations(work: Workload, on_second: Callable[[], None]) -> ConversationFigures:
    """Run the workload and measure. ``on_second`` is called once a second.

    With several ``workers`` no core is reserved, and garbage collector pauses are not
    reported. Raises BenchError if the server does not start or stop. Cancelling stops
    the server.
    """
    cores = separate_cores() if work.workers == 1 else Cores()
    config = SCRIPTED.replace("workers = 1", f"workers = {work.workers}")
    crowd = _Crowd(work, await _speech() if work.hands_free else [])
    loop = asyncio.get_running_loop()
    async with bench_server(config, cores.server) as server:
        with running_on(cores.client):
            before, begun_s = usage_of(server.pid), loop.time()
            async with asyncio.TaskGroup() as tasks:
                ticking = [
                    tasks.create_task(_tick(on_second)),
                    tasks.create_task(crowd.watch_lag()),
                ]
                talking = tasks.create_task(crowd.talk(server))
                # Measure while the conversations still hold their memory.
                await asyncio.sleep(work.seconds)
                after, took_s = usage_of(server.pid), loop.time() - begun_s
                await talking
                for task in ticking:
                    task.cancel()
    if work.workers > 1:  # the report is the parent's, which serves no conversations
        server.collector_pauses = server.longest_pause_ms = None
    tally = crowd.tally
    return ConversationFigures(
        workload=work,
        cores=cores,
        turns=tally.turns,
        first_audio=spread(tally.overheads_ms),
        **_added(tally, server),
        wait=spread(tally.waits_ms),
        late_audio=spread(tally.late_audio_ms),
        interruption=spread(tally.interruptions_ms),
        stale=tally.stale,
        lost=tally.lost,
        late=tally.late,
        collector_pauses=server.collector_pauses,
        longest_pause_ms=server.longest_pause_ms,
        client_lag=spread(crowd.lags_ms),
        **_costs(before, after, sessions=work.sessions, took_s=took_s),
    )


def _added(tally: Tally, server: BenchServer) -> dict[str, Any]:
    stages = stages_of(tally.answers, server.timestamps)
    late_ms = [
        raw_ms - added.total for raw_ms, added in zip(tally.overheads_ms, stages, strict=True)
    ]
    return {
        "overhead": spread([added.total for added in stages]),
        "stages": {
            field.name: spread([getattr(added, field.name) for added in stages])
            for field in fields(Stages)
        },
        "script_late": spread(late_ms),
    }


def _costs(
    before: ResourceUsage | None, after: ResourceUsage | None, *, sessions: int, took_s: float
) -> dict[str, Any]:
    if before is None or after is None:
        return dict.fromkeys(
            ("cpu_s_per_session_minute", "mib_per_session", "idle_mib", "others_cores")
        )
    cpu_s = after.cpu_s - before.cpu_s
    return {
        "cpu_s_per_session_minute": cpu_s / sessions / (took_s / 60),
        "mib_per_session": (after.anonymous_bytes - before.anonymous_bytes) / sessions / 2**20,
        "idle_mib": before.anonymous_bytes / 2**20,
        "others_cores": (after.machine_busy_s - before.machine_busy_s - cpu_s) / took_s,
    }


class _User(Protocol):
    async def talk_until(self, end_s: float) -> None:
        """Take turns until ``end_s`` (loop time)."""


class _Crowd:
    """All simulated users of a bench, and their results."""

    def __init__(self, work: Workload, speech: Sequence[bytes]) -> None:
        self.tally = Tally()
        self.lags_ms: list[float] = []
        self._work = work
        self._speech = speech
        self._loop = asyncio.get_running_loop()

    async def talk(self, server: BenchServer) -> None:
        """Start the users one after the other and run them until the time is over."""
        work, end_s = self._work, self._loop.time() + self._work.seconds
        async with asyncio.TaskGroup() as users:
            for number in range(work.sessions):
                delay_s = min(_CYCLE_S, work.seconds) * number / work.sessions
                users.create_task(self._visit(server, number, delay_s, end_s))

    async def watch_lag(self) -> None:
        """Record the lag of this process's event loop until cancelled."""
        while True:
            due_s = self._loop.time() + LAG_PERIOD_S
            await asyncio.sleep(LAG_PERIOD_S)
            self.lags_ms.append((self._loop.time() - due_s) * 1000)

    async def _visit(self, server: BenchServer, number: int, delay_s: float, end_s: float) -> None:
        detection: dict[str, object] | None = {} if self._work.hands_free else None
        await asyncio.sleep(delay_s)
        try:
            async with connect(server.url, key=server.key) as conversation:
                await conversation.update(
                    chat_settings(output_format=self._work.output, turn_detection=detection)
                )
                async with asyncio.timeout(TURN_S):
                    while not isinstance(await conversation.receive(), UpdatedMessage):
                        pass
                await self._user(conversation, number).talk_until(end_s)
        except (VoiceChatError, TimeoutError):
            self.tally.lost += 1

    def _user(self, conversation: ClientConversation, number: int) -> _User:
        if self._work.hands_free:
            return HandsFreeTalker(conversation, self.tally, self._speech, self._work.output)
        return Talker(
            conversation, self.tally, output=self._work.output, interrupts_first=number % 2 == 1
        )


async def _speech() -> list[bytes]:
    pcm = await synthesised(HANDS_FREE_SPEECH)
    return [
        pcm[at : at + len(FRAME)]
        for at in range(0, len(pcm) // len(FRAME) * len(FRAME), len(FRAME))
    ]


async def _tick(on_second: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(1)
        on_second()
