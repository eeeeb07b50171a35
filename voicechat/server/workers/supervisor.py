"""The parent of the workers: starts and replaces them, sends each connection to one,
and drains them.
"""

import asyncio
import logging
import os
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from voicechat.config import Config
from voicechat.errors import ConfigError, VoiceChatError
from voicechat.processes.pool import RestartBackoff
from voicechat.processes.scheduling import ask_for_short_slices
from voicechat.processes.shared_children import ChildHost
from voicechat.server.admission import DRAIN_GRACE_S
from voicechat.server.credentials import Credentials, credentials
from voicechat.server.listener import base_url
from voicechat.server.pages import demo_folder
from voicechat.server.signals import stop_on_signals
from voicechat.server.workers.acceptor import Acceptor, open_acceptor
from voicechat.server.workers.ipc_channel import Packet, PacketKind, close_fd, supports_channels
from voicechat.server.workers.worker_config import WorkerConfig
from voicechat.server.workers.worker_handle import EXIT_S, WorkerHandle
from voicechat.store.ledger import Ledger

CORES_PER_WORKER = 8
"""Cores per worker if models compute on this machine. PocketSphinx decodes four streams
per core, so one process can hold more conversations than eight cores can decode.
"""
LOCAL_MODELS = frozenset({"pocketsphinx", "sherpa_onnx"})
"""Providers whose models compute on this machine, and take memory in each process that
opens them.
"""
ONE_MODEL = frozenset({"faster_whisper", "kokoro", "llama_cpp", "piper"})
"""Providers whose model uses all cores by itself, in a process that all workers share.
With them the server has one worker unless more are configured.
"""
MAX_AWAITING = 256
"""Most connections that wait for one worker to be replaced: passed-on connections,
which no other worker can serve.
"""
MAX_DEATHS = 5
DEATHS_S = 60.0
"""Crash loop: the server gives up after ``MAX_DEATHS`` deaths within this time."""
RAM_DISK = Path("/dev/shm")
CHILDREN = "children.sock"
"""The socket in the shared folder at which the workers reach the processes that they
share.
"""

Announce = Callable[[str], None]
_log = logging.getLogger(__name__)


class WorkersFailedError(VoiceChatError):
    """The workers do not start, or they die in a crash loop."""


