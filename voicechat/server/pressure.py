"""Admission from measurement: whether this process has time for more, and for work that may be in vain.

Four figures tell, each before a listener can: how much of its time the event loop is busy, how late it is, how long
audio waits for voice detection, and how many streams wait for a place at a provider. At a first threshold replies are
no longer begun early; at a second one newcomers are refused. Those who are in are left alone.

Lag alone tells too late: a loop that is nearly always busy is hardly late until it has one session too many, and from
then on it is later with every second, whoever is refused.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from statistics import fmean as mean

from voicechat.config import AdmissionConfig
from voicechat.errors import AtCapacityError
from voicechat.voice.detector import Tick

SAMPLE_S = 0.02
WINDOW_S = 1.0
"""The figures are of the last second; of what is waited, the worst of nine tenths of it: one pause of the garbage
collector is no pressure."""
JUDGE_S = 0.25
RISE_JUDGEMENTS = 2
"""So many in a row must agree before the level rises: a burst of work at the end of which all is well is none."""
HOLD_S = 3.0
"""The figures must have been good for so long before the level falls, one step at a time..."""
LAG_RELIEF = 0.7
BUSY_RELIEF = 0.95
"""...and good is below this part of the threshold. Without the two, admission would open and shut with each session."""
SETTLE_S = 5.0
"""So long a session is a newcomer: it has not yet shown what it takes, and counts as the others on average."""
FEW = 10
"""Of fewer settled sessions there is no average."""
CAPACITY_RETRY_S = 5
"""What a refused client is told to wait. Nobody knows; a conversation lasts longer, a peak hardly."""


_SCHEDULED = Path("/proc/thread-self/schedstat")


class Level(IntEnum):
    """What there is no time for."""

    CALM = 0
    SHEDDING = 1
    """For replies begun early."""
    REFUSING = 2
    """For newcomers."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on a figure means the second and the third level."""

    shed: float
    refuse: float

    def level(self, value: float, part: float = 1.0) -> Level:
        """The level that ``value`` means when the thresholds are multiplied with ``part``."""
        if value >= self.refuse * part:
            return Level.REFUSING
        return Level.SHEDDING if value >= self.shed * part else Level.CALM


@dataclass(frozen=True, slots=True)
class PressureLimits:
    """The thresholds of the figures."""

    loop_busy_percent: Thresholds
    loop_lag_ms: Thresholds
    detection_lag_ms: Thresholds
    waiting_streams: Thresholds


def pressure_limits(config: AdmissionConfig) -> PressureLimits:
    """Read them from the configuration."""
    return PressureLimits(
        Thresholds(config.loop_busy_shed_percent, config.loop_busy_refuse_percent),
        Thresholds(config.loop_lag_shed_ms, config.loop_lag_refuse_ms),
        Thresholds(config.detection_lag_shed_ms, config.detection_lag_refuse_ms),
        Thresholds(config.waiting_streams_shed, config.waiting_streams_refuse),
    )


def thread_busy_s() -> float:
    """How long this thread has computed, or has wanted to while other programs had the core (Linux; else computed)."""
    with suppress(OSError, ValueError):
        # proc(5): nanoseconds on a core, nanoseconds in the queue for one, turns.
        ran_ns, waited_ns, _ = map(int, _SCHEDULED.read_text().split())
        if ran_ns:
            return (ran_ns + waited_ns) / 1e9
    return time.thread_time()


def nine_tenths(values: Sequence[float]) -> float:
    """What nine tenths of the values do not exceed."""
    return sorted(values)[math.ceil(0.9 * len(values)) - 1]


class Figure:
    """One figure: its samples of the last second."""

    def __init__(
        self,
        name: str,
        thresholds: Thresholds,
        of: Callable[[Sequence[float]], float] = nine_tenths,
        relief: float = LAG_RELIEF,
    ) -> None:
        """``of`` makes one number of the samples, of which there is one at least."""
        self.name = name
        self.thresholds = thresholds
        self.relief = relief
        self._of = of
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, now_s: float, value: float) -> None:
        """Take a sample."""
        self._samples.append((now_s, value))

    def value(self, now_s: float) -> float:
        """The figure; 0 without samples."""
        while self._samples and self._samples[0][0] < now_s - WINDOW_S:
            self._samples.popleft()
        return self._of([value for _, value in self._samples]) if self._samples else 0.0


