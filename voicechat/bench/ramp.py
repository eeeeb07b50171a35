"""Measures how many conversations this machine holds: increases the load until a limit
is exceeded.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from voicechat.bench.conversations import CLIENT_LAG_MS, ConversationFigures, Workload

SIZES = (
    1,
    5,
    10,
    20,
    35,
    50,
    75,
    100,
    150,
    200,
    300,
    400,
    600,
    800,
    1_200,
    1_600,
    2_400,
    3_200,
    4_800,
    6_400,
    10_000,
)
OVERHEAD_P99_MS = 50.0
"""Limit of the engine's overhead at p99."""
TRIES = 2
LATE_AUDIO_P99_MS = 20.0
"""Limit of underruns at p99. Beyond it a player needs a jitter buffer."""


@dataclass(frozen=True, slots=True)
class RampStep:
    """One size of the ramp."""

    figures: ConversationFigures

    @property
    def void(self) -> bool:
        """Whether the bench's own clients lagged too much for the figures to describe
        the server.
        """
        return self.figures.client_lagged

    @property
    def broken(self) -> tuple[str, ...]:
        """Descriptions of the exceeded limits."""
        found = self.figures
        broken = []
        if found.overhead is not None and found.overhead.p99_ms > OVERHEAD_P99_MS:
            broken.append(f"overhead p99 over {OVERHEAD_P99_MS:g} ms")
        if found.late_audio is not None and found.late_audio.p99_ms > LATE_AUDIO_P99_MS:
            broken.append(f"audio late by over {LATE_AUDIO_P99_MS:g} ms (p99)")
        if found.lost:
            broken.append(f"{found.lost} turns lost")
        if found.stale:
            broken.append(f"{found.stale} stale messages")
        if not found.turns:
            broken.append("no turn was answered")
        return tuple(broken)

    @property
    def verdict(self) -> str:
        """The step's result for a report."""
        if self.void:
            return f"void: the clients lagged by over {CLIENT_LAG_MS:g} ms (p99)"
        return ", ".join(self.broken) or "holds"


@dataclass(frozen=True, slots=True)
class Ramp:
    """All steps in order. A void step that was repeated appears twice."""

    steps: tuple[RampStep, ...]

    @property
    def sound(self) -> bool:
        """Whether at least one size was held."""
        return self.holds > 0

    @property
    def holds(self) -> int:
        """The largest number of sessions that was held."""
        held = [
            step.figures.workload.sessions
            for step in self.steps
            if not step.void and not step.broken
        ]
        return max(held, default=0)

    @property
    def ended(self) -> str:
        """The reason why the ramp ended."""
        last = self.steps[-1]
        sessions = last.figures.workload.sessions
        if last.void:
            return (
                f"with {sessions} sessions the bench's clients need more than their core: "
                "the server may hold more"
            )
        if last.broken:
            return f"{sessions} sessions are too many: {last.verdict}"
        return f"{sessions} sessions are the most that were asked for"


async def bench_ramp(
    work: Workload,
    measure: Callable[[Workload], Awaitable[ConversationFigures]],
    on_step: Callable[[RampStep], None],
) -> Ramp:
    """Run ``measure`` for increasing sizes up to ``work.sessions``, each on a new
    server.

    A void step is repeated once, since another process may have used the core. The ramp
    ends at the first step that exceeds a limit, or at the second consecutive size that
    is void. Errors and cancellation of ``measure`` propagate.
    """
    steps: list[RampStep] = []
    voids = 0
    for sessions in [size for size in SIZES if size < work.sessions] + [work.sessions]:
        for _ in range(TRIES):
            step = RampStep(await measure(replace(work, sessions=sessions)))
            steps.append(step)
            on_step(step)
            voids = voids + 1 if step.void else 0
            if not step.void:
                break
        if voids == 2 * TRIES or (not voids and steps[-1].broken):
            break
    return Ramp(tuple(steps))
