"""One thread that decodes the streams of all sessions together, and hands each its
results on the event loop.

sherpa-onnx takes any number of streams in one call of the model and releases the
interpreter lock meanwhile. Whoever is ready while a batch is computed is in the next
one: a lonely stream never waits for company, and the busier the machine, the larger the
batches.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.sherpa_loading import PROVIDER


class BatchJob(Protocol):
    """Something to be decoded together with others."""

    @property
    def ready(self) -> bool:
        """Whether there is work for the thread; asked on the event loop."""

    @property
    def urgent(self) -> bool:
        """Whether it goes before others: its speaker has finished and waits."""

    def deliver(self) -> None:
        """Hand over what the thread has found; called on the event loop, after every
        batch that it was in.
        """

    def fail(self, error: ProviderError) -> None:
        """The batch failed; called on the event loop."""


def closed() -> ProviderError:
    """Give what a stream fails with when the recogniser is closed."""
    return ProviderError(PROVIDER, FailureKind.CONNECTIVITY, "closed while it listened")


J = TypeVar("J", bound=BatchJob)


class BatchScheduler(Generic[J]):
    """Runs ``decode(jobs)`` on one thread of its own, for all jobs that are ready,
    again and again.

    Used on the event loop only. The thread and the task begin with the first `wake` or
    `call`.
    """

    def __init__(self, decode: Callable[[Sequence[J]], None], *, max_batch: int, name: str) -> None:
        """``decode`` may raise anything: then all jobs of the batch fail. At most
        ``max_batch`` jobs are in one.
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
        """Batches computed, and jobs in all of them: their ratio says what batching
        brings.
        """

    @property
    def closed(self) -> bool:
        """Whether nothing is decoded any more."""
        return self._closed

    def wake_job(self, job: J) -> None:
        """A job may be ready. Nothing happens when it is not, or when this is closed."""
        if self._closed or not job.ready:
            return
        self._waiting[job] = None
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def forget_job(self, job: J) -> None:
        """A job is not wanted any more; if it is in the batch being computed, it is not
        asked again.
        """
        self._waiting.pop(job, None)

    async def run_on_thread(self, work: Callable[[], None]) -> None:
        """Have other work done on the thread, before or between batches: loading the
        model.

        Raises what it raises, and `ProviderError` (CONNECTIVITY) when this is closed.
        """
        if self._closed:
            raise closed()
        self._calling = asyncio.get_running_loop().run_in_executor(self._opened_thread(), work)
        await self._calling

    async def aclose(self) -> None:
        """Wait for what the thread is doing and end it; what waits fails. The second
        call does nothing.
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
            # Of several, one spoiled it for the others, who may try again.
            kind = FailureKind.BROKEN if len(jobs) == 1 else FailureKind.CONNECTIVITY
            message = f"decoding failed: {type(error).__name__}"
            self._fail(jobs, ProviderError(PROVIDER, kind, message, of_service=False))
            return
        for job in jobs:
            job.deliver()
            # Behind those that have waited meanwhile.
            if job.ready:
                self._waiting[job] = None

    def _fail(self, jobs: Iterable[J], error: ProviderError) -> None:
        for job in jobs:
            job.fail(error)

    def _opened_thread(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        return self._thread
