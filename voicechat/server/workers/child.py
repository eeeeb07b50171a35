"""A worker's own side, with the argument ``DESCRIPTOR`` and its orders on standard
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
from voicechat.server.seat import Seat
from voicechat.server.serve import loop_factory, serving, tune_garbage_collector, tune_threads
from voicechat.server.workers.guests import Guests
from voicechat.server.workers.link import Kind, Link, LinkClosedError, Packet
from voicechat.server.workers.orders import Orders
from voicechat.store.ledger import Ledger

_log = logging.getLogger(__name__)


def main() -> None:
    """Serve until the parent says otherwise, or ends."""
    # A service manager may send them to every process: draining is the parent's to
    # order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    orders: Orders = pickle.load(sys.stdin.buffer)
    sys.path += [path for path in orders.import_path if path not in sys.path]
    logging.basicConfig(
        level=orders.log_level,
        format=f"%(asctime)s %(levelname)s worker {orders.number} %(name)s: %(message)s",
    )
    logging.getLogger("voicechat").setLevel(orders.engine_log_level)
    set_machine_share(orders.number, orders.workers)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_work(orders, link))


async def _work(orders: Orders, link: Link) -> None:
    ledger = Ledger(orders.ledger, orders.number)
    ledger.enrol(os.getpid())
    guests = Guests(link, orders.number, orders.workers, orders.port)
    seat = Seat(
        ledger=ledger,
        listen=guests.listening,
        pass_on=guests.pass_on,
        on_level=guests.press,
        shared=orders.shared,
    )
    seat.health.others_ready = False
    parent = Parent(link, guests, seat)
    try:
        services = build_services(orders.config)
        async with serving(
            orders.config, services, orders.credentials, _say_nothing, seat
        ) as server:
            tune_garbage_collector()
            tune_threads()
            link.send(Kind.READY, b"demo" if server.has_demo else b"")
            await server.drain(await parent.drain_s)
    except asyncio.CancelledError:
        if not parent.stopped:
            raise
    except Exception as error:
        _log.debug("the start failed", exc_info=error)
        if not link.send(Kind.FAILED, "\n".join(_explanations(error)).encode()[:4096]):
            raise
    finally:
        parent.close()
        ledger.close()
        if parent.gone:  # it cannot tidy up any more
            shutil.rmtree(orders.ledger.parent, ignore_errors=True)


def _say_nothing(_: str) -> None:
    """The parent announces, once."""


def _explanations(error: BaseException) -> Iterator[str]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _explanations(inner)
    elif isinstance(error, VoiceChatError):
        yield str(error)
    else:
        yield f"internal error: {type(error).__name__}: {error} (--debug shows where)"


class Parent:
    """What the parent says, and what follows from it in this process."""

    def __init__(self, link: Link, guests: Guests, seat: Seat) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._link, self._guests, self._seat, self._task = link, guests, seat, task
        self.drain_s: asyncio.Future[float] = self._loop.create_future()
        """How long sessions in progress may take to end, once they are to."""
        self.stopped = False
        self.gone = False
        self._loop.add_reader(link.fileno(), self._hear)

    def close(self) -> None:
        """Listen no more."""
        self._loop.remove_reader(self._link.fileno())

    def _hear(self) -> None:
        try:
            while (packet := self._link.receive()) is not None:
                self._take(packet)
        except LinkClosedError:
            self.close()
            self.gone = True
            self._stop()  # nobody can reach this process any more

    def _take(self, packet: Packet) -> None:
        match packet.kind:
            case Kind.CONNECTION:
                self._guests.welcome(packet)
            case Kind.ALL_READY:
                self._seat.health.others_ready = packet.payload == b"1"
            case Kind.DRAIN if not self.drain_s.done():
                self.drain_s.set_result(float(packet.payload))
            case Kind.STOP:
                self._stop()
            case _:
                pass

    def _stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self._task.cancel()


if __name__ == "__main__":
    main()
