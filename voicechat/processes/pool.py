"""A fixed number of warm children; the ones that die are replaced, and callers queue
fairly for a place.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from voicechat.processes.channel import Channel
from voicechat.processes.errors import WorkerLostError, WorkersBusyError
from voicechat.processes.worker import Worker, WorkerLimits

logger = logging.getLogger(__name__)

MAX_STARTS = 3
"""So many children in a row that never got ready make `WorkerPool.start` give up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before a dead child is replaced: doubling from ``first_ms`` to
    ``most_ms``.
    """

    first_ms: int = 100
    most_ms: int = 10_000

    def delay_ms(self, failures: int) -> int:
        """The wait after ``failures`` (at least 1) deaths in a row."""
        return min(self.first_ms << min(failures - 1, 30), self.most_ms)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """Somebody who waits for a place, and the channel that will be given."""

    options: bytes
    channel: asyncio.Future[Channel]


class WorkerPool:
    """Keeps ``size`` children of ``command`` alive between `start` and `aclose`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        size: int,
        limits: WorkerLimits | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._command = tuple(command)
        self._limits = limits or WorkerLimits()
        self._backoff = backoff or Backoff()
        self._workers: list[Worker | None] = [None] * size
        self._waiters: deque[_Waiter] = deque()
        self._warm: asyncio.Future[None] | None = None
        self._root: asyncio.Task[None] | None = None
        self._closed = False
        self._on_progress: Callable[[int, int], None] | None = None

    @property
    def ready_workers(self) -> int:
        """How many children are warm and alive."""
        return sum(worker.ready for worker in self._workers if worker is not None)

    @property
    def open_channels(self) -> int:
        """How many jobs the children carry."""
        return sum(worker.open_channels for worker in self._workers if worker is not None)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a place."""
        return len(self._waiters)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the children that are warm and alive."""
        return tuple(
            worker.pid
            for worker in self._workers
            if worker is not None and worker.ready and worker.pid
        )

    async def start(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Start the children and return when all are warm; later calls wait for the
        same moment.

        ``on_progress(ready, size)`` is called for each child that gets ready. Raises
        `WorkerLostError` when children do not get ready, or when the pool is closed
        meanwhile; it may then be called again, since children that die are always
        replaced. Cancelling stops the waiting, not the children.
        """
        if self._closed:
            raise WorkerLostError("the pool is closed")
        if self._warm is None:
            loop = asyncio.get_running_loop()
            self._on_progress = on_progress
            self._warm = loop.create_future()
            # The children outlive this call and belong to no one call: this task is the
            # root they hang on, and `aclose` awaits it.
            self._root = loop.create_task(self._keep_all(), name="worker pool")
        elif self._warm.done() and self._warm.exception() is not None:
            self._warm = asyncio.get_running_loop().create_future()
            self._on_change()  # meanwhile they may all have become ready
        await asyncio.shield(self._warm)

    async def open(self, options: bytes = b"", *, wait_ms: int) -> Channel:
        """Start a job in the least busy child. Places are given in the order they were
        asked for.

        Raises `WorkersBusyError` when no place is free within ``wait_ms``, and
        `WorkerLostError` when the pool cannot start or is closed. The first call starts
        the pool, however long that takes.
        """
        await self.start()
        if self._closed:
            raise WorkerLostError("the pool is closed")
        if not self._waiters and (worker := self._least_busy()) is not None:
            return worker.open(options)
        waiter = _Waiter(options, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(wait_ms / 1000):
                return await self._wait(waiter)
        except TimeoutError:
            raise WorkersBusyError(f"no worker was free within {wait_ms} ms") from None

    async def aclose(self) -> None:
        """End all children (killed after ``exit_ms``) and fail what they carried.
        Idempotent.
        """
        self._closed = True
        if self._root is not None:
            self._root.cancel()
            await asyncio.wait([self._root])

    async def _keep_all(self) -> None:
        try:
            async with asyncio.TaskGroup() as children:
                for index in range(len(self._workers)):
                    children.create_task(self._keep(index), name=f"worker {index}")
        finally:
            # Whether closed or broken: nobody may wait for ever.
            self._closed = True
            if self._warm is not None and not self._warm.done():
                self._fail_start("the pool was closed while it started")
            self._serve_waiters()

    async def _keep(self, index: int) -> None:
        """Have a living child at ``index`` for ever."""
        failures = 0
        while True:
            worker = Worker(self._command, self._limits, self._on_change)
            self._workers[index] = worker
            was_ready = await self._live(worker)
            failures = 1 if was_ready else failures + 1
            if failures >= MAX_STARTS and self._warm is not None and not self._warm.done():
                self._fail_start(
                    f"{failures} workers in a row did not become ready; their own words are on stderr"
                )
            await asyncio.sleep(self._backoff.delay_ms(failures) / 1000)

    async def _live(self, worker: Worker) -> bool:
        """Run one child to its end; tell whether it ever was ready."""
        try:
            await worker.run()
        except OSError as error:
            logger.error("a worker process cannot be started: %s", error)
        return worker.was_ready

    def _on_change(self) -> None:
        ready = self.ready_workers
        if self._warm is not None and not self._warm.done():
            if self._on_progress is not None:
                self._on_progress(ready, len(self._workers))
            if ready == len(self._workers):
                self._warm.set_result(None)
        self._serve_waiters()

    async def _wait(self, waiter: _Waiter) -> Channel:
        try:
            return await waiter.channel
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.channel.cancelled() and waiter.channel.exception() is None:
                waiter.channel.result().close()  # given in the same turn: the next one gets the place
            raise

    def _serve_waiters(self) -> None:
        """Open the jobs of those who wait, in their order: nobody who comes later can
        take the place.
        """
        while self._waiters and (self._closed or self._least_busy() is not None):
            waiter = self._waiters.popleft()
            worker = self._least_busy()
            if waiter.channel.done():
                continue  # its caller was cancelled
            if worker is None or self._closed:
                waiter.channel.set_exception(WorkerLostError("the pool is closed"))
            else:
                waiter.channel.set_result(worker.open(waiter.options))

    def _least_busy(self) -> Worker | None:
        free = [worker for worker in self._workers if worker is not None and worker.has_room]
        return min(free, key=lambda worker: worker.open_channels, default=None)

    def _fail_start(self, message: str) -> None:
        assert self._warm is not None
        self._warm.set_exception(WorkerLostError(message))
        self._warm.exception()  # marked as seen: perhaps nobody waits for it
