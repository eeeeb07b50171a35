"""Batched decoding: one thread decodes the streams of all sessions together, and
results are delivered on the event loop.

sherpa-onnx takes any number of streams in one call of the model and releases the
interpreter lock meanwhile. Streams that become ready while a batch is computed are in
the next one: a single stream never waits for others, and batches grow with the load.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.sherpa_loading import PROVIDER


class BatchJob(Protocol):
    """A unit of work that is decoded together with others."""

    @property
    def ready(self) -> bool:
        """Whether there is work for the thread. Called on the event loop."""

    @property
    def urgent(self) -> bool:
        """Whether it goes before others, because the user has finished speaking and
        waits.
        """

    def deliver(self) -> None:
        """Deliver the results. Called on the event loop, after every batch that
        contained the job.
        """

    def fail(self, error: ProviderError) -> None:
        """Report that the batch failed. Called on the event loop."""


def closed() -> ProviderError:
    """Return the error of a stream whose recogniser was closed."""
    return ProviderError(PROVIDER, FailureKind.CONNECTIVITY, "closed while it listened")


J = TypeVar("J", bound=BatchJob)


class BatchScheduler(Generic[J]):
    """Runs ``decode(jobs)`` on its own thread, for all jobs that are ready, repeatedly.

    Use it on the event loop only. The thread and the task start with the first
    `wake_job` or `run_on_thread`.
    """

    def __init__(self, decode: Callable[[Sequence[J]], None], *, max_batch: int, name: str) -> None:
        """``decode`` may raise anything: all jobs of the batch then fail. A batch has
        at most ``max_batch`` jobs.
        """
        self._decode = decode
        self._max_batch = max_batch
        self._name = name
        self._waiting: dict[J, None] = {}
        self._wake = asyncio.Event()
        self._thread: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None
        self._calling: asyncio.Future[None] | None = None
        self._closed = False
        self.batches = 0
        self.decoded = 0
        """Batches computed, and the jobs in them: their ratio is the mean batch size.
        """

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed

    def wake_job(self, job: J) -> None:
        """Queue a job if it is ready. Does nothing if it is not, or after `aclose`."""
        if self._closed or not job.ready:
            return
        self._waiting[job] = None
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def forget_job(self, job: J) -> None:
        """Remove a job. If it is in the current batch, it is not queued again."""
        self._waiting.pop(job, None)

    async def run_on_thread(self, work: Callable[[], None]) -> None:
        """Run other work on the thread, before or between batches, such as loading the
        model.

        Raises the errors of ``work``, and `ProviderError` (CONNECTIVITY) after
        `aclose`.
        """
        if self._closed:
            raise closed()
        self._calling = asyncio.get_running_loop().run_in_executor(self._opened_thread(), work)
        await self._calling

    async def aclose(self) -> None:
        """Wait for the thread's current work and end the thread; waiting jobs fail. A
        second call does nothing.
        """
        self._closed = True
        self._wake.set()
        if self._task is not None:
            await asyncio.shield(self._task)
        self._fail(list(self._waiting), closed())
        self._waiting.clear()
        if self._calling is not None:
            await asyncio.wait([self._calling])
        if self._thread is not None:
            self._thread.shutdown()

    async def _run(self) -> None:
        while not self._closed:
            self._wake.clear()
            while self._waiting and not self._closed:
                await self._round()
            if not self._closed:
                await self._wake.wait()

    async def _round(self) -> None:
        jobs = sorted(self._waiting, key=lambda job: not job.urgent)[: self._max_batch]
        for job in jobs:
            del self._waiting[job]
        self.batches += 1
        self.decoded += len(jobs)
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._opened_thread(), self._decode, jobs
            )
        except Exception as error:  # noqa: BLE001 - sherpa-onnx raises what C++ and ONNX Runtime throw
            # One job has made the batch fail; the others may be retried.
            kind = FailureKind.BROKEN if len(jobs) == 1 else FailureKind.CONNECTIVITY
            message = f"decoding failed: {type(error).__name__}"
            self._fail(jobs, ProviderError(PROVIDER, kind, message, of_service=False))
            return
        for job in jobs:
            job.deliver()
            # Behind the jobs that have queued meanwhile.
            if job.ready:
                self._waiting[job] = None

    def _fail(self, jobs: Iterable[J], error: ProviderError) -> None:
        for job in jobs:
            job.fail(error)

    def _opened_thread(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        return self._thread
