"""The parent's handle of a worker process: its channel, its life and its load."""

import asyncio
import logging
import pickle
from collections import deque
from collections.abc import Callable

from voicechat.processes import python
from voicechat.server.load_signals import LoadLevel
from voicechat.server.workers.ipc_channel import (
    ChannelClosedError,
    IpcChannel,
    LoadReport,
    Packet,
    PacketKind,
    close_fd,
    open_channel,
)
from voicechat.server.workers.worker_config import WorkerConfig

HANG_S = 30.0
"""A worker that sends no packet for 30 s hangs and is killed. A healthy one sends at
least five a second.
"""
START_S = 120.0
"""The same limit until it listens: it loads its libraries, on a machine that may be
busy.
"""
SILENT_S = 1.0
"""A worker that has been silent for this long gets connections only if the others
cannot.
"""
MAX_UNTAKEN = 64
"""Most connections in flight to a worker; the parent holds a descriptor for each."""
EXIT_S = 10.0
"""How long a worker may take to stop at once; then it is killed."""

_log = logging.getLogger(__name__)


class WorkerHandle:
    """One worker process. `run` covers its whole life; a replacement is a new
    object.
    """

    def __init__(
        self, config: WorkerConfig, on_packet: Callable[["WorkerHandle", Packet], None]
    ) -> None:
        """``on_packet`` is called with every packet, after this object has handled
        it.
        """
        self.number = config.number
        self._config = config
        self._on_packet = on_packet
        self._channel: IpcChannel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._sent = 0
        self._last_packet_s = 0.0
        self._report = LoadReport()
        self._untaken: deque[tuple[int, bytes]] = deque()
        self.listening = False
        self.ready = False
        self.was_ready = False
        self.failure = ""
        """The error that the worker has reported before it ended."""

    @property
    def pid(self) -> int | None:
        """The process id, once it runs."""
        return None if self._process is None else self._process.pid

    @property
    def rank(self) -> tuple[bool, bool, bool, int]:
        """Sort key: the worker with the lowest rank gets the next connection."""
        silent = asyncio.get_running_loop().time() - self._last_packet_s > SILENT_S
        return not self.ready, silent, self._report.level >= LoadLevel.REFUSING, self.connections

    @property
    def connections(self) -> int:
        """Connections that are open or in flight."""
        return self._report.open + self._sent - self._report.taken

    async def run(self) -> int:
        """Start the process, handle its packets, and return its exit status.

        Cancelling asks it to stop at once, and kills it after ``EXIT_S``.
        """
        loop = asyncio.get_running_loop()
        self._channel, theirs = open_channel()
        with theirs:
            # A session of its own: Ctrl-C at the terminal reaches the parent only.
            self._process = process = await asyncio.create_subprocess_exec(
                *python.command("voicechat.server.workers.child", str(theirs.fileno())),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=python.environment(PROMETHEUS_MULTIPROC_DIR=str(self._config.shared)),
            )
        self._last_packet_s = loop.time()
        loop.add_reader(self._channel.fileno(), self._receive_packets, self._channel)
        watching = loop.create_task(self._watch(process), name=f"watch worker {self.number}")
        try:
            # Send the configuration. A process that ends before it has read all of it
            # is handled like any other death, below.
            await process.communicate(pickle.dumps(self._config))
            return await process.wait()
        finally:
            watching.cancel()
            await self._stop_process(process)

    def send_packet(self, kind: PacketKind, payload: bytes = b"") -> None:
        """Send a packet. A worker whose buffer is full has stopped reading, and is
        killed.
        """
        if self._channel is not None and not self._channel.send_packet(kind, payload):
            self.kill()

    def send_connection(self, connection: int, head: bytes = b"") -> bool:
        """Send a connection; on success this object owns the descriptor.

        Returns False when the worker cannot take any more.
        """
        if self._channel is None or len(self._untaken) >= MAX_UNTAKEN:
            return False
        if not self._channel.send_packet(PacketKind.CONNECTION, head, connection):
            return False
        self._sent += 1
        self._untaken.append((connection, head))
        return True

    def take_back_connections(self) -> list[int]:
        """Return the connections that an ended worker had not begun to serve.

        Passed-on connections are closed: no other worker can serve them.
        """
        left = [connection for connection, head in self._untaken if not head]
        for connection, head in self._untaken:
            if head:
                close_fd(connection)
        self._untaken.clear()
        return left

    def kill(self) -> None:
        """Kill the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def _receive_packets(self, channel: IpcChannel) -> None:
        try:
            while (packet := channel.receive_packet()) is not None:
                self._handle_packet(packet)
        except ChannelClosedError:
            asyncio.get_running_loop().remove_reader(channel.fileno())

    def _handle_packet(self, packet: Packet) -> None:
        self._last_packet_s = asyncio.get_running_loop().time()
        match packet.kind:
            case PacketKind.REPORT:
                self._report = LoadReport.decode(packet.payload)
                while len(self._untaken) > self._sent - self._report.taken:
                    close_fd(self._untaken.popleft()[0])  # the worker has its own descriptor now
            case PacketKind.FAILED:
                self.failure = packet.payload.decode()
            case PacketKind.LISTENING:
                self.listening = True
            case PacketKind.READY:
                self.ready = self.was_ready = True
            case _:
                pass
        self._on_packet(self, packet)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        while True:
            await asyncio.sleep(SILENT_S)
            allowed_s = HANG_S if self.listening else START_S
            if asyncio.get_running_loop().time() - self._last_packet_s > allowed_s:
                _log.error("worker %d (process %d) hangs: killed", self.number, process.pid)
                self.kill()

    async def _stop_process(self, process: asyncio.subprocess.Process) -> None:
        self.listening = self.ready = False
        assert self._channel is not None
        try:
            if process.returncode is None:
                self._channel.send_packet(PacketKind.STOP)
                async with asyncio.timeout(EXIT_S):
                    await process.wait()
        except TimeoutError:
            self.kill()
            await process.wait()
        finally:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
