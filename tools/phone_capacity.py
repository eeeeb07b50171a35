"""Calls beside other clients, and the pace of AudioSocket: ``python -m
tools.phone_capacity --sessions N``.

So many clients of speech-chat, and after them so many calls by Twilio's protocol, hold
the conversations of ``tools.device_capacity``, whose table this prints. Then so many
calls by AudioSocket listen: *late* is how far each frame of 20 ms comes behind its
place on the clock that the call's first frames set, as the client's socket sees it;
*drift* how far the last second's are, in the median.
"""

import argparse
import asyncio
import json
import socket
import statistics
import sys
import uuid
from collections.abc import Sequence

import aiohttp
import pybase64

from tools.device_capacity import CONFIG, HEADER, Protocol, SpeechChat, hold
from voicechat.audio import g711
from voicechat.audio.resample import Resampler
from voicechat.bench.recognising import synthesised
from voicechat.bench.resource_usage import usage_of
from voicechat.bench.server import bench_server, running_on, separate_cores
from voicechat.dialects.audiosocket.frames import ID, NARROW, AudioSocketFraming

FRAME_MS = 20
SPEECH = "Which way is it to the station from here, please?"
CONNECT_S = 0.02
SETTLE_S = 1.0
"""The first second sets a call's clock."""


class Twilio(Protocol):
    """A call: mu-law in JSON, 50 messages a second."""

    frame_ms = FRAME_MS

    def __init__(self, pcm: bytes, key: str) -> None:
        down = Resampler(16_000, 8_000)
        line = g711.encoded(down.push_audio(pcm) + down.finish_stream(), g711.MU_LAW_CODES)
        frames = [line[start : start + 160] for start in range(0, len(line), 160)]
        self.speech = [self._media(frame.ljust(160, b"\xff")) for frame in frames]
        self.silence = self._media(b"\xff" * 160)
        self.path, self.headers = "/phone/twilio/stream", {}
        self._key = key

    @staticmethod
    def _media(payload: bytes) -> str:
        media = {"track": "inbound", "payload": pybase64.b64encode_as_string(payload)}
        return json.dumps({"event": "media", "streamSid": "MZ1", "media": media})

    def hello(self) -> Sequence[str]:
        start = {"streamSid": "MZ1", "callSid": "CA1", "customParameters": {"token": self._key}}
        return [json.dumps({"event": "start", "streamSid": "MZ1", "start": start})]

    def is_audio(self, message: aiohttp.WSMessage) -> bool:
        text = message.data if message.type is aiohttp.WSMsgType.TEXT else ""
        return text.startswith('{"event":"media"')

    def is_end(self, message: aiohttp.WSMessage) -> bool:
        # The mark behind the last sentence, or the clear of an interruption. Marks
        # stand behind other sentences too, but an answer of the script has only one.
        text = message.data if message.type is aiohttp.WSMsgType.TEXT else ""
        return text.startswith(('{"event":"clear"', '{"event":"mark"')) and ':0"' not in text


async def listen(port: int, seconds: float, late_ms: list[float], drifts_ms: list[float]) -> None:
    """Hold one call by AudioSocket in silence, and note when its frames come."""
    loop, framing = asyncio.get_running_loop(), AudioSocketFraming()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(framing.write(bytes((ID,)) + uuid.uuid4().bytes))
    silence = framing.write(bytes((NARROW,)) + bytes(320))

    async def speak() -> None:
        due_s = loop.time()
        while True:
            writer.write(silence)
            due_s += FRAME_MS / 1000
            await asyncio.sleep(due_s - loop.time())

    times_s: list[float] = []
    async with asyncio.TaskGroup() as tasks:
        speaking = tasks.create_task(speak())
        end_s = loop.time() + SETTLE_S + seconds
        while loop.time() < end_s:
            data = await reader.read(4096)
            times_s += [loop.time()] * len(framing.push(data))
        speaking.cancel()
    writer.close()
    behind = [at_s - number * FRAME_MS / 1000 for number, at_s in enumerate(times_s)]
    settled = int(SETTLE_S * 1000 / FRAME_MS)
    origin_s = min(behind[:settled])
    late_ms += [(each - origin_s) * 1000 for each in behind[settled:]]
    first, last = behind[:settled], behind[-settled:]
    drifts_ms.append((statistics.median(last) - statistics.median(first)) * 1000)


def free_port() -> int:
    """Return a TCP port of the loopback that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def pace(sessions: int, seconds: float, core: int | None, client_core: int | None) -> None:
    """Measure the pace of so many calls by AudioSocket, and print it."""
    port = free_port()
    section = '[dialects.calls]\ndialect = "voicechat.dialects.audiosocket:open_endpoint"\n'
    late_ms: list[float] = []
    drifts_ms: list[float] = []
    async with bench_server(f"{CONFIG}\n{section}port = {port}\n", core) as server:
        with running_on(client_core):
            async with asyncio.TaskGroup() as calls:
                for _ in range(sessions):
                    calls.create_task(listen(port, seconds, late_ms, drifts_ms))
                    await asyncio.sleep(CONNECT_S)
                began = usage_of(server.pid)
                await asyncio.sleep(seconds)
                ended = usage_of(server.pid)
    late_ms.sort()
    cpu = float("nan")
    if began is not None and ended is not None:
        cpu = (ended.cpu_s - began.cpu_s) * 60 / seconds / sessions
    parts = " / ".join(f"{late_ms[int(len(late_ms) * part)]:.1f}" for part in (0.5, 0.99, 0.999))
    print(
        f"AudioSocket: {sessions} calls, {len(late_ms)} frames; "
        f"late p50 / p99 / p99.9: {parts} ms; "
        f"drift at most {max(map(abs, drifts_ms)):.1f} ms; CPU s/min {cpu:.3f}"
    )


async def measure(sessions: int, seconds: float) -> None:
    """Measure speech-chat and calls, each with a server of its own."""
    speech = await synthesised(SPEECH)
    pcm = speech + bytes(-len(speech) % (60 * 32))
    cores = separate_cores()
    print(f"{sessions} sessions, {seconds:g} s; {cores}")
    print(HEADER)
    for kind in (SpeechChat, Twilio):
        async with bench_server(CONFIG, cores.server) as server:
            with running_on(cores.client):
                protocol = kind(pcm, server.key)
                print(await hold(protocol, server.url, sessions, seconds, server.pid), flush=True)
    await pace(sessions, seconds, cores.server, cores.client)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    asyncio.run(measure(options.sessions, options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
