"""The program that a worker process runs.

Its argument is the descriptor of the IPC channel; its configuration comes on standard
input.
"""

import asyncio
import logging
import os
import pickle
import shutil
import signal
import socket
import sys
from collections.abc import Iterator

from voicechat.config import build_services
from voicechat.errors import VoiceChatError
from voicechat.processes.machine_share import set_machine_share
from voicechat.server.gc_tuning import tune_garbage_collector
from voicechat.server.serve import loop_factory, serving, tune_threads
from voicechat.server.worker_context import WorkerContext
from voicechat.server.workers.ipc_channel import ChannelClosedError, IpcChannel, Packet, PacketKind
from voicechat.server.workers.worker_config import WorkerConfig
from voicechat.server.workers.worker_connections import WorkerConnections
from voicechat.store.ledger import Ledger

PACKETS_IN_A_PASS = 4
"""Most packets received in one iteration of the event loop. When a new connection
displaces an old one, the old one's descriptor is free only two iterations later, so a
flood received at once would use up all descriptors of the process.
"""

_log = logging.getLogger(__name__)


def main() -> None:
    """Serve until the parent orders a stop or has died."""
    # A service manager may signal every process of the group. Only the parent reacts,
    # by ordering a drain.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = IpcChannel(socket.socket(fileno=int(sys.argv[1])))
    worker_config: WorkerConfig = pickle.load(sys.stdin.buffer)
    sys.path += [path for path in worker_config.import_path if path not in sys.path]
    logging.basicConfig(
        level=worker_config.log_level,
        format=f"%(asctime)s %(levelname)s worker {worker_config.number} %(name)s: %(message)s",
    )
    logging.getLogger("voicechat").setLevel(worker_config.engine_log_level)
    set_machine_share(worker_config.number, worker_config.workers, worker_config.host)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_work(worker_config, channel))


async def _work(worker_config: WorkerConfig, channel: IpcChannel) -> None:
    ledger = Ledger(worker_config.ledger, worker_config.number)
    ledger.register_worker(os.getpid())
    connections = WorkerConnections(
        channel, worker_config.number, worker_config.workers, worker_config.port
    )
    context = WorkerContext(
        ledger=ledger,
        listen=connections.listening,
        pass_on=connections.pass_on,
        on_level=connections.set_load_level,
        shared=worker_config.shared,
    )
    context.health.others_ready = False
    parent = ParentChannel(channel, connections, context)
    try:
        services = build_services(worker_config.config)
        async with serving(
            worker_config.config, services, worker_config.credentials, _announce_nothing, context
        ) as server:
            tune_garbage_collector()
            tune_threads()
            channel.send_packet(PacketKind.READY, b"demo" if server.has_demo else b"")
            await server.drain(await parent.drain_s)
    except asyncio.CancelledError:
        if not parent.stopped:
            raise
    except Exception as error:
        _log.debug("the start failed", exc_info=error)
        if not channel.send_packet(
            PacketKind.FAILED, "\n".join(_explanations(error)).encode()[:4096]
        ):
            raise
    finally:
        parent.close()
        ledger.close()
        if parent.gone:  # the parent can no longer remove the shared folder
            shutil.rmtree(worker_config.ledger.parent, ignore_errors=True)


def _announce_nothing(_: str) -> None:
    """Announce nothing: the parent announces once for all workers."""


def _explanations(error: BaseException) -> Iterator[str]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _explanations(inner)
    elif isinstance(error, VoiceChatError):
        yield str(error)
    else:
        yield f"internal error: {type(error).__name__}: {error} (--debug shows where)"


class ParentChannel:
    """Receives the parent's packets and acts on them."""

    def __init__(
        self, channel: IpcChannel, connections: WorkerConnections, context: WorkerContext
    ) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._channel, self._connections, self._context, self._task = (
            channel,
            connections,
            context,
            task,
        )
        self.drain_s: asyncio.Future[float] = self._loop.create_future()
        """Resolves to the seconds that sessions in progress may take, when the parent
        orders a drain.
        """
        self.stopped = False
        self.gone = False
        self._loop.add_reader(channel.fileno(), self._receive_packets)

    def close(self) -> None:
        """Stop receiving."""
        self._loop.remove_reader(self._channel.fileno())

    def _receive_packets(self) -> None:
        try:
            for _ in range(PACKETS_IN_A_PASS):
                packet = self._channel.receive_packet()
                if packet is None:
                    break
                self._handle_packet(packet)
        except ChannelClosedError:
            self.close()
            self.gone = True
            self._stop()  # no new connection can reach this process any more

    def _handle_packet(self, packet: Packet) -> None:
        match packet.kind:
            case PacketKind.CONNECTION:
                self._connections.adopt_connection(packet)
            case PacketKind.ALL_READY:
                self._context.health.others_ready = packet.payload == b"1"
            case PacketKind.DRAIN if not self.drain_s.done():
                self.drain_s.set_result(float(packet.payload))
            case PacketKind.STOP:
                self._stop()
            case _:
                pass

    def _stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self._task.cancel()


if __name__ == "__main__":
    main()
