"""The figures that admission goes by, and their thresholds."""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from voicechat.config import AdmissionConfig
from voicechat.processes.machine_share import machine_share

WINDOW_S = 1.0
"""The figures are of the last second; of what is waited, the worst of nine tenths of
it: one pause of the garbage collector is no pressure.
"""
LAG_HYSTERESIS = 0.7
BUSY_HYSTERESIS = 0.95
"""A figure is good again below this part of its threshold. Else admission would open
and shut with each session.
"""

_SCHEDULED = Path("/proc/thread-self/schedstat")


class LoadLevel(IntEnum):
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

    def level(self, value: float, part: float = 1.0) -> LoadLevel:
        """The level that ``value`` means when the thresholds are multiplied with
        ``part``.
        """
        if value >= self.refuse * part:
            return LoadLevel.REFUSING
        return LoadLevel.SHEDDING if value >= self.shed * part else LoadLevel.CALM


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """The thresholds of the figures."""

    unquestioned_sessions: int
    busy_percent: Thresholds
    loop_lag_ms: Thresholds
    encoding_lag_ms: Thresholds
    detection_lag_ms: Thresholds
    waiting_streams: Thresholds


def load_limits(config: AdmissionConfig) -> LoadLimits:
    """Read them from the configuration."""
    return LoadLimits(
        config.unquestioned_sessions,
        Thresholds(config.busy_shed_percent, config.busy_refuse_percent),
        Thresholds(config.loop_lag_shed_ms, config.loop_lag_refuse_ms),
        Thresholds(config.encoding_lag_shed_ms, config.encoding_lag_refuse_ms),
        Thresholds(config.detection_lag_shed_ms, config.detection_lag_refuse_ms),
        Thresholds(config.waiting_streams_shed, config.waiting_streams_refuse),
    )


def thread_busy_s() -> float:
    """How long this thread has computed, or has wanted to while other programs had the
    core (Linux; else computed).
    """
    with suppress(OSError, ValueError):
        # proc(5): nanoseconds on a core, nanoseconds in the queue for one, turns.
        ran_ns, waited_ns, _ = map(int, _SCHEDULED.read_text().split())
        if ran_ns:
            return (ran_ns + waited_ns) / 1e9
    return time.thread_time()


def process_busy_s() -> float:
    """How long all threads of this process have computed so far, on one core if its
    part of the machine were one.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return time.process_time() * machine_share().processes / cores


def p90(values: Sequence[float]) -> float:
    """What nine tenths of the values do not exceed."""
    return sorted(values)[math.ceil(0.9 * len(values)) - 1]


class LoadSignal:
    """One figure: its samples of the last second, or of longer."""

    def __init__(
        self,
        name: str,
        thresholds: Thresholds,
        of: Callable[[Sequence[float]], float] = p90,
        relief: float = LAG_HYSTERESIS,
        window_s: float = WINDOW_S,
    ) -> None:
        """``of`` makes one number of the samples of ``window_s``, of which there is one
        at least.
        """
        self.name = name
        self.thresholds = thresholds
        self.hysteresis = relief
        self._of = of
        self._window_s = window_s
        self._samples: deque[tuple[float, float]] = deque()

    def add_sample(self, now_s: float, value: float) -> None:
        """Take a sample."""
        self._samples.append((now_s, value))

    def current_value(self, now_s: float) -> float:
        """The figure; 0 without samples."""
        while self._samples and self._samples[0][0] < now_s - self._window_s:
            self._samples.popleft()
        return self._of([value for _, value in self._samples]) if self._samples else 0.0