def workers_of(config: Config) -> int:
    """Return the number of processes that serve.

    Raises ConfigError if the configuration requires more than one and this system
    cannot pass connections between processes.
    """
    wished = config.server.workers
    if not supports_channels():
        if wished is not None and wished > 1:
            raise ConfigError(
                f"server.workers: {wished} is not possible on this system, which has 1 at most"
            )
        return 1
    if wished is not None:
        return wished
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    services = (*config.asr.values(), *config.llm.values(), *config.tts.values())
    providers = {service.provider for service in services}
    if providers & ONE_MODEL:
        return 1
    return max(1, cores // CORES_PER_WORKER) if providers & LOCAL_MODELS else cores


def ready_line(
    url: str, key: str | None, warm_up_s: float, *, has_demo: bool, workers: int = 1
) -> str:
    """Compose the line that announces the server's address."""
    address = f"{url}/#key={key}" if key else f"{url}/"
    with_workers = f" with {workers} workers" if workers > 1 else ""
    verb = "open" if has_demo else "listening on"
    return f"ready after {warm_up_s:.1f} s{with_workers}; {verb} {address}"


async def supervise(config: Config, workers: int, announce: Announce) -> None:
    """Serve with ``workers`` processes until a signal, then drain.

    A second signal, or one during the warm-up, stops at once. Raises ConfigError, and
    WorkersFailedError when the workers do not start or crash in a loop.
    """
    ask_for_short_slices()  # it relays the jobs of the models
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    failure = ""
    with stop_on_signals() as stop, _shared_folder() as folder:
        admitted = credentials(config)
        async with (
            ChildHost().listening(folder / CHILDREN),
            open_acceptor(config.server.host, config.server.port) as acceptor,
        ):
            url = base_url(config.server.host, acceptor.port)
            announce(f"warming up; not ready yet: {url}")
            async with ServerWorkers(
                config, admitted, workers, acceptor, folder
            ).running() as server_workers:
                await server_workers.wait_until_ready()
                warm_up_s, has_demo = loop.time() - started_s, demo_folder() is not None
                announce(
                    ready_line(url, admitted.shown, warm_up_s, has_demo=has_demo, workers=workers)
                )
                stop.may_drain = True
                failure = await server_workers.wait_for_failure_or(stop.requested)
                drain_s = config.server.drain_s
                announce(
                    f"draining: turns in progress have {drain_s:g} s to end; once more to stop "
                    "at once"
                )
                await server_workers.drain(drain_s)
    announce("stopped")
    if failure:
        raise WorkersFailedError(failure)


@contextmanager
def _shared_folder() -> Iterator[Path]:
    """Create a folder for the files that the workers share, on a RAM disk if there is
    one.
    """
    where = RAM_DISK if os.access(RAM_DISK, os.W_OK) else None
    with tempfile.TemporaryDirectory(
        prefix="voicechat-", dir=where, ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


class ServerWorkers:
    """The workers of one server."""

    def __init__(
        self, config: Config, admitted: Credentials, size: int, acceptor: Acceptor, folder: Path
    ) -> None:
        self._config = config
        self._admitted = admitted
        self._size = size
        self._acceptor = acceptor
        self._metrics = folder / "metrics"
        self._metrics.mkdir()
        self._host = folder / CHILDREN
        self._ledger_file = folder / "ledger.sqlite3"
        self._ledger = Ledger(self._ledger_file)
        self._workers: dict[int, WorkerHandle] = {}
        self._deaths_s: deque[float] = deque(maxlen=MAX_DEATHS)
        self._were_ready = False
        self._all_ready = asyncio.Event()
        self._ending = False
        self._failed = asyncio.Event()
        self._failure = ""
        self._waiting_connections: list[tuple[int, int, bytes]] = []
        self._keepers: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ServerWorkers"]:
        """Keep the workers alive while the context lasts; leaving stops the remaining
        ones at once.
        """
        loop = asyncio.get_running_loop()
        self._keepers = [
            loop.create_task(self._keep_alive(number), name=f"worker {number}")
            for number in range(self._size)
        ]
        for task in self._keepers:
            task.add_done_callback(self._on_kept)
        self._acceptor.start_accepting(self._send_to_least_loaded)
        try:
            yield self
        finally:
            self._ending = True
            self._acceptor.stop_accepting()
            for task in self._keepers:
                task.cancel()
            await asyncio.wait(self._keepers)
            for _, connection, _ in self._waiting_connections:
                close_fd(connection)
            self._ledger.close()

    async def wait_until_ready(self) -> None:
        """Wait until all workers take sessions for the first time.

        Raises WorkersFailedError when they cannot start.
        """
        if failure := await self.wait_for_failure_or(self._all_ready):
            raise WorkersFailedError(failure)

    async def wait_for_failure_or(self, event: asyncio.Event) -> str:
        """Wait for ``event``. Returns why the workers cannot continue, or "" if the
        event came first.
        """
        loop = asyncio.get_running_loop()
        waiting = [loop.create_task(event.wait()), loop.create_task(self._failed.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return self._failure

    async def drain(self, deadline_s: float) -> None:
        """Let the workers finish the turns in progress and exit.

        Meanwhile new connections go to the workers that are left.
        """
        self._ending = True
        for worker in self._workers.values():
            worker.send_packet(
                PacketKind.DRAIN if worker.ready else PacketKind.STOP, str(deadline_s).encode()
            )
        await asyncio.wait(self._keepers, timeout=deadline_s + DRAIN_GRACE_S + EXIT_S)

    # --- connections ------------------------------------------------------------------

    def _send_to_least_loaded(self, connection: int) -> bool:
        """Send a connection to the worker with the fewest connections; False when no
        worker can take it.
        """
        takers = sorted(
            (worker for worker in self._workers.values() if worker.listening),
            key=lambda taker: taker.rank,
        )
        return any(worker.send_connection(connection) for worker in takers)

    def _pass_on(self, packet: Packet) -> None:
        if packet.fd is None:
            _log.error("a connection is lost between workers: no descriptor is left for it")
            return
        number, head = packet.payload[0], packet.payload[1:]
        worker = self._workers[number]
        if not worker.ready and len(self._waiting_connections) < MAX_AWAITING and not self._ending:
            self._waiting_connections.append((number, packet.fd, head))
        elif not worker.send_connection(packet.fd, head):
            close_fd(packet.fd)  # the client will reconnect

    def _send_waiting_connections(self, worker: WorkerHandle) -> None:
        """Send a worker that has become ready the connections that only it can
        serve.
        """
        mine = [passed for passed in self._waiting_connections if passed[0] == worker.number]
        for passed in mine:
            self._waiting_connections.remove(passed)
            _, connection, head = passed
            if not worker.send_connection(connection, head):
                close_fd(connection)

    # --- lives ------------------------------------------------------------------------

    async def _keep_alive(self, number: int) -> None:
        """Run a worker with that number until the end, and replace it each time it
        dies.
        """
        backoff, deaths = RestartBackoff(), 0
        while not self._ending and not self._failed.is_set():
            worker = self._workers[number] = WorkerHandle(
                self._worker_config(number), self._on_packet
            )
            try:
                status = await worker.run()
            except OSError as error:
                self._fail(f"a worker process cannot be started: {error.strerror}")
                return
            finally:
                self._clean_up(worker)
            if self._ending:
                return
            deaths = 1 if worker.was_ready else deaths + 1
            self._on_death(worker, status)
            await asyncio.sleep(backoff.delay_ms(deaths) / 1000)

    def _on_kept(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a bug: a worker is no longer looked after", exc_info=error)
            self._fail(f"internal error: {type(error).__name__}")

    def _clean_up(self, worker: WorkerHandle) -> None:
        """Free the resources of a dead worker, and redistribute the connections that it
        had not begun to serve.
        """
        self._ledger.remove_worker(worker.number)
        for connection in worker.take_back_connections():
            if self._ending or not self._send_to_least_loaded(connection):
                close_fd(connection)
        if worker.pid is not None:
            mark_process_dead(worker.pid, str(self._metrics))  # type: ignore[no-untyped-call]
        self._on_readiness()

    def _on_death(self, worker: WorkerHandle, status: int) -> None:
        """Log an unexpected death, and give up when the workers crash in a loop."""
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        if not self._were_ready:
            self._fail(
                worker.failure or f"a worker {how} before it was ready; its own words are above"
            )
            return
        why = f": {worker.failure}" if worker.failure else ""
        _log.error(
            "worker %d (process %s) %s%s; it is replaced", worker.number, worker.pid, how, why
        )
        now_s = asyncio.get_running_loop().time()
        self._deaths_s.append(now_s)
        if len(self._deaths_s) == MAX_DEATHS and now_s - self._deaths_s[0] < DEATHS_S:
            self._fail(
                f"workers died {MAX_DEATHS} times within {DEATHS_S:g} s, the last one "
                f"{how}{why}; giving up"
            )

    def _fail(self, why: str) -> None:
        self._failure = self._failure or why
        self._failed.set()

    def _worker_config(self, number: int) -> WorkerConfig:
        return WorkerConfig(
            number=number,
            workers=self._size,
            config=self._config,
            credentials=self._admitted,
            port=self._acceptor.port,
            ledger=self._ledger_file,
            shared=self._metrics,
            host=self._host,
            import_path=tuple(sys.path),
            log_level=logging.getLogger().level,
            engine_log_level=logging.getLogger("voicechat").level,
        )

    def _on_packet(self, worker: WorkerHandle, packet: Packet) -> None:
        match packet.kind:
            case PacketKind.PASS_ON:
                self._pass_on(packet)
            case PacketKind.LISTENING | PacketKind.REPORT:
                self._acceptor.retry_accepting()
            case PacketKind.READY:
                self._on_readiness(worker)
                self._send_waiting_connections(worker)
            case _:
                pass

    def _on_readiness(self, newcomer: WorkerHandle | None = None) -> None:
        """Notify the workers whether all of them are ready, if that has changed or one
        is new.
        """
        were_ready = self._all_ready.is_set()
        if sum(worker.ready for worker in self._workers.values()) == self._size:
            self._all_ready.set()
            self._were_ready = True
        else:
            self._all_ready.clear()
        are_ready = self._all_ready.is_set()
        if are_ready != were_ready or newcomer is not None:
            for worker in self._workers.values():
                if worker.listening:
                    worker.send_packet(PacketKind.ALL_READY, b"1" if are_ready else b"0")