class Pressure:
    """The level of one process. `measuring` keeps it up to date."""

    def __init__(
        self,
        limits: PressureLimits,
        *,
        sessions: Callable[[], int] = lambda: 0,
        waiting_streams: Callable[[], int] = lambda: 0,
        on_refused: Callable[[str], None] = lambda _: None,
        busy_s: Callable[[], float] = thread_busy_s,
    ) -> None:
        """``sessions``: how many there are. ``on_refused`` is told the figure that refused somebody.

        ``busy_s``: how long the event loop's thread has been busy so far.
        """
        self.on_level: Sequence[Callable[[Level], None]] = ()
        """Who is told each new level."""
        self.level = Level.CALM
        self._busy = Figure("loop_busy", limits.loop_busy_percent, mean, BUSY_RELIEF)
        self._loop_lag = Figure("loop_lag", limits.loop_lag_ms)
        self._detection = Figure("detection_lag", limits.detection_lag_ms)
        self._waiting = Figure("waiting_streams", limits.waiting_streams)
        self._newcomers_s: deque[float] = deque()
        self._sessions = sessions
        self._busy_s = busy_s
        self._waiting_streams = waiting_streams
        self._on_refused = on_refused
        self._risen = 0
        self._calm_since_s = 0.0
        self._worst = self._loop_lag

    def admit(self) -> None:
        """Let a newcomer pass. Raises ``AtCapacityError``."""
        now_s = asyncio.get_running_loop().time()
        refusing = self._worst if self.level is Level.REFUSING else None
        if self._busy.thresholds.level(self._expected_busy(now_s)) is Level.REFUSING:
            refusing = self._busy
        if refusing is not None:
            self._on_refused(refusing.name)
            raise AtCapacityError("the server is busy", CAPACITY_RETRY_S)
        self._newcomers_s.append(now_s)

    def detected(self, tick: Tick) -> None:
        """Take note of a round of voice detection."""
        self._detection.add(asyncio.get_running_loop().time(), math.inf if tick.lost_ms else tick.lag_ms)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure the running event loop while the context lasts."""
        loop = asyncio.get_running_loop()
        judged_s, judged_busy_s = loop.time(), self._busy_s()
        timer: asyncio.TimerHandle

        def called(due_s: float) -> None:
            nonlocal judged_s, judged_busy_s, timer
            now_s = loop.time()
            self._loop_lag.add(now_s, max(0.0, now_s - due_s) * 1000)
            self._waiting.add(now_s, self._waiting_streams())
            if now_s - judged_s >= JUDGE_S:
                busy_s = self._busy_s()
                self._busy.add(now_s, 100 * (busy_s - judged_busy_s) / (now_s - judged_s))
                judged_s, judged_busy_s = now_s, busy_s
                self._judge(now_s)
            timer = loop.call_at(now_s + SAMPLE_S, called, now_s + SAMPLE_S)

        timer = loop.call_at(judged_s + SAMPLE_S, called, judged_s + SAMPLE_S)
        try:
            yield
        finally:
            timer.cancel()

    def _judge(self, now_s: float) -> None:
        figures = (self._busy, self._loop_lag, self._detection, self._waiting)
        values = {figure: figure.value(now_s) for figure in figures}
        found, self._worst = max(
            ((figure.thresholds.level(values[figure]), figure) for figure in figures), key=lambda pair: pair[0]
        )
        self._risen = self._risen + 1 if found > self.level else 0
        if max(figure.thresholds.level(values[figure], figure.relief) for figure in figures) >= self.level:
            self._calm_since_s = now_s
        if self._risen >= RISE_JUDGEMENTS:
            self._set(found, now_s)
        elif self.level and now_s - self._calm_since_s >= HOLD_S:
            self._set(Level(self.level - 1), now_s)

    def _expected_busy(self, now_s: float) -> float:
        """How busy the loop will be when the newcomers take as much as the others."""
        while self._newcomers_s and self._newcomers_s[0] < now_s - SETTLE_S:
            self._newcomers_s.popleft()
        busy, sessions = self._busy.value(now_s), self._sessions()
        settled = sessions - len(self._newcomers_s)
        return busy * sessions / settled if settled >= FEW else busy

    def _set(self, level: Level, now_s: float) -> None:
        self.level = level
        self._risen = 0
        self._calm_since_s = now_s
        for tell in self.on_level:
            tell(level)
