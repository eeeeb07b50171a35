"""What the chat model says, on its way to the session."""

import asyncio
from collections.abc import Callable

TELL_CHARACTERS = 160
"""Text that is split into sentences at once: a millisecond's work; a model that gives
all in one piece has more.
"""
GATHER_S = 0.05
"""How long text waits for more while the listener has enough to hear: twenty times a
second looks steady to a reader, and each time is a message with all its way.
"""


class DeltaCoalescer:
    """Text goes in as the model gives it, and comes out in order. What waits when a
    reply is cut off is never told.
    """

    def __init__(self, post: Callable[[str], None]) -> None:
        """``post`` is given the text, at most ``TELL_CHARACTERS`` at once."""
        self._post = post
        self._loop = asyncio.get_running_loop()
        self._gathered = ""
        self._timer: asyncio.TimerHandle | None = None

    async def add_text(self, text: str, *, at_once: bool) -> None:
        """The model said ``text``. Unless it is wanted ``at_once`` it may be told up to
        ``GATHER_S`` later.
        """
        self._gathered += text
        if not at_once and len(self._gathered) <= TELL_CHARACTERS:
            if self._timer is None:
                self._timer = self._loop.call_later(GATHER_S, self.flush)
            return
        while len(self._gathered) > TELL_CHARACTERS:
            piece, self._gathered = (
                self._gathered[:TELL_CHARACTERS],
                self._gathered[TELL_CHARACTERS:],
            )
            self._post(piece)
            await asyncio.sleep(0)
        self.flush()

    def flush(self) -> None:
        """Post what was gathered. What else the model does comes after what it said
        before.
        """
        self.close()
        if self._gathered:
            text, self._gathered = self._gathered, ""
            self._post(text)

    def close(self) -> None:
        """Nothing is told by itself any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
