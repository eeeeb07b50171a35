"""Whatever a caller of a media stream does, it is handled as documented, and nothing of
it is left behind.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from tests.phones.service import KEY, phone_server
from tests.phones.test_media_stream_wires import MEDIA, STARTS, UP
from voicechat.dialects.media_streams.call import MOST_ERRORS
from voicechat.dialects.media_streams.endpoint import GREETING_FRAMES
from voicechat.server.serve import Running

pytestmark = [pytest.mark.real_time, pytest.mark.long]

START = json.loads(json.dumps(STARTS["twilio"]).replace("vct_1", KEY))
BAD_KEY = json.loads(json.dumps(STARTS["twilio"]).replace("vct_1", "vt_wrong"))
AUDIO = UP["twilio"]["media"]
BACKWARDS = [
    {**AUDIO, "sequenceNumber": str(9 - n), "media": {**AUDIO["media"], "chunk": str(9 - n)}}
    for n in range(9)
]
BAD_BASE64 = {"event": "media", "media": {"payload": "*"}}
HUGE = {"event": "media", "media": {"payload": MEDIA * 50_000}}
CASES: dict[str, tuple[Sequence[Any], bool]] = {
    "a stream without start": ([AUDIO] * GREETING_FRAMES, False),
    "a wrong key": ([BAD_KEY], False),
    "no JSON": (["hello"], False),
    "a start without a call": ([{"event": "start"}], False),
    "10 MB before the start": ([HUGE], False),
    "10 MB in the call": ([START, HUGE], False),
    "broken media, again and again": ([START, *[BAD_BASE64] * MOST_ERRORS], False),
    "a stop in the middle of the greeting": ([START, UP["twilio"]["stop"]], False),
    "media before the start": ([AUDIO, START, AUDIO], True),
    "numbers that go backwards": ([START, *BACKWARDS], True),
    "an event of next year": ([START, {"event": "hologram"}, AUDIO], True),
    "a second start": ([START, START, AUDIO], True),
}
"""What is said, and whether the call goes on."""


async def send(socket: ClientConnection, frame: str) -> None:
    """Send a frame. Raises ``ConnectionClosed`` when the server has closed."""
    try:
        await socket.send(frame)
    except AttributeError:  # websockets aborts asyncio's transport when that is gone already
        raise ConnectionClosedError(None, None) from None


async def said(server: Running, frames: Sequence[Any]) -> bool:
    """Say all that; return whether the call has gone on, and hang up without a word."""
    address = f"{server.url.replace('http', 'ws')}/phone/twilio/stream/hotel"
    async with connect(address, max_size=None) as socket:
        try:
            for frame in frames:
                await send(socket, frame if isinstance(frame, str) else json.dumps(frame))
            await send(socket, json.dumps({**UP["twilio"]["key"], "dtmf": {"digit": "#"}}))
            async for message in socket:
                mark = json.loads(message).get("mark", {}).get("name", "")
                if mark.startswith("2:"):  # the entry of keys is answered, after the greeting
                    socket.transport.abort()
                    return True
        except ConnectionClosed:
            pass
    return False


async def test_nothing_is_left_of_any_call(tmp_path: Path) -> None:
    async with phone_server(tmp_path) as server, asyncio.timeout(120), nothing_left(server):
        for case, (frames, goes_on) in CASES.items():
            assert await said(server, frames) is goes_on, case


async def test_nothing_is_left_wherever_a_caller_hangs_up(tmp_path: Path) -> None:
    address = "/phone/twilio/stream/hotel"
    async with phone_server(tmp_path) as server, asyncio.timeout(120), nothing_left(server):
        for heard in range(9):
            async with connect(server.url.replace("http", "ws") + address) as socket:
                await socket.send(json.dumps(START))
                for key in "12#":
                    dtmf = {**UP["twilio"]["key"], "dtmf": {"digit": key}}
                    await socket.send(json.dumps(dtmf))
                for _ in range(heard):  # the greeting, its clear, the answer
                    await socket.send(json.dumps(AUDIO))
                    await socket.recv()
                socket.transport.abort()


@asynccontextmanager
async def nothing_left(server: Running) -> AsyncIterator[None]:
    """Wait until all calls in the context are over, and look for what is left."""
    before = {task.get_name() for task in asyncio.all_tasks()}
    yield

    def left() -> set[str]:
        names = {task.get_name() for task in asyncio.all_tasks()} - before
        return {name for name in names if name.startswith(("session", "reply"))}

    while server.admission.sessions or left():  # noqa: ASYNC110 - bounded by a timeout
        await asyncio.sleep(0.05)
