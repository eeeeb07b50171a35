"""Decides when the sockets of open microphones are read.

Most of the cost of an open microphone is reading its frames one at a time. While
nothing can be decided about a session soon, its socket is therefore paused, and what
has arrived is read every second or third tick, the frames of all such sessions
together. As soon as something may be decided, such as the end of the user's turn, data
is read as it arrives again.

While the event loop is late, sockets are read less often still, those of silent users
least: as many of them as the loop has time for. Unread audio stays in the operating
system's bounded buffers and is judged later, so nothing is lost.
"""

import asyncio
from enum import Enum
from typing import Protocol

from voicechat.runtime.loop_lateness import LATE_S, LoopLateness
from voicechat.runtime.speech_scheduler import SpeechScheduler

ACTIVE_S = 0.035
"""How long a socket is not read while the user's turn is open, or a reply is being made
or heard, but nothing is decided soon: two ticks of 20 ms, less what timers vary. Voice
detection judges 32 ms at a time and takes three such frames to find the end of speech,
so it has seen the first of them before the third is complete, and data is read as it
arrives from then on.
"""
QUIET_S = 0.055
"""The same in a longer silence: three ticks. The first speech is heard later by at most
this time, but its age is known, so that nothing that depends on it comes later.
"""
READS_IN_A_ROW = 32
"""Sockets that are read in one callback of the event loop: about 1 ms."""
SPEAKING_S = 0.06
"""How long the socket of a speaking user is not read while the loop is late. A
recogniser receives 64 ms at a time.
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


class Pace(Enum):
    """How often a socket is read. The values are the shortest pauses in seconds."""

    AT_ONCE = 0.0
    """As data arrives."""
    ACTIVE = ACTIVE_S
    QUIET = QUIET_S
    SPEAKING = SPEAKING_S
    """The loop is late, and the user's turn is open."""
    ANSWERED = ANSWERED_S
    """The loop is late, and the user's turn is not open."""
    SILENT = SILENT_S
    """The loop is late, and the user has not spoken lately."""


class PausableReader(Protocol):
    """Reads one socket; see ``SocketReader``. Nothing here raises."""

    def pause(self) -> None:
        """Read nothing from the connection until ``read`` or ``resume``."""

    def read(self) -> Pace:
        """Read what has arrived. Returns when to read again; ``AT_ONCE``: call
        ``resume``.
        """

    def resume(self) -> None:
        """Read data as it arrives again."""


class ReadScheduler:
    """Pauses the sockets of one process. Used on the event loop only."""

    def __init__(self) -> None:
        self.lateness = LoopLateness()
        self.speech = SpeechScheduler()
        self.ticking = False
        """Whether ``tick`` is called, so that readers may be paused."""
        self._paused: dict[Pace, dict[PausableReader, float]] = {
            pace: {} for pace in Pace if pace is not Pace.AT_ONCE
        }
        """By pace, the paused readers and the loop time from which each may read, in
        that order.
        """
        self._silent_per_s = MOST_PER_S
        self._owed = 0.0
        """Number of silent sockets that may be read now, as far as they are due."""
        self._ticked_s = 0.0

    @property
    def late(self) -> bool:
        """Whether the event loop is late."""
        return self.lateness.late

    def put_off(self, reader: PausableReader, pace: Pace) -> None:
        """Pause a reader that has just read. Call it only while ``ticking``, and not
        for a reader that is paused already.
        """
        reader.pause()
        self._paused[pace][reader] = asyncio.get_running_loop().time() + pace.value

    def resume(self, reader: PausableReader) -> None:
        """Resume a reader, if it is paused."""
        for paused in self._paused.values():
            if paused.pop(reader, None) is not None:
                reader.resume()

    def tick(self, now_s: float, lag_s: float) -> None:
        """Record the newest lag of the loop, and read the sockets that are due, some of
        them in later callbacks of the event loop.

        The number of silent sockets is limited: the rate rises by ``MORE_PER_S`` with
        each tick that is on time and is halved after one that is late.
        """
        self.ticking = True
        self.lateness.add_lag(now_s, lag_s)
        if lag_s < LATE_S:
            self._silent_per_s = min(self._silent_per_s + MORE_PER_S, MOST_PER_S)
        else:
            self._silent_per_s = max(self._silent_per_s / 2, LEAST_PER_S)
        silent = self._paused[Pace.SILENT]
        self._owed += self._silent_per_s * (now_s - self._ticked_s)
        self._owed = min(self._owed, len(silent)) if self.late else len(silent)
        self._ticked_s = now_s
        self._read_due()

    def resume_all(self) -> None:
        """Resume all readers, because ``tick`` is not called any more."""
        self.ticking = False
        for paused in self._paused.values():
            for reader in list(paused):
                self.resume(reader)

    def _read_due(self) -> None:
        """Have the readers that are due read, the longest paused of each pace first."""
        left = READS_IN_A_ROW
        for pace, paused in self._paused.items():
            most = left if pace is not Pace.SILENT else min(left, int(self._owed))
            read = self._read_some(paused, most)
            if pace is Pace.SILENT:
                self._owed -= read
            left -= read
        if not left:
            asyncio.get_running_loop().call_soon(self._read_due)

    def _read_some(self, paused: dict[PausableReader, float], most: int) -> int:
        """Have up to ``most`` of the readers that are due read. Returns how many."""
        for number in range(most):
            reader = next(iter(paused), None)
            if reader is None or paused[reader] > self._ticked_s:
                return number
            del paused[reader]
            pace = reader.read()
            if pace is Pace.AT_ONCE:
                reader.resume()
            else:
                self._paused[pace][reader] = self._ticked_s + pace.value
        return most
