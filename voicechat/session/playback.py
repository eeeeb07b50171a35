"""Computes how much of a reply the listener has heard: less than was sent."""


class PlaybackClock:
    """Starts with the first audio handed to the socket and advances in real time over
    the audio sent so far.

    When the audio runs out, the clock waits for more, as a player does. A report of the
    client replaces the estimate, and the clock continues from there. Positions are
    milliseconds of the reply's audio.
    """

    def __init__(self) -> None:
        self.sent_ms = 0
        """Media position up to which audio has been handed to the socket."""
        self._position_ms = 0
        self._as_of_ms = 0

    def restore(self, sent_ms: int, heard_ms: int, now_ms: int) -> None:
        """Continue at ``heard_ms`` of ``sent_ms``."""
        self.sent_ms = sent_ms
        self._settle(heard_ms, now_ms)

    def position_ms(self, now_ms: int) -> int:
        """Return the estimated media position at ``now_ms``."""
        return min(self.sent_ms, self._position_ms + now_ms - self._as_of_ms)

    def note_sent(self, end_ms: int, now_ms: int) -> None:
        """Audio up to ``end_ms`` has been handed to the socket."""
        self._settle(self.position_ms(now_ms), now_ms)
        self.sent_ms = max(self.sent_ms, end_ms)

    def note_played(self, played_ms: int, now_ms: int) -> None:
        """The client reports that it has played up to ``played_ms``, which is limited
        to what was sent.
        """
        self._settle(max(0, min(played_ms, self.sent_ms)), now_ms)

    def reaches_ms(self, position_ms: int) -> int:
        """Return when the clock reaches ``position_ms``, provided that this much has
        been sent by then.
        """
        return self._as_of_ms + max(0, position_ms - self._position_ms)

    def _settle(self, position_ms: int, now_ms: int) -> None:
        self._position_ms = position_ms
        self._as_of_ms = now_ms
