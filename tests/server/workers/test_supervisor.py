"""How many workers there are, and the parent's port and links, without any process."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from voicechat.config import Config, load_config
from voicechat.errors import ConfigError
from voicechat.server.credentials import Credentials
from voicechat.server.load_signals import LoadLevel
from voicechat.server.workers import supervisor
from voicechat.server.workers.acceptor import open_acceptor
from voicechat.server.workers.ipc_channel import (
    ChannelClosedError,
    IpcChannel,
    LoadReport,
    Packet,
    PacketKind,
    open_channel,
    supports_channels,
)
from voicechat.server.workers.supervisor import workers_of
from voicechat.server.workers.worker_config import WorkerConfig
from voicechat.server.workers.worker_handle import SILENT_S, WorkerHandle
from voicechat.store.keys import KeyStore

pytestmark = pytest.mark.skipif(
    not supports_channels(), reason="this system has one worker at most"
)

OTHERS = {"default": {"provider": "my_package:open_recognizer"}}


def config(
    tmp_path: Path, workers: int | None = None, *, asr: Mapping[str, object] | None = None
) -> Config:
    server = {} if workers is None else {"workers": workers}
    return load_config(tmp_path / "none.toml", {}, {"server": server, "asr": asr or {}})


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    (tmp_path / "none.toml").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("cores", "elsewhere", "here"), [(1, 1, 1), (2, 2, 1), (8, 8, 1), (16, 16, 2), (64, 64, 8)]
)
def test_there_is_a_worker_for_each_core_unless_recognition_needs_them(
    cores: int, elsewhere: int, here: int, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert workers_of(config(config_file, asr=OTHERS)) == elsewhere
    assert workers_of(config(config_file)) == here
    assert workers_of(config(config_file, 5)) == 5


@pytest.mark.parametrize("provider", ["faster_whisper", "llama_cpp", "kokoro", "piper"])
def test_a_model_that_is_there_once_for_all_sessions_has_one_worker(
    provider: str, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    kind = {"faster_whisper": "asr", "llama_cpp": "llm"}.get(provider, "tts")
    services = {"asr": OTHERS, kind: {"default": {"provider": provider, "model": "x"}}}
    loaded = load_config(config_file / "none.toml", {}, services)
    assert workers_of(loaded) == 1


def test_where_sockets_cannot_be_handed_over_there_is_one(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "supports_channels", lambda: False)
    assert workers_of(config(config_file, asr=OTHERS)) == 1
    assert workers_of(config(config_file, 1)) == 1
    with pytest.raises(ConfigError, match=r"server\.workers: 2 is not possible on this system"):
        workers_of(config(config_file, 2))


def test_a_link_carries_packets_and_connections() -> None:
    ours, given = open_channel()
    theirs = IpcChannel(given)
    assert theirs.receive_packet() is None
    assert ours.send_packet(PacketKind.REPORT, LoadReport(5, 3, 1).encode())
    with open(os.devnull) as file:
        assert ours.send_packet(PacketKind.CONNECTION, b"GET / HTTP/1.1\r\n\r\n", file.fileno())
    first, second = theirs.receive_packet(), theirs.receive_packet()
    assert first is not None
    assert (first.kind, LoadReport.decode(first.payload), first.fd) == (
        PacketKind.REPORT,
        LoadReport(5, 3, 1),
        None,
    )
    assert second is not None
    assert (second.kind, second.payload) == (PacketKind.CONNECTION, b"GET / HTTP/1.1\r\n\r\n")
    assert second.fd is not None
    os.close(second.fd)
    ours.close()
    with pytest.raises(ChannelClosedError):
        theirs.receive_packet()
    assert not theirs.send_packet(PacketKind.STOP)
    theirs.close()


def test_a_link_that_nobody_listens_on_takes_no_more_and_waits_for_nothing() -> None:
    ours, theirs = open_channel()
    with theirs:
        sent = 0
        while ours.send_packet(PacketKind.REPORT, bytes(1000)):
            sent += 1
        assert sent > 10
    ours.close()


class FakeWorkers:
    """Workers that report what they are given, without processes."""

    def __init__(self, size: int, folder: Path) -> None:
        self.workers = [
            WorkerHandle(worker_config(number, folder), lambda _worker, _packet: None)
            for number in range(size)
        ]
        self.given = [0] * size
        self.ends = []
        for worker in self.workers:
            worker._channel, theirs = open_channel()
            self.ends.append(theirs)
            worker._handle_packet(Packet(PacketKind.LISTENING))
            worker._handle_packet(Packet(PacketKind.READY))

    def give(self, connections: int) -> list[int]:
        """Let that many connections come; gives how many each worker has had so far."""
        for _ in range(connections):
            chosen = min(self.workers, key=lambda worker: worker.rank)
            assert chosen.send_connection(os.open(os.devnull, os.O_RDONLY))
            self.given[chosen.number] += 1
        return self.given

    def report(self, number: int, *, left: int = 0, level: LoadLevel = LoadLevel.CALM) -> None:
        """Let a worker say that it has taken what it was given, and that ``left`` of
        these have ended.
        """
        taken = self.given[number]
        self.workers[number]._handle_packet(
            Packet(PacketKind.REPORT, LoadReport(taken, taken - left, level).encode())
        )

    def close(self) -> None:
        for worker, end in zip(self.workers, self.ends, strict=True):
            for connection in worker.take_back_connections():
                os.close(connection)
            assert worker._channel is not None
            worker._channel.close()
            end.close()


def worker_config(number: int, folder: Path) -> WorkerConfig:
    admitted = Credentials(KeyStore(folder / "keys.sqlite3"), {}, None)
    return WorkerConfig(
        host=Path("/nonexistent"),
        number=number,
        workers=3,
        config=config(folder),
        credentials=admitted,
        port=0,
        ledger=folder / "ledger",
        shared=folder,
        import_path=(),
        log_level=0,
        engine_log_level=0,
    )


@pytest.fixture
async def fake_workers(config_file: Path) -> AsyncIterator[FakeWorkers]:
    fake_workers = FakeWorkers(3, config_file)
    yield fake_workers
    fake_workers.close()


async def test_the_worker_with_the_fewest_connections_is_next(fake_workers: FakeWorkers) -> None:
    assert fake_workers.give(9) == [3, 3, 3], "before any of them has said that it has taken one"
    for number in range(3):
        fake_workers.report(number)
    assert fake_workers.give(3) == [4, 4, 4]
    fake_workers.report(1, left=2)
    assert fake_workers.give(2) == [4, 6, 4], "those that have ended are counted no more"


async def test_a_worker_that_refuses_or_is_silent_is_passed_over(fake_workers: FakeWorkers) -> None:
    fake_workers.report(0, level=LoadLevel.REFUSING)
    assert fake_workers.give(4) == [0, 2, 2]
    await asyncio.sleep(2 * SILENT_S)
    fake_workers.report(0, level=LoadLevel.REFUSING)
    fake_workers.report(2)
    assert fake_workers.give(2) == [0, 2, 4]
    fake_workers.report(2, level=LoadLevel.REFUSING)
    assert fake_workers.give(1) == [1, 2, 4], "one that refuses says so at least"


@pytest.mark.real_time
async def test_connections_wait_at_the_door_until_somebody_takes_them() -> None:
    taken: list[int] = []
    there_is_somebody = False

    def give(connection: int) -> bool:
        if there_is_somebody:
            taken.append(connection)
        return there_is_somebody

    async with open_acceptor("127.0.0.1", 0) as door:
        door.start_accepting(give)
        clients = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(5)]
        await asyncio.sleep(0.3)
        assert not taken
        there_is_somebody = True
        async with asyncio.timeout(120):
            while len(taken) < 5:  # noqa: ASYNC110 - they come from the kernel
                await asyncio.sleep(0.01)
        for client, connection in zip(clients, taken, strict=True):
            os.write(connection, b"hello")
            client.settimeout(30)
            assert client.recv(5) == b"hello"
            os.close(connection)
            client.close()
        door.stop_accepting()
