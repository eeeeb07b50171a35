"""Runs audio encoders: light ones on the event loop, heavy ones in threads that release
the interpreter lock.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from voicechat.audio.encode import Encoder, Packets, open_encoder
from voicechat.audio.formats import OutputFormat


class EncodingThreads:
    """Threads that all sessions of a process share.

    An encoder belongs to one reply, which awaits each call before the next one, so no
    two threads use the same encoder. Cancelling stops the wait; the thread finishes its
    pieces (about 2 ms), and their result is discarded.
    """

    def __init__(self, threads: int = 2) -> None:
        """Threads start with the first call that needs them."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        self._usual_hz: int | None = None
        """The sample rate of the latest speech. The next reply most likely has the same
        one.
        """
        self._closed = False

    async def open(self, audio_format: OutputFormat) -> Encoder:
        """Open a reply's encoder, ahead of its first audio: LAME and a resampler take 1
        ms each.
        """
        if not audio_format.container.compressed and self._usual_hz in (None, audio_format.rate_hz):
            return open_encoder(audio_format)
        work = partial(open_encoder, audio_format, self._usual_hz)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def encode(
        self, encoder: Encoder, pieces: Sequence[bytes], rate_hz: int, *, at_once: bool = False
    ) -> list[Packets]:
        """Encode each of the ``pieces`` (s16le mono at ``rate_hz``), in order.

        ``at_once``: encode on the event loop, for pieces that delay the listener. 100
        ms of audio encodes in less than 1 ms; a thread hop costs 0.5 ms plus the queue
        in front of it.
        """
        if at_once or not encoder.heavy:
            payloads = _encoded(encoder, pieces, rate_hz)
            self._usual_hz = rate_hz
            return payloads
        work = partial(_encoded, encoder, pieces, rate_hz)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def finish_encoder(self, encoder: Encoder) -> Packets:
        """Return the output that the encoder still holds back."""
        if not encoder.heavy:
            return encoder.finish_stream()
        return await asyncio.get_running_loop().run_in_executor(self._pool, encoder.finish_stream)

    async def run(self, work: Callable[[], bytes]) -> bytes:
        """Run other work on samples in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def measure(self, report: Callable[[float], None]) -> None:
        """Measure how long work waits for a thread, and call ``report`` with the
        seconds, on the event loop. Does nothing after `close`.
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
        """End the threads; waits for pieces that are being encoded."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)


def _encoded(encoder: Encoder, pieces: Sequence[bytes], rate_hz: int) -> list[Packets]:
    return [encoder.encode(pcm, rate_hz) for pcm in pieces]


def _nothing() -> None:
    """Take no time, so that only the wait for a thread is measured."""
