"""Plain TCP connections."""

import asyncio

import pytest

from voicechat.dialects.audiosocket.frames import HANGUP, AudioSocketFraming
from voicechat.runtime.socket import Control
from voicechat.server.tcp import TcpSocket
from voicechat.session.limits import SessionLimits

pytestmark = pytest.mark.real_time

SOUND = b"\x10\x01\x40" + bytes(320)


@pytest.mark.parametrize("receiving", [False, True])
async def test_a_client_that_is_still_sending_reads_the_last_frame(receiving: bool) -> None:
    closed = asyncio.Event()
    sent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        socket = TcpSocket(reader, writer, AudioSocketFraming(), SessionLimits())
        await socket.receive()
        await sent.wait()
        async with asyncio.TaskGroup() as tasks:
            if receiving:
                tasks.create_task(receive_all(socket))
            await socket.send(bytes((HANGUP,)))
            await socket.close(0, "")
        socket.abort()
        closed.set()

    async def receive_all(socket: TcpSocket) -> None:
        while await socket.receive() is not Control.CLOSED:
            pass

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(SOUND * 400)
        await writer.drain()
        sent.set()
        assert await reader.read(3) == bytes((HANGUP, 0, 0))
        writer.write(SOUND * 400)
        assert await reader.read() == b""
        writer.close()
        await closed.wait()
