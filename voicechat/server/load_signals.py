"""The load signals of admission control, and their thresholds."""

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
"""Signals cover the last second. Latencies use the 90th percentile so that one GC pause
does not trip them.
"""
LAG_HYSTERESIS = 0.7
BUSY_HYSTERESIS = 0.95
"""Hysteresis: a signal clears below this fraction of its threshold, so that admission
does not flap with each session.
"""

_SCHEDULED = Path("/proc/thread-self/schedstat")


class LoadLevel(IntEnum):
    """The load level of a process."""

    CALM = 0
    SHEDDING = 1
    """Shed optional work: no reply is begun early."""
    REFUSING = 2
    """Refuse new sessions."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The values from which on a signal means SHEDDING and REFUSING."""

    shed: float
    refuse: float

    def level(self, value: float, part: float = 1.0) -> LoadLevel:
        """Return the level that ``value`` means when the thresholds are multiplied by
        ``part``.
        """
        if value >= self.refuse * part:
            return LoadLevel.REFUSING
        return LoadLevel.SHEDDING if value >= self.shed * part else LoadLevel.CALM


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """The thresholds of all signals."""

    unquestioned_sessions: int
    busy_percent: Thresholds
    loop_lag_ms: Thresholds
    encoding_lag_ms: Thresholds
    detection_lag_ms: Thresholds
    waiting_streams: Thresholds


def load_limits(config: AdmissionConfig) -> LoadLimits:
    """Read the thresholds from the configuration."""
    return LoadLimits(
        config.unquestioned_sessions,
        Thresholds(config.busy_shed_percent, config.busy_refuse_percent),
        Thresholds(config.loop_lag_shed_ms, config.loop_lag_refuse_ms),
        Thresholds(config.encoding_lag_shed_ms, config.encoding_lag_refuse_ms),
        Thresholds(config.detection_lag_shed_ms, config.detection_lag_refuse_ms),
        Thresholds(config.waiting_streams_shed, config.waiting_streams_refuse),
    )


def thread_busy_s() -> float:
    """Return the CPU time of this thread in seconds.

    On Linux the time that it waited for a core while other programs ran is included.
    """
    with suppress(OSError, ValueError):
        # proc(5): nanoseconds on a core, nanoseconds in the queue for one, turns.
        ran_ns, waited_ns, _ = map(int, _SCHEDULED.read_text().split())
        if ran_ns:
            return (ran_ns + waited_ns) / 1e9
    return time.thread_time()


def process_busy_s() -> float:
    """Return the CPU time of all threads of this process in seconds, divided by the
    number of cores that are its share of the machine.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return time.process_time() * machine_share().processes / cores


def p90(values: Sequence[float]) -> float:
    """Return the 90th percentile."""
    return sorted(values)[math.ceil(0.9 * len(values)) - 1]


class LoadSignal:
    """One load signal: its samples of the last ``window_s``."""

    def __init__(
        self,
        name: str,
        thresholds: Thresholds,
        of: Callable[[Sequence[float]], float] = p90,
        relief: float = LAG_HYSTERESIS,
        window_s: float = WINDOW_S,
    ) -> None:
        """``of`` reduces the samples of the window, of which there is at least one, to
        one number.
        """
        self.name = name
        self.thresholds = thresholds
        self.hysteresis = relief
        self._of = of
        self._window_s = window_s
        self._samples: deque[tuple[float, float]] = deque()

    def add_sample(self, now_s: float, value: float) -> None:
        """Add a sample."""
        self._samples.append((now_s, value))

    def current_value(self, now_s: float) -> float:
        """Return the signal's value; 0 without samples."""
        while self._samples and self._samples[0][0] < now_s - self._window_s:
            self._samples.popleft()
        return self._of([value for _, value in self._samples]) if self._samples else 0.0
