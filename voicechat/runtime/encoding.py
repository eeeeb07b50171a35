"""Where encoders run: light ones in place, heavy ones in a few threads that release the
interpreter lock.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from voicechat.audio.encode import Encoder, open_encoder
from voicechat.audio.formats import OutputFormat


class EncodingThreads:
    """Threads shared by all sessions of a process.

    An encoder is used by one reply only, which awaits each piece before it gives the
    next: no two threads ever touch the same one. Cancelling stops waiting; the thread
    finishes its pieces (two milliseconds), and the result is lost.
    """

    def __init__(self, threads: int = 2) -> None:
        """Threads start when they are first needed."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        self._usual_hz: int | None = None
        """The rate at which speech came last: the next reply's will most likely come at
        it too.
        """
        self._closed = False

    async def open(self, audio_format: OutputFormat) -> Encoder:
        """Make a reply's encoder, long before its first audio: LAME and a resampler
        take a millisecond each.
        """
        if not audio_format.container.compressed and self._usual_hz in (None, audio_format.rate_hz):
            return open_encoder(audio_format)
        work = partial(open_encoder, audio_format, self._usual_hz)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def encode(
        self, encoder: Encoder, pieces: Sequence[bytes], rate_hz: int, *, at_once: bool = False
    ) -> list[bytes]:
        """Encode each of the ``pieces``, s16le mono at ``rate_hz``, in order.

        ``at_once``: on the event loop, for pieces that somebody waits for. A tenth of a
        second takes below a millisecond; its way through a thread would take half of
        one more, and all the work that waits there already.
        """
        if at_once or not encoder.heavy:
            payloads = _encoded(encoder, pieces, rate_hz)
            self._usual_hz = rate_hz
            return payloads
        work = partial(_encoded, encoder, pieces, rate_hz)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def finish_encoder(self, encoder: Encoder) -> bytes:
        """What the encoder still holds back."""
        if not encoder.heavy:
            return encoder.finish_stream()
        return await asyncio.get_running_loop().run_in_executor(self._pool, encoder.finish_stream)

    async def run(self, work: Callable[[], bytes]) -> bytes:
        """Have other work on samples done in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def measure(self, report: Callable[[float], None]) -> None:
        """Tell ``report``, on the event loop, how many seconds work waits for a thread.
        After the end: nothing.
        """
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        waiting = loop.run_in_executor(self._pool, _nothing)
        waiting.add_done_callback(
            lambda done: None if done.cancelled() else report(loop.time() - asked_s)
        )

    def close(self) -> None:
        """End the threads; pieces being encoded are waited for."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)


def _encoded(encoder: Encoder, pieces: Sequence[bytes], rate_hz: int) -> list[bytes]:
    return [encoder.encode(pcm, rate_hz) for pcm in pieces]


def _nothing() -> None:
    """Work that takes no time."""
