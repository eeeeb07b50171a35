"""A pool of warm child processes. Dead children are replaced. Callers share the
children fairly, so a caller with many jobs delays only its own.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voicechat.processes.channel import Channel
from voicechat.processes.errors import WorkerLostError, WorkersBusyError
from voicechat.processes.worker import PoolWorker, SharedWorker, WorkerLimits

logger = logging.getLogger(__name__)

MAX_STARTS = 3
"""`WorkerPool.start` fails after this many consecutive children that never became
ready.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartBackoff:
    """The delay before a dead child is replaced: doubles from ``first_ms`` up to
    ``most_ms``.
    """

    first_ms: int = 100
    most_ms: int = 10_000

    def delay_ms(self, failures: int) -> int:
        """The delay after ``failures`` (at least 1) consecutive deaths."""
        return min(self.first_ms << min(failures - 1, 30), self.most_ms)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """A queued job, and the future for its channel."""

    caller: str
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
        backoff: RestartBackoff | None = None,
        host: Path | None = None,
    ) -> None:
        """``host``: the socket of a `ChildHost` that runs the children, which the pools
        of several processes share; None: they are this process's own.
        """
        self._command = tuple(command)
        self._limits = limits or WorkerLimits()
        self._backoff = backoff or RestartBackoff()
        self._host = host
        self._workers: list[PoolWorker | None] = [None] * size
        self._waiters: dict[str, deque[_Waiter]] = {}
        """Queued jobs by caller. The caller served least recently comes first."""
        self._opened: dict[Channel, str] = {}
        """Channels that have not ended, and a few that have, with their callers."""
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
        """How many jobs run in the children."""
        return sum(worker.open_channels for worker in self._workers if worker is not None)

    @property
    def waiting(self) -> int:
        """How many callers wait for a free channel."""
        return sum(map(len, self._waiters.values()))

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the children that are warm and alive."""
        return tuple(
            worker.pid
            for worker in self._workers
            if worker is not None and worker.ready and worker.pid
        )

    async def start(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Start the children and return once all are ready. Later calls wait for the
        same event.

        ``on_progress(ready, size)`` is called whenever a child becomes ready. Raises
        `WorkerLostError` if children fail to become ready or the pool is closed
        meanwhile. It may be called again after a failure, because children that die are
        always replaced. Cancelling stops the wait, not the children.
        """
        if self._closed:
            raise WorkerLostError("the pool is closed")
        if self._warm is None:
            loop = asyncio.get_running_loop()
            self._on_progress = on_progress
            self._warm = loop.create_future()
            # The children outlive this call. This task is the parent of their tasks;
            # `aclose` cancels and awaits it.
            self._root = loop.create_task(self._keep_all(), name="worker pool")
        elif self._warm.done() and self._warm.exception() is not None:
            self._warm = asyncio.get_running_loop().create_future()
            self._on_change()  # meanwhile they may all have become ready
        await asyncio.shield(self._warm)

    async def open_channel(
        self, options: bytes = b"", *, wait_ms: int, caller: str = ""
    ) -> Channel:
        """Start a job in the least busy child.

        Among waiting callers, the ``caller`` with the fewest jobs is served first;
        among equals, the one served least recently. Each caller's jobs keep their
        order. In a child every caller gets the same time, whatever the number of its
        jobs. A caller without any other job may also use one of the
        `WorkerLimits.reserved` channels.

        Raises `WorkersBusyError` if no channel becomes free within ``wait_ms``, and
        `WorkerLostError` if the pool cannot start or is closed. The first call also
        starts the pool; that time is not part of ``wait_ms``.
        """
        await self.start()
        if self._closed:
            raise WorkerLostError("the pool is closed")
        waiter = _Waiter(caller, options, asyncio.get_running_loop().create_future())
        self._waiters.setdefault(caller, deque()).append(waiter)
        self._serve_waiters()
        if waiter.channel.done():
            return waiter.channel.result()
        try:
            async with asyncio.timeout(wait_ms / 1000):
                return await self._wait(waiter)
        except TimeoutError:
            raise WorkersBusyError(f"no worker was free within {wait_ms} ms") from None

    async def aclose(self) -> None:
        """Stop all children, killing them after ``exit_ms``, and fail their jobs.
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
            # The pool was closed or broke: fail every waiting caller.
            self._closed = True
            if self._warm is not None and not self._warm.done():
                self._fail_start("the pool was closed while it started")
            self._serve_waiters()

    async def _keep(self, index: int) -> None:
        """Run children at ``index``, one after the other, until cancelled."""
        failures = 0
        while True:
            worker = self._make_worker()
            self._workers[index] = worker
            was_ready = await self._live(worker)
            failures = 1 if was_ready else failures + 1
            given_up = failures >= MAX_STARTS or bool(worker.refusal)
            if given_up and self._warm is not None and not self._warm.done():
                self._fail_start(
                    worker.refusal
                    or f"{failures} workers in a row did not become ready; "
                    "see their output on stderr"
                )
            await asyncio.sleep(self._backoff.delay_ms(failures) / 1000)

    def _make_worker(self) -> PoolWorker:
        if self._host is None:
            return PoolWorker(self._command, self._limits, self._on_change)
        return SharedWorker(self._command, self._limits, self._on_change, self._host)

    async def _live(self, worker: PoolWorker) -> bool:
        """Run one child until it ends; return whether it ever became ready."""
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
            if waiter in self._waiters.get(waiter.caller, ()):
                self._remove(waiter)
            elif not waiter.channel.cancelled() and waiter.channel.exception() is None:
                # The channel was assigned in the same loop iteration: pass it on.
                waiter.channel.result().close()
            raise

    def _serve_waiters(self) -> None:
        """Assign free channels to waiting callers."""
        self._opened = {
            channel: caller for channel, caller in self._opened.items() if not channel.ended
        }
        jobs = Counter(self._opened.values())
        while self._waiters:
            # If the caller with the fewest jobs gets no channel, no other caller does.
            caller = min(self._waiters, key=jobs.__getitem__)
            worker = self._least_busy(reserved=not jobs[caller])
            if worker is None and not self._closed:
                return
            waiter = self._waiters[caller][0]
            self._remove(waiter)
            if caller in self._waiters:  # behind the other callers
                self._waiters[caller] = self._waiters.pop(caller)
            if waiter.channel.done():
                continue  # the caller was cancelled
            if worker is None or self._closed:
                waiter.channel.set_exception(WorkerLostError("the pool is closed"))
            else:
                channel = worker.open_channel(caller, waiter.options)
                self._opened[channel] = caller
                jobs[caller] += 1
                waiter.channel.set_result(channel)

    def _remove(self, waiter: _Waiter) -> None:
        waiters = self._waiters[waiter.caller]
        waiters.remove(waiter)
        if not waiters:
            del self._waiters[waiter.caller]

    def _least_busy(self, *, reserved: bool) -> PoolWorker | None:
        free = [
            worker
            for worker in self._workers
            if worker is not None and worker.has_room(reserved=reserved)
        ]
        return min(free, key=lambda worker: worker.open_channels, default=None)

    def _fail_start(self, message: str) -> None:
        assert self._warm is not None
        self._warm.set_exception(WorkerLostError(message))
        self._warm.exception()  # mark as retrieved, in case no caller awaits it
