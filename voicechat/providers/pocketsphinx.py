"""The embedded recogniser: PocketSphinx (American English, from the wheel, offline) in
child processes.

Its quality is limited: about every third word of clean read prose is wrong. Commands
and short phrases are recognised better.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

from pydantic import Field

from voicechat.audio.bandwidth_extension import TELEPHONE_RATE_HZ
from voicechat.audio.pause_detection import PAUSE_MS
from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.processes import python
from voicechat.processes.channel import Channel
from voicechat.processes.errors import JobFailedError, WorkerError, WorkersBusyError
from voicechat.processes.machine_share import machine_share
from voicechat.processes.pool import WorkerPool
from voicechat.processes.worker import WorkerLimits
from voicechat.providers.interfaces import PCM_RATE_HZ, RecognitionOptions, RecognizerProvider
from voicechat.providers.transcript_json import decode_transcript
from voicechat.session.types import Transcript

PROVIDER = "pocketsphinx"

TELEPHONE = b"telephone"
"""Job option: the audio has no content above 4 kHz."""
PIECE_BYTES = PCM_RATE_HZ // 10 * 2
"""100 ms, about 12 ms of decoding: the longest that one stream blocks the others of its
process.
"""
RESERVED = 1
"""Streams of each process in addition to ``streams_per_worker``, for keys that have no
other stream, so that a key that uses all other streams does not keep these keys
waiting. Their decoders are created when first needed.
"""
WINDOW_BYTES = PCM_RATE_HZ * 2 * 2
"""Backpressure: at most 2 s of audio is on its way to the process."""


class PocketSphinxRecognizer(RecognizerProvider):
    """A `SpeechRecognizer` on a pool of warm processes."""

    def __init__(self, pool: WorkerPool, wait_ms: int) -> None:
        self._pool = pool
        self._wait_ms = wait_ms

    @property
    def pool(self) -> WorkerPool:
        """The pool of processes, for health checks and metrics."""
        return self._pool

    @property
    def waiting_streams(self) -> int:
        """How many streams wait for a decoder, for admission control."""
        return self._pool.waiting

    async def start(self) -> None:
        """Load the models; returns when all processes are warm. Raises `ProviderError`
        if they do not start.
        """
        try:
            await self._pool.start()
        except WorkerError as error:
            raise _as_provider_error(error) from error

    async def aclose(self) -> None:
        """End the processes; open streams fail."""
        await self._pool.aclose()

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncGenerator[Transcript, None]:
        """Recognise one stream.

        The model is trained on wide-band speech: telephone speech is extended to
        resemble it, which halves the errors. Raises `ProviderError`: RATE_LIMIT when no
        decoder is free in time, CONNECTIVITY when the process is lost (the same audio
        may succeed on a new stream), BROKEN when decoding itself fails. The last two do
        not count against the service: the audio may have caused them, and a lost
        process is replaced. Exceptions of ``audio`` are passed on. Cancelling drops the
        stream in the process too, without waiting for it.
        """
        try:
            telephone = options.source_rate_hz <= TELEPHONE_RATE_HZ
            channel = await self._pool.open_channel(
                TELEPHONE if telephone else b"", wait_ms=self._wait_ms, caller=options.caller
            )
        except WorkerError as error:
            raise _as_provider_error(error) from error
        # A TaskGroup may not be held over a yield (PEP 789); this task ends with the
        # generator, below.
        feeding = asyncio.get_running_loop().create_task(_feed(channel, audio))
        try:
            async for message in channel:
                yield decode_transcript(message)
            await feeding
        except WorkerError as error:
            raise _as_provider_error(error, of_service=False) from error
        finally:
            channel.close()
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)


async def _feed(channel: Channel, audio: AsyncIterator[bytes]) -> None:
    try:
        async for pcm in audio:
            for start in range(0, len(pcm), PIECE_BYTES):
                await channel.send(pcm[start : start + PIECE_BYTES])
    except BaseException:
        channel.close()  # ends the reader, which then sees this exception
        raise
    channel.finish_input()


def _as_provider_error(error: WorkerError, *, of_service: bool = True) -> ProviderError:
    if isinstance(error, WorkersBusyError):
        kind = FailureKind.RATE_LIMIT
    elif isinstance(error, JobFailedError):
        kind = FailureKind.BROKEN
    else:
        kind = FailureKind.CONNECTIVITY
    return ProviderError(PROVIDER, kind, str(error), of_service=of_service)


def open_recognizer(
    *,
    workers: Annotated[int, Field(ge=1, le=256)] | None = None,
    streams_per_worker: Annotated[int, Field(ge=1, le=64)] = 4,
    pause_ms: Annotated[int, Field(ge=100, le=10_000)] = PAUSE_MS,
    wait_ms: Annotated[int, Field(ge=0, le=60_000)] = 3_000,
    niceness: Annotated[int, Field(ge=0, le=19)] = 5,
) -> PocketSphinxRecognizer:
    """Open the recogniser; its processes start with `start` or the first stream.

    ``workers``: processes in total for all of the server's processes, by default one
    for each core. ``streams_per_worker``: decoders in each (50 to 60 MB each, plus 70).
    ``pause_ms``: silence that ends a sentence. ``wait_ms``: how long a stream waits for
    a free decoder. ``niceness``: of the processes, so that decoding yields to the
    server's own process.
    """
    processes, streams = _share_of(workers or os.cpu_count() or 1, streams_per_worker)
    options = (f"--streams={streams}", f"--pause-ms={pause_ms}", f"--niceness={niceness}")
    command = python.command("voicechat.providers.pocketsphinx_worker", *options)
    limits = WorkerLimits(channels=streams, reserved=RESERVED, window_bytes=WINDOW_BYTES)
    return PocketSphinxRecognizer(WorkerPool(command, size=processes, limits=limits), wait_ms)


def _share_of(workers: int, streams_per_worker: int) -> tuple[int, int]:
    """Divide the machine's decoders among the server's processes: returns the number of
    processes here, and of decoders in each.

    If there are fewer decoding processes than server processes, each of those has one,
    with its share of the decoders. Raises `ConfigError`.
    """
    mine = machine_share()
    if workers >= mine.processes:
        return mine.part_of(workers), streams_per_worker
    decoders = mine.part_of(workers * streams_per_worker)
    if not decoders:
        raise ConfigError(
            f"workers: {workers} with streams_per_worker = {streams_per_worker} are "
            f"{workers * streams_per_worker} decoders, but each of the {mine.processes} "
            "processes of the server needs one: raise them, or lower server.workers"
        )
    return 1, decoders
