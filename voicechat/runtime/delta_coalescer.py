"""Delta coalescing: the chat model's small pieces of text are joined before the session
sees them.
"""

import asyncio
from collections.abc import Callable

MAX_DELTA_CHARACTERS = 160
"""Text is posted in pieces of at most this length. Splitting one into sentences takes
about 1 ms, and a model may send its whole answer in one piece.
"""
COALESCE_S = 0.05
"""How long text waits for more while the listener has enough audio. 20 updates a second
look continuous to a reader, and each update costs a message to the client.
"""


class DeltaCoalescer:
    """Joins the deltas of one reply and posts them in order. Text that is pending when
    the reply is cut off is never posted.
    """

    def __init__(self, post: Callable[[str], None]) -> None:
        """``post`` is called with at most ``MAX_DELTA_CHARACTERS`` of text."""
        self._post = post
        self._loop = asyncio.get_running_loop()
        self._pending = ""
        self._timer: asyncio.TimerHandle | None = None

    async def add_text(self, text: str, *, at_once: bool) -> None:
        """Add text of the model. It is posted now if ``at_once``, else at most
        ``COALESCE_S`` later.

        Yields to the event loop between the pieces of a long text.
        """
        self._pending += text
        if not at_once and len(self._pending) <= MAX_DELTA_CHARACTERS:
            if self._timer is None:
                self._timer = self._loop.call_later(COALESCE_S, self.flush)
            return
        while len(self._pending) > MAX_DELTA_CHARACTERS:
            piece, self._pending = (
                self._pending[:MAX_DELTA_CHARACTERS],
                self._pending[MAX_DELTA_CHARACTERS:],
            )
            self._post(piece)
            await asyncio.sleep(0)
        self.flush()

    def flush(self) -> None:
        """Post the pending text. Call it before any other event of the model is posted,
        so that events keep their order.
        """
        self.close()
        if self._pending:
            text, self._pending = self._pending, ""
            self._post(text)

    def close(self) -> None:
        """Cancel the timer. Pending text is not posted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
