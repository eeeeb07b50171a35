"""Decides when sockets are read while the event loop is late.

Most of the cost of an open microphone is reading its frames one at a time. While the
loop is late, a socket is therefore not read for a while after each read, and the frames
that arrive meanwhile are then read together. Sockets of silent users wait longest: the
loop reads as many of them as it has time for. Unread audio stays in the operating
system's bounded buffers and is judged later, so nothing is lost.
"""

import asyncio
from typing import Protocol

from voicechat.runtime.loop_lateness import LATE_S, LoopLateness
from voicechat.runtime.speech_scheduler import SpeechScheduler

SPEAKING_S = 0.06
"""How long the socket of a speaking user is not read. A recogniser receives 64 ms at a
time.
"""
ANSWERED_S = 0.15
"""How long the socket of a user who is being answered is not read. An interruption is
heard later by at most this time.
"""
SILENT_S = 0.2
"""The shortest time for which the socket of a silent session is not read."""
LEAST_PER_S = 100.0
"""Silent sockets that are read each second however late the loop is. At this rate, 250
silent sessions are each read at least every 2.5 s, which takes a tenth of a core.
"""
MOST_PER_S = 2_000.0
MORE_PER_S = 25.0
"""Increase of that rate with each tick that is on time."""


class PausableSocket(Protocol):
    """A socket whose reading can be paused; see ``Socket``."""

    def pause_reading(self) -> None:
        """Read nothing from the connection until ``resume_reading``."""

    def resume_reading(self) -> None:
        """Read from the connection again."""


class ReadScheduler:
    """Pauses the sockets of one process. Used on the event loop only."""

    def __init__(self) -> None:
        self.lateness = LoopLateness()
        self.speech = SpeechScheduler()
        self._speaking: dict[PausableSocket, float] = {}
        self._answered: dict[PausableSocket, float] = {}
        self._silent: dict[PausableSocket, float] = {}
        """Paused sockets and when they may be read, in that order."""
        self._silent_per_s = MOST_PER_S
        self._owed = 0.0
        """Number of silent sockets that may be read now, as far as they are due."""
        self._ticked_s = 0.0

    @property
    def late(self) -> bool:
        """Whether sockets should be paused after a read."""
        return self.lateness.late

    def put_off(self, socket: PausableSocket, *, silent: bool, answered: bool = False) -> None:
        """Pause a socket that was just read. Does nothing if it is already paused.

        ``silent``: the user has not spoken lately. ``answered``, if not silent: the
        user's turn is not open.
        """
        if socket in self._speaking or socket in self._answered or socket in self._silent:
            return
        now_s = asyncio.get_running_loop().time()
        if silent:
            self._silent[socket] = now_s + SILENT_S
        elif answered:
            self._answered[socket] = now_s + ANSWERED_S
        else:
            self._speaking[socket] = now_s + SPEAKING_S
        socket.pause_reading()

    def forget(self, socket: PausableSocket) -> None:
        """Resume a socket for good, because its session has ended: it is read until it
        is closed.
        """
        for paused in (self._speaking, self._answered, self._silent):
            paused.pop(socket, None)
        socket.resume_reading()

    def tick(self, now_s: float, lag_s: float) -> None:
        """Record the newest lag of the loop, and resume the sockets that are due.

        The number of silent sockets is limited: the rate rises by ``MORE_PER_S`` with
        each tick that is on time and is halved after one that is late.
        """
        self.lateness.add_lag(now_s, lag_s)
        for paused in (self._speaking, self._answered):
            _resume_due(paused, now_s, len(paused))
        if lag_s < LATE_S:
            self._silent_per_s = min(self._silent_per_s + MORE_PER_S, MOST_PER_S)
        else:
            self._silent_per_s = max(self._silent_per_s / 2, LEAST_PER_S)
        self._owed += self._silent_per_s * (now_s - self._ticked_s)
        self._owed = min(self._owed, len(self._silent))
        self._ticked_s = now_s
        most = int(self._owed) if self.late else len(self._silent)
        self._owed -= _resume_due(self._silent, now_s, most)

    def resume_all(self) -> None:
        """Resume all sockets, because ``tick`` is not called any more."""
        for paused in (self._speaking, self._answered, self._silent):
            _resume_due(paused, float("inf"), len(paused))


def _resume_due(paused: dict[PausableSocket, float], now_s: float, most: int) -> int:
    """Resume up to ``most`` of the sockets that are due, oldest first. Returns their
    number.
    """
    for number in range(most):
        socket = next(iter(paused), None)
        if socket is None or paused[socket] > now_s:
            return number
        del paused[socket]
        socket.resume_reading()
    return most
