"""When the sockets are read while the event loop is late.

Most of what an open microphone costs is the reading of its frames one by one. While the
loop is late, a socket is therefore left alone for a while after it was read, and what
has arrived by then is read at once. Audio of people who are silent waits longest: the
loop reads so many of their sockets as it has time for. What is not read stays in the
system's buffers, whose size the system bounds, and is judged later: nothing is lost.
"""

import asyncio
from typing import Protocol

from voicechat.runtime.loop_lateness import LATE_S, LoopLateness
from voicechat.runtime.speech_scheduler import SpeechScheduler

SPEAKING_S = 0.06
"""How long the socket of somebody who speaks is left alone. A recogniser is given 64 ms
at a time.
"""
ANSWERED_S = 0.15
"""How long the socket of somebody who is being answered is left alone: an interruption
is heard so much later.
"""
SILENT_S = 0.2
"""The shortest time for which the socket of a silent session is left alone."""
LEAST_PER_S = 100.0
"""Silent sockets that are read in a second however late the loop is: 250 silent
sessions are each read every 2.5 s at the latest, which takes a tenth of a core.
"""
MOST_PER_S = 2_000.0
MORE_PER_S = 25.0
"""With each tick that is on time, so many more are read in a second."""


class PausableSocket(Protocol):
    """A socket that can be left unread; see ``Socket``."""

    def pause_reading(self) -> None:
        """Read nothing from the connection until ``resume_reading``."""

    def resume_reading(self) -> None:
        """Read from the connection again."""


class ReadScheduler:
    """The sockets of one process that are left alone. Used on the event loop only."""

    def __init__(self) -> None:
        self.lateness = LoopLateness()
        self.speech = SpeechScheduler()
        self._speaking: dict[PausableSocket, float] = {}
        self._answered: dict[PausableSocket, float] = {}
        self._silent: dict[PausableSocket, float] = {}
        """Paused sockets and when they may be read, in that order."""
        self._silent_per_s = MOST_PER_S
        self._owed = 0.0
        """Silent sockets that may be read now, if it is time for so many."""
        self._ticked_s = 0.0

    @property
    def late(self) -> bool:
        """Whether sockets are to be left alone."""
        return self.lateness.late

    def put_off(self, socket: PausableSocket, *, silent: bool, answered: bool = False) -> None:
        """Leave a socket alone that was just read. Nothing happens if it is already.

        ``silent``: nobody has spoken lately; otherwise ``answered``: the user's turn is
        not open.
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
        """The session has ended: its socket is read until it is closed."""
        for paused in (self._speaking, self._answered, self._silent):
            paused.pop(socket, None)
        socket.resume_reading()

    def tick(self, now_s: float, lag_s: float) -> None:
        """Take the newest lag of the loop, and read the sockets whose time has come.

        Of the silent ones as many as the loop has time for: some more with each tick
        that is on time, half as many after one that is not.
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
        """Read all sockets again: nothing calls ``tick`` any more."""
        for paused in (self._speaking, self._answered, self._silent):
            _resume_due(paused, float("inf"), len(paused))


def _resume_due(paused: dict[PausableSocket, float], now_s: float, most: int) -> int:
    """Read up to ``most`` of the sockets whose time has come, the oldest first; return
    their number.
    """
    for number in range(most):
        socket = next(iter(paused), None)
        if socket is None or paused[socket] > now_s:
            return number
        del paused[socket]
        socket.resume_reading()
    return most
