"""Calls beside other clients, and the pace of AudioSocket: ``python -m
tools.phone_capacity --sessions N``.

So many clients of speech-chat, and after them so many calls by Twilio's protocol, hold
the conversations of ``tools.device_capacity``, whose table this prints. Then so many
calls by AudioSocket (``tools.audiosocket_calls``) speak every 15 s, or with
``--silent`` never: *late* is how far each frame of 20 ms comes behind its place on the
clock that the call's first frames set; *drift* how far the last second's are, in the
median. The system's stamps say when a frame came, so that a late client is none of it;
how late the client is by itself is the last figure.

Alone and short: ``--only audiosocket --sessions 100 --seconds 120``; for the drift:
``--seconds 600``.
"""

import argparse
import asyncio
import json
import socket
import sys
from collections.abc import Sequence

import aiohttp
import pybase64

from tools.audiosocket_calls import caller_frames, hold_calls
from tools.device_capacity import CONFIG, HEADER, Protocol, SpeechChat, hold
from voicechat.audio import g711
from voicechat.audio.resample import Resampler
from voicechat.bench.recognising import synthesised
from voicechat.bench.server import Cores, bench_server, running_on, separate_cores

FRAME_MS = 20
CALLS = CONFIG.replace("silence_duration_ms = 200", "silence_duration_ms = 500")
"""The end of a call's turn is what clients of speech-chat ask for here."""
SPEECH = "Which way is it to the station from here, please?"


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


def free_port() -> int:
    """Return a TCP port of the loopback that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


KINDS = {"speech-chat": SpeechChat, "twilio": Twilio}


async def pace(sessions: int, seconds: float, cores: Cores, pcm: bytes) -> None:
    """Measure the pace of so many calls by AudioSocket, and print it. ``pcm`` is what
    callers say, at 16 kHz.
    """
    port = free_port()
    section = '[dialects.calls]\ndialect = "voicechat.dialects.audiosocket:open_endpoint"\n'
    async with bench_server(f"{CALLS}\n{section}port = {port}\n", cores.server) as server:
        frames = caller_frames(pcm)
        line = await asyncio.to_thread(
            hold_calls, port, sessions, seconds, frames, server.pid, cores.client
        )
    print(line, flush=True)


async def measure(sessions: int, seconds: float, only: Sequence[str], *, silent: bool) -> None:
    """Measure speech-chat and calls, each with a server of its own."""
    speech = await synthesised(SPEECH)
    pcm = speech + bytes(-len(speech) % (60 * 32))
    cores = separate_cores()
    print(f"{sessions} sessions, {seconds:g} s; {cores}")
    kinds = [kind for name, kind in KINDS.items() if name in only]
    if kinds:
        print(HEADER)
    for kind in kinds:
        async with bench_server(CALLS, cores.server) as server:
            with running_on(cores.client):
                protocol = kind(pcm, server.key)
                print(await hold(protocol, server.url, sessions, seconds, server.pid), flush=True)
    if "audiosocket" in only:
        await pace(sessions, seconds, cores, b"" if silent else pcm)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    lines = (*KINDS, "audiosocket")
    parser.add_argument("--only", nargs="+", choices=lines, default=lines, metavar="LINE")
    parser.add_argument("--silent", action="store_true", help="calls by AudioSocket say nothing")
    options = parser.parse_args()
    asyncio.run(measure(options.sessions, options.seconds, options.only, silent=options.silent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
