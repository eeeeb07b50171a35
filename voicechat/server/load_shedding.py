"""Admission control and load shedding by measurement.

Five signals show overload before a listener hears it: how busy the event loop and the
process are, how late the event loop is, how long audio waits for an encoder and for
voice detection, and how many streams wait for a slot of a provider. Above a first
threshold replies are no longer begun early (preemptive generation is shed); above a
second one new sessions are refused. Open sessions are never ended. While there are few
sessions none is refused, because a refusal would not help the others.

Lag alone is too late a signal: a loop that is nearly always busy is hardly late until
it has one session too many, and from then on its lag grows every second, even if all
newcomers are refused.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean as mean
from typing import TypeAlias

from voicechat.errors import AtCapacityError
from voicechat.runtime.read_scheduler import ReadScheduler
from voicechat.server.load_signals import (
    BUSY_HYSTERESIS,
    WINDOW_S,
    LoadLevel,
    LoadLimits,
    LoadSignal,
    process_busy_s,
    thread_busy_s,
)
from voicechat.voice.detector import Tick

ReportLag: TypeAlias = Callable[[float], None]

_MEANINGS = {
    LoadLevel.CALM: "there is time again (%s was the last figure that was high)",
    LoadLevel.SHEDDING: "replies are not begun early now: %s is or was high",
    LoadLevel.REFUSING: "newcomers are refused now: %s is high",
}
_log = logging.getLogger(__name__)

SAMPLE_S = 0.02
JUDGE_S = 0.25
BUSY_WINDOW_S = 10.0
"""CPU load is the p90 of 1 s averages over 10 s. A conversation alternates between
quiet and busy on that scale; admitting on a quiet second would overload the busy ones.
"""
HOLD_S = 3.0
"""The level falls by one step after the signals have been clear for 3 s."""
SETTLE_S = 3.0
"""A session counts as new for 3 s: the signals do not contain its load yet, so it is
assumed to need as much as the average of the others.
"""
FEW = 10
"""Below 10 settled sessions there is no meaningful average, and so few sessions do not
keep the process busy.
"""
MOST_LOAD = 10.0
"""The highest load that is reported: lags have no bound of their own."""
CAPACITY_RETRY_S = 5
"""Seconds that a refused client is asked to wait. An estimate: conversations last
longer, load peaks rarely do.
"""


class LoadShedder:
    """The load level of one process. `measuring` keeps it up to date."""

    def __init__(
        self,
        limits: LoadLimits,
        reads: ReadScheduler | None = None,
        *,
        sessions: Callable[[], int] = lambda: 0,
        sessions_by_key: Callable[[], Sequence[int]] = lambda: (),
        waiting_streams: Callable[[], int] = lambda: 0,
        time_encoders: Callable[[ReportLag], None] = lambda _: None,
        on_refused: Callable[[str], None] = lambda _: None,
        busy_s: Sequence[Callable[[], float]] = (thread_busy_s, process_busy_s),
    ) -> None:
        """``reads`` receives each lag of the event loop. ``sessions``: the number of
        open sessions; ``sessions_by_key``: the number for each key, in no order.

        ``on_refused`` is called with the name of the signal that refused a session.

        ``time_encoders`` calls its argument, at some later time, with the seconds that
        work waits for an encoder. ``busy_s``: clocks that advance only while the CPU is
        used; the busiest counts.
        """
        self.on_level: Sequence[Callable[[LoadLevel], None]] = ()
        """Callbacks for each new level."""
        self.on_load: Callable[[float], None] = lambda _: None
        """Called at every judgement with the load: the largest signal as a part of its
        threshold for refusing, at most ``MOST_LOAD``.
        """
        self.level = LoadLevel.CALM
        self._limits = limits
        self._reads = reads or ReadScheduler()
        self._last_second = LoadSignal("busy", limits.busy_percent, mean)
        self._busy = LoadSignal(
            "busy", limits.busy_percent, relief=BUSY_HYSTERESIS, window_s=BUSY_WINDOW_S
        )
        self._loop_lag = LoadSignal("loop_lag", limits.loop_lag_ms)
        self._encoding = LoadSignal("encoding_lag", limits.encoding_lag_ms)
        self._detection = LoadSignal("detection_lag", limits.detection_lag_ms)
        self._waiting = LoadSignal("waiting_streams", limits.waiting_streams)
        self._newcomers_s: deque[float] = deque()
        self._sessions = sessions
        self._sessions_by_key = sessions_by_key
        self._busy_s = busy_s
        self._time_encoders = time_encoders
        self._encoders_timed_s: float | None = None
        """When the measurement of the encoders' lag was started; None if none is
        pending.
        """
        self._waiting_streams = waiting_streams
        self._on_refused = on_refused
        self._calm_since_s = 0.0
        self._worst = self._loop_lag

    def admit_session(self, own: int = 0) -> None:
        """Admit a new session whose key has ``own`` sessions already. Raises
        ``AtCapacityError``.

        If one key has nearly all the sessions, that key causes the load. Sessions of
        other keys are then admitted, up to ``unquestioned_sessions``.
        """
        if self._sessions() < self._limits.unquestioned_sessions:
            return
        now_s = asyncio.get_running_loop().time()
        refusing = self._worst if self.level is LoadLevel.REFUSING else None
        if self._busy.thresholds.level(self._expected_busy(now_s)) is LoadLevel.REFUSING:
            refusing = self._busy
        if refusing is not None and not self._is_of_others(own):
            self._on_refused(refusing.name)
            raise AtCapacityError("the server is busy", CAPACITY_RETRY_S)
        self._newcomers_s.append(now_s)

    def _is_of_others(self, own: int) -> bool:
        """Return whether a key other than the newcomer's has nearly all the
        sessions.
        """
        by_key = self._sessions_by_key()
        most = max(by_key, default=0)
        return own < most and sum(by_key) - most < self._limits.unquestioned_sessions

    def on_detection_batch(self, tick: Tick) -> None:
        """Record the lag of a batch of voice detection."""
        self._detection.add_sample(
            asyncio.get_running_loop().time(), math.inf if tick.lost_ms else tick.lag_ms
        )

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure the running event loop while the context lasts.

        No level is set before the first whole window has been measured.
        """
        loop = asyncio.get_running_loop()
        begun_s = judged_s = loop.time()
        judged_busy_s = [busy_s() for busy_s in self._busy_s]
        timer: asyncio.TimerHandle

        def called(due_s: float) -> None:
            nonlocal judged_s, judged_busy_s, timer
            now_s = loop.time()
            lag_s = max(0.0, now_s - due_s)
            self._loop_lag.add_sample(now_s, lag_s * 1000)
            self._reads.tick(now_s, lag_s)
            self._waiting.add_sample(now_s, self._waiting_streams())
            if now_s - judged_s >= JUDGE_S and now_s - begun_s >= WINDOW_S:
                busy_s = [busy_s() for busy_s in self._busy_s]
                busiest_s = max(
                    now - before for now, before in zip(busy_s, judged_busy_s, strict=True)
                )
                self._last_second.add_sample(now_s, 100 * busiest_s / (now_s - judged_s))
                self._busy.add_sample(now_s, self._last_second.current_value(now_s))
                judged_s, judged_busy_s = now_s, busy_s
                self._ask_encoders(now_s)
                self._judge(now_s)
            timer = loop.call_at(now_s + SAMPLE_S, called, now_s + SAMPLE_S)

        timer = loop.call_at(judged_s + SAMPLE_S, called, judged_s + SAMPLE_S)
        try:
            yield
        finally:
            timer.cancel()
            self._reads.resume_all()

    def _ask_encoders(self, now_s: float) -> None:
        if self._encoders_timed_s is not None:
            self._encoding.add_sample(now_s, (now_s - self._encoders_timed_s) * 1000)
            return
        self._encoders_timed_s = now_s

        def on_measured(lag_s: float) -> None:
            self._encoders_timed_s = None
            self._encoding.add_sample(asyncio.get_running_loop().time(), lag_s * 1000)

        self._time_encoders(on_measured)

    def _judge(self, now_s: float) -> None:
        signals = (self._busy, self._loop_lag, self._encoding, self._detection, self._waiting)
        values = {signal: signal.current_value(now_s) for signal in signals}
        if self._sessions() < FEW:
            values[self._busy] = 0.0
        load = max(value / signal.thresholds.refuse for signal, value in values.items())
        self.on_load(min(load, MOST_LOAD))
        found, worst = max(
            ((signal.thresholds.level(values[signal]), signal) for signal in signals),
            key=lambda pair: pair[0],
        )
        if found is not LoadLevel.CALM:
            self._worst = worst
        if (
            max(signal.thresholds.level(values[signal], signal.hysteresis) for signal in signals)
            >= self.level
        ):
            self._calm_since_s = now_s
        if found > self.level:
            self._set(found, now_s)
        elif self.level and now_s - self._calm_since_s >= HOLD_S:
            self._set(LoadLevel(self.level - 1), now_s)

    def _expected_busy(self, now_s: float) -> float:
        """Return how busy the loop will be once the new sessions need as much as the
        others.
        """
        while self._newcomers_s and self._newcomers_s[0] < now_s - SETTLE_S:
            self._newcomers_s.popleft()
        sessions = self._sessions()
        if sessions < FEW:
            return 0.0
        busy = self._busy.current_value(now_s)
        settled = sessions - len(self._newcomers_s)
        return busy * sessions / settled if settled >= FEW else busy

    def _set(self, level: LoadLevel, now_s: float) -> None:
        _log.log(
            logging.INFO if level < self.level else logging.WARNING,
            _MEANINGS[level],
            self._worst.name,
        )
        self.level = level
        self._calm_since_s = now_s
        for notify in self.on_level:
            notify(level)
