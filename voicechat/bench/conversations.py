"""How many conversations does this machine hold? Scripted services, real sockets, real time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from voicechat.bench.figures import Spread, spread
from voicechat.bench.script import DELAYS, REPLY_AUDIO_MS, SPEECH_MS
from voicechat.bench.server import SCRIPTED, BenchServer, Cores, bench_server, running_on, separate_cores
from voicechat.bench.talker import TURN_S, Talker, Tally
from voicechat.bench.usage import Usage, usage_of
from voicechat.client import Conversation, Updated, chat_settings, connect
from voicechat.errors import VoiceChatError

_CYCLE_S = (SPEECH_MS + DELAYS.first_audio_ms + REPLY_AUDIO_MS) / 1000
"""One turn from end to end: the users begin spread over it, as people would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationFigures:
    """What a bench of conversations found. None: nothing happened to measure it on, or this system does not tell."""

    sessions: int
    seconds: float
    output: str
    cores: Cores
    turns: int
    overhead: Spread | None
    script_late_ms: float | None
    """How late the script's timers were, on average: part of the overhead, though not the engine's."""
    interruption: Spread | None
    stale: int
    lost: int
    late: int
    cpu_s_per_session_minute: float | None
    mib_per_session: float | None
    idle_mib: float | None
    collector_pauses: int | None
    longest_pause_ms: float | None
    others_cores: float | None
    """CPU time per second that programs of no concern to the bench took, its own clients included."""

    @property
    def sound(self) -> bool:
        """Whether every turn was answered, and nothing of an interrupted reply came after its end."""
        return not self.lost and not self.stale


async def bench_conversations(
    sessions: int, seconds: float, output: str, on_second: Callable[[], None], workers: int = 1
) -> ConversationFigures:
    """Hold ``sessions`` conversations for ``seconds`` and measure. ``on_second`` is called as the seconds pass.

    With several ``workers`` everything may run on any core, and what happens inside them is not known. Raises
    BenchError when the server does not start or stop. Cancelling stops the server.
    """
    cores = separate_cores() if workers == 1 else Cores()
    config = SCRIPTED.replace("workers = 1", f"workers = {workers}")
    tally = Tally()
    loop = asyncio.get_running_loop()
    async with bench_server(config, cores.server) as server:
        with running_on(cores.client):
            before, begun_s = usage_of(server.pid), loop.time()
            async with asyncio.TaskGroup() as tasks:
                ticking = tasks.create_task(_tick(on_second))
                crowd = tasks.create_task(_crowd(server, tally, sessions=sessions, seconds=seconds, output=output))
                # Before the conversations end: what they hold is still held.
                await asyncio.sleep(seconds)
                after, took_s = usage_of(server.pid), loop.time() - begun_s
                await crowd
                ticking.cancel()
    if workers > 1:  # the server's account is its parent's, which holds no conversations
        server.script_late_ms = server.collector_pauses = server.longest_pause_ms = None
    return ConversationFigures(
        sessions=sessions,
        seconds=seconds,
        output=output,
        cores=cores,
        turns=tally.turns,
        overhead=spread(tally.overheads_ms),
        script_late_ms=server.script_late_ms,
        interruption=spread(tally.interruptions_ms),
        stale=tally.stale,
        lost=tally.lost,
        late=tally.late,
        collector_pauses=server.collector_pauses,
        longest_pause_ms=server.longest_pause_ms,
        **_costs(before, after, sessions=sessions, took_s=took_s),
    )


def _costs(before: Usage | None, after: Usage | None, *, sessions: int, took_s: float) -> dict[str, float | None]:
    if before is None or after is None:
        return dict.fromkeys(("cpu_s_per_session_minute", "mib_per_session", "idle_mib", "others_cores"))
    cpu_s = after.cpu_s - before.cpu_s
    return {
        "cpu_s_per_session_minute": cpu_s / sessions / (took_s / 60),
        "mib_per_session": (after.anonymous_bytes - before.anonymous_bytes) / sessions / 2**20,
        "idle_mib": before.anonymous_bytes / 2**20,
        "others_cores": (after.machine_busy_s - before.machine_busy_s - cpu_s) / took_s,
    }


async def _crowd(server: BenchServer, tally: Tally, *, sessions: int, seconds: float, output: str) -> None:
    end_s = asyncio.get_running_loop().time() + seconds
    async with asyncio.TaskGroup() as users:
        for number in range(sessions):
            talk = partial(Talker, tally=tally, interrupts_first=number % 2 == 1)
            delay_s = min(_CYCLE_S, seconds) * number / sessions
            users.create_task(_user(server, tally, talk, delay_s=delay_s, end_s=end_s, output=output))


async def _user(
    server: BenchServer,
    tally: Tally,
    talker_on: Callable[[Conversation], Talker],
    *,
    delay_s: float,
    end_s: float,
    output: str,
) -> None:
    await asyncio.sleep(delay_s)
    try:
        async with connect(server.url, key=server.key) as conversation:
            await conversation.update(chat_settings(output_format=output))
            async with asyncio.timeout(TURN_S):
                while not isinstance(await conversation.receive(), Updated):
                    pass
            await talker_on(conversation).talk_until(end_s)
    except (VoiceChatError, TimeoutError):
        tally.lost += 1


async def _tick(on_second: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(1)
        on_second()
