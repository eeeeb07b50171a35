"""Descriptors are a budget: what clients take comes back, and connections are accepted
again.
"""

import asyncio
import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.hostile.clients import PING, frame
from tests.server.workers.stage import PATIENCE_S, Fleet, lives, ready_fleet, until
from tests.server.workers.test_supervisor import worker_config
from voicechat.server.workers.ipc_channel import (
    IpcChannel,
    LoadReport,
    Packet,
    PacketKind,
    open_channel,
)
from voicechat.server.workers.worker_connections import WorkerConnections
from voicechat.server.workers.worker_handle import MAX_UNTAKEN, WorkerHandle

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(
        sys.platform != "linux", reason="several workers need local packets in order"
    ),
]


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as lowest:
        free = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_connection_that_arrives_without_its_descriptor_counts_as_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours, given = open_channel()
    theirs = IpcChannel(given)
    guests = WorkerConnections(theirs, 0, 1, 0)
    with socket.socket() as connection:
        for _ in range(3):
            assert ours.send_packet(PacketKind.CONNECTION, b"", connection.fileno())
    with no_descriptor_left():
        packets = [theirs.receive_packet() for _ in range(3)]
    for packet in packets:
        assert packet == Packet(PacketKind.CONNECTION, b"", None)
        guests.adopt_connection(packet)
    reports = [
        packet for packet in iter(ours.receive_packet, None) if packet.kind is PacketKind.REPORT
    ]
    assert LoadReport.decode(reports[-1].payload) == LoadReport(taken=3, open=0, level=0)
    assert caplog.text.count("no descriptor left") == 1
    ours.close()
    theirs.close()


async def test_a_worker_is_given_only_so_many_connections_before_it_takes_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "none.toml").touch()
    worker = WorkerHandle(worker_config(0, tmp_path), lambda _worker, _packet: None)
    worker._channel, theirs = open_channel()
    before = descriptors()
    with theirs:
        for _ in range(MAX_UNTAKEN):
            assert worker.send_connection(os.open(os.devnull, os.O_RDONLY))
        refused = os.open(os.devnull, os.O_RDONLY)
        assert not worker.send_connection(refused)
        os.close(refused)
        worker._handle_packet(Packet(PacketKind.REPORT, LoadReport(MAX_UNTAKEN, 0, 0).encode()))
        assert descriptors() == before
        worker._channel.close()


def descriptors(pid: int | str = "self") -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.long
async def test_a_server_of_workers_outlives_a_flood_of_silent_connections(tmp_path: Path) -> None:
    async with ready_fleet(tmp_path, descriptors=160) as server, server.conversation() as inside:
        before = descriptors(server.process.pid)
        with ExitStack() as flood:
            for _ in range(400):
                await connect(server, flood)
            async with server.conversation() as newcomer:
                assert await lives(newcomer)
            assert await lives(inside)
            assert descriptors(server.process.pid) <= before + 2 * MAX_UNTAKEN

        async def are_back() -> bool:
            return descriptors(server.process.pid) <= before

        await until(are_back)
        async with server.conversation() as newcomer:
            assert await lives(newcomer)
        assert not [line for line in server.errors if "Traceback" in line or "lost" in line]
        told = [
            line for line in server.errors if "connections without a request are dropped" in line
        ]
        assert len(told) <= 2, "each worker tells once"


async def connect(server: Fleet, flood: ExitStack) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    client = flood.enter_context(socket.socket())
    client.setblocking(False)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.get_running_loop().sock_connect(client, (host, int(port)))


@pytest.mark.long
async def test_a_raw_space_and_early_frames_are_understood_by_every_worker(tmp_path: Path) -> None:
    async with ready_fleet(tmp_path, workers=2) as server:
        host, port = server.url.removeprefix("http://").split(":")
        for name in range(4):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                f"GET /api/open-apis/easyllms/stream-speech?session={name}&apikey=Bearer "
                f"{server.key}"
                " HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
                + frame(PING, b"early")
            )
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 101")
                answers = await reader.readuntil(b"early")
                assert b'"ok"' in answers
            writer.transport.abort()
