"""Shared by synthesisers that compute in threads: text is cut into short pieces, and
chunks are passed to the event loop.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager

from voicechat.errors import FailureKind, ProviderError

_BREAK = re.compile(r"[^.!?,;:。！？，；：、\s]*[.!?,;:。！？，；：、\s]*")


def pieces(text: str, max_characters: int) -> Iterator[str]:
    """Cut at punctuation or space into pieces of at most ``max_characters`` that
    contain words.
    """
    piece = ""
    for word in _BREAK.findall(text):
        for start in range(0, len(word), max_characters):
            part = word[start : start + max_characters]
            if len(piece) + len(part) > max_characters:
                yield from _if_speakable(piece)
                piece = ""
            piece += part
    yield from _if_speakable(piece)


def _if_speakable(piece: str) -> Iterator[str]:
    if any(char.isalnum() for char in piece):
        yield piece


class ChunkQueue:
    """Passes chunks from a thread to the event loop. Bounded by the length of a piece
    of text.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._wanted = True

    def put_chunk(self, pcm: bytes) -> bool:
        """Queue a chunk, from the thread. Returns False if no more are wanted."""
        return self._wanted and self._hand_over(pcm)

    def put_end(self, _speaking: object) -> None:
        """Queue the end, from the thread."""
        if self._wanted:
            self._hand_over(None)

    def stop(self) -> None:
        """Make the thread stop at its next chunk."""
        self._wanted = False

    async def next_chunk(self) -> bytes | None:
        """Return the next chunk, or None at the end."""
        return await self._queue.get()

    def _hand_over(self, pcm: bytes | None) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, pcm)
        except RuntimeError:  # the loop was closed while the thread was speaking
            return False
        return True


@contextmanager
def speaking(provider: str, submit: Callable[[ChunkQueue], Future[None]]) -> Iterator[ChunkQueue]:
    """Run the synthesis in a thread while the context lasts: ``submit`` starts it with
    the queue for its chunks.

    Raises the error of the work after the last chunk, and `ProviderError` if its
    executor was closed.
    """
    chunks = ChunkQueue()
    work = submit(chunks)
    work.add_done_callback(chunks.put_end)
    try:
        yield chunks
        work.result()
    except CancelledError as error:
        raise ProviderError(provider, FailureKind.CONNECTIVITY, "closed while it spoke") from error
    finally:
        work.cancel()
        chunks.stop()
