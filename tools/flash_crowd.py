"""A flash crowd: ``python -m tools.flash_crowd --sessions N``.

N sessions connect and stay silent. Then all of them begin to speak within a second,
each for one turn, and hear the answer. The crowd comes twice: to a server that treats
all sessions alike, and to the server as it is, where optional work waits for turns
under way. Services are scripted, sockets and time are real.

By default N is twice what a core holds: admission refuses newcomers at 75 % of a core,
and a session-minute takes 0.22 s of CPU (``docs/bench.md``), which makes 204 sessions.
``--session-minute-s`` names another cost.

A turn is *under way* when the server has told that it hears speech. Its added latency
is the time from then, or from the end of what the user said if that is later, to the
answer's first audio, less the delays of the script and of the silence that ends a turn.
The *wait* is the time from the first sound to ``speech_started``. A turn is *lost* if
it has no whole answer within ``--patience``, and *cut* if its recogniser was given less
audio than the user spoke.

The clients write frames that are masked in advance, from one timer, so that one core
can send more than another can read. ``client_late_ms`` is how late that timer was, and
``client_busy_percent`` how busy the clients' core was: when the former is not far below
the latencies, or the latter is near 100, the latencies are those of the clients. Server
and clients have a core each where there are two.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from voicechat.bench import child
from voicechat.bench.recognising import synthesised
from voicechat.bench.script import DELAYS
from voicechat.bench.server import SCRIPTED, TIMESTAMPS_FOLDER, running_on, separate_cores
from voicechat.client import (
    ReplyAudioMessage,
    SpeechStartedMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    chat_settings,
    parse_message,
)
from voicechat.client.connection import socket_url
from voicechat.client.conversation import CHAT_PATH
from voicechat.config import AdmissionConfig
from voicechat.runtime import loop_lateness
from voicechat.server.serve import loop_factory
from voicechat.voice import detector

MODES = ("alike", "as it is")
ADDRESS = re.compile(r"(https?://\S+)/#key=(\S+)")
CONNECTING_S = 0.005
SILENT_S = 4.0
SPREAD_S = 1.0
SESSION_MINUTE_S = 0.22
"""CPU time of a hands-free session in a minute, by the bench of ``docs/bench.md``."""
REFUSING_PERCENT = AdmissionConfig().busy_refuse_percent
SILENCE_MS = 500
"""That ends a turn."""
NOISE_LEVEL = 8
"""Amplitude of the silence, of 32,767: a quiet room."""
SPEECH = "How many conversations can this machine hold when everybody speaks at once?"
OUTPUT = "PCM_16000HZ_MONO_16BIT"
BYTES_PER_MS = 32


@dataclass(slots=True)
class Turn:
    """What one session saw; times are seconds of the loop's clock."""

    began_s: float = 0.0
    said_s: float = 0.0
    noticed_s: float | None = None
    answered_s: float | None = None
    heard_ms: int = 0
    """How much audio the recogniser was given."""
    completed: asyncio.Event = field(default_factory=asyncio.Event)


class Visitor(asyncio.Protocol):
    """One session: silence, one turn, its answer."""

    def __init__(self, host: str, target: str, key: str) -> None:
        self.turn = Turn()
        self.opened = asyncio.Event()
        self._request = (
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
            f"Authorization: Bearer {key}\r\n\r\n"
        ).encode()
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        """What has not come by now is lost."""
        self._transport = None
        self.opened.set()

    def data_received(self, data: bytes) -> None:
        """Take the answer to the upgrade, then frames."""
        self._received += data
        if not self.opened.is_set():
            head, found, rest = bytes(self._received).partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head.split(b"\r\n")[0]:
                raise SystemExit(f"the server refused a session: {head.decode()}")
            self._received = bytearray(rest)
            self._update()
            self.opened.set()
        while self._take_frame():
            pass

    def send(self, frame: bytes) -> None:
        """Send a frame that is masked already."""
        if self._transport is not None:
            self._transport.write(frame)

    def leave(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _update(self) -> None:
        settings = chat_settings(
            input_format="pcm", output_format=OUTPUT, turn_detection={}, binary_audio=True
        )
        message = {"event_type": "chat.update", "message": json.dumps(settings)}
        self.send(masked(json.dumps(message).encode(), opcode=0x1))

    def _take_frame(self) -> bool:
        """Take one whole frame; False if there is none."""
        received = self._received
        if len(received) < 4:
            return False
        length, begin = received[1], 2
        if length == 126:
            length, begin = int.from_bytes(received[2:4], "big"), 4
        elif length == 127:
            length, begin = int.from_bytes(received[2:10], "big"), 10
        if len(received) < begin + length:
            return False
        opcode, payload = received[0] & 0x0F, bytes(received[begin : begin + length])
        del received[: begin + length]
        if opcode in (0x1, 0x2):
            self._take_message(payload.decode() if opcode == 0x1 else payload)
        return True

    def _take_message(self, frame: str | bytes) -> None:
        turn, now_s = self.turn, self._loop.time()
        message = parse_message(frame)
        if isinstance(message, SpeechStartedMessage) and turn.noticed_s is None:
            turn.noticed_s = now_s
        elif isinstance(message, TranscriptMessage) and message.end_ms is not None:
            turn.heard_ms += message.end_ms - message.begin_ms
        elif isinstance(message, ReplyAudioMessage) and turn.answered_s is None:
            turn.answered_s = now_s
        elif isinstance(message, TurnCompletedMessage) and turn.answered_s is not None:
            # A turn that was interrupted, or cut short, has no answer of its own.
            turn.completed.set()


class Crowd:
    """All visitors, and the one timer that sends their audio."""

    def __init__(self, visitors: Sequence[Visitor], speech: bytes, frame_ms: int) -> None:
        size = frame_ms * BYTES_PER_MS
        self._visitors = visitors
        self._frame_s = frame_ms / 1000
        self._speech = [masked(speech[at : at + size]) for at in range(0, len(speech), size)]
        noise = random.Random(0)
        self._silence = [
            masked(
                b"".join(
                    noise.randint(-NOISE_LEVEL, NOISE_LEVEL).to_bytes(2, "little", signed=True)
                    for _ in range(size // 2)
                )
            )
            for _ in range(50)
        ]
        self._sent = [0] * len(visitors)
        self._begins_at = [-1] * len(visitors)
        """At which of its frames each visitor begins to speak."""
        self.late_s: list[float] = []

    def speak(self, now_s: float) -> None:
        """Let everybody begin within ``SPREAD_S``."""
        for number, visitor in enumerate(self._visitors):
            wait = int(SPREAD_S / self._frame_s * number / len(self._visitors))
            self._begins_at[number] = self._sent[number] + wait
            visitor.turn.began_s = now_s + wait * self._frame_s
            visitor.turn.said_s = visitor.turn.began_s + len(self._speech) * self._frame_s

    async def send(self) -> None:
        """Send everybody's frames until cancelled, each visitor's at its own time."""
        loop = asyncio.get_running_loop()
        groups = round(self._frame_s * 1000)
        due_s = loop.time()
        group = 0
        while True:
            for number in range(group, len(self._visitors), groups):
                self._visitors[number].send(self._next_frame(number))
            group = (group + 1) % groups
            due_s += self._frame_s / groups
            await asyncio.sleep(due_s - loop.time())
            self.late_s.append(max(0.0, loop.time() - due_s))

    def _next_frame(self, number: int) -> bytes:
        sent, begins_at = self._sent[number], self._begins_at[number]
        self._sent[number] += 1
        if 0 <= begins_at <= sent < begins_at + len(self._speech):
            return self._speech[sent - begins_at]
        return self._silence[sent % len(self._silence)]


def masked(payload: bytes, opcode: int = 0x2) -> bytes:
    """Return a client's frame, masked with zeros, which leave the payload as it is."""
    length = len(payload)
    head = (
        bytes([0x80 | opcode, 0x80 | length])
        if length < 126
        else bytes([0x80 | opcode, 0x80 | 126]) + length.to_bytes(2, "big")
    )
    return head + bytes(4) + payload


@asynccontextmanager
async def serving(mode: str, core: int | None) -> AsyncIterator[tuple[str, str]]:
    """Run the bench's server in a process of its own; give its address and a key."""
    with tempfile.TemporaryDirectory(prefix="flash-crowd-") as folder:
        config = Path(folder) / "bench.toml"
        config.write_text(SCRIPTED.replace(TIMESTAMPS_FOLDER, folder))
        options = [str(config), str(Path(folder) / "data")]
        options += [] if core is None else [f"--core={core}"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "serve", mode, *options, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                address = ADDRESS.search(line.decode())
                if line.startswith(child.READY.encode()) and address is not None:
                    yield address[1], address[2]
                    break
        finally:
            process.send_signal(signal.SIGTERM)
            await process.communicate()


def serve(mode: str, options: Sequence[str]) -> None:
    """Be the server of one mode."""
    if mode == MODES[0]:
        detector.LATE_MS = 1_000_000_000
        loop_lateness.LATE_S = float("inf")
    sys.argv = [sys.argv[0], *options]
    child.main()


async def run_crowd(mode: str, options: argparse.Namespace) -> dict[str, object]:
    """Run the crowd once; give the figures."""
    loop = asyncio.get_running_loop()
    speech = await synthesised(SPEECH)
    cores = separate_cores()
    async with serving(mode, cores.server) as (url, key):
        with running_on(cores.client):
            visitors = await connected(url, key, options.sessions)
            crowd = Crowd(visitors, speech, options.frame_ms)
            sending = asyncio.create_task(crowd.send())
            await asyncio.sleep(SILENT_S)
            crowd.late_s.clear()
            crowd.speak(loop.time())
            began_s, began_busy_s = loop.time(), time.process_time()
            end_s = loop.time() + options.patience
            for visitor in visitors:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(end_s):
                        await visitor.turn.completed.wait()
            busy_s = time.process_time() - began_busy_s
            busy_percent = round(100 * busy_s / (loop.time() - began_s))
            sending.cancel()
            for visitor in visitors:
                visitor.leave()
    turns = [visitor.turn for visitor in visitors]
    spoken_ms = len(speech) // BYTES_PER_MS
    return {
        "mode": mode,
        "sessions": len(turns),
        "lost": sum(not turn.completed.is_set() for turn in turns),
        "cut": sum(turn.completed.is_set() and turn.heard_ms < spoken_ms for turn in turns),
        **latencies(turns),
        "client_late_ms": spread(crowd.late_s),
        "client_busy_percent": busy_percent,
    }


async def connected(url: str, key: str, sessions: int) -> list[Visitor]:
    """Open the sessions, one every ``CONNECTING_S``."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(socket_url(url, CHAT_PATH, {}))
    names = {"model": "default", "asr_easyllm_id": "default", "tts_easyllm_id": "default"}
    query = "&".join(f"{name}={value}" for name, value in names.items())
    visitors = []
    for _ in range(sessions):
        visitor = Visitor(parts.netloc, f"{parts.path}?{query}", key)
        address = parts.hostname or "", parts.port or 80
        await loop.create_connection(partial(as_is, visitor), *address)
        visitors.append(visitor)
        await asyncio.sleep(CONNECTING_S)
    for visitor in visitors:
        await visitor.opened.wait()
    return visitors


def as_is(visitor: Visitor) -> Visitor:
    """Return the protocol that ``create_connection`` asks for."""
    return visitor


def latencies(turns: Sequence[Turn]) -> dict[str, dict[str, int]]:
    """The figures of the turns that were answered."""
    usual_s = (DELAYS.first_audio_ms + SILENCE_MS) / 1000
    under_way, waits, total = [], [], []
    for turn in turns:
        if turn.completed.is_set() and turn.answered_s is not None and turn.noticed_s is not None:
            under_way.append(turn.answered_s - max(turn.noticed_s, turn.said_s) - usual_s)
            waits.append(turn.noticed_s - turn.began_s)
            total.append(turn.answered_s - turn.said_s - usual_s)
    return {
        "under_way_added_ms": spread(under_way),
        "wait_ms": spread(waits),
        "added_since_the_end_of_speech_ms": spread(total),
    }


def spread(values_s: Sequence[float]) -> dict[str, int]:
    """Median, p99 and worst, in milliseconds."""
    ordered = sorted(values_s)
    if not ordered:
        return {}
    places = {"p50": len(ordered) // 2, "p99": int(len(ordered) * 0.99), "worst": len(ordered) - 1}
    return {name: round(ordered[place] * 1000) for name, place in places.items()}


def main() -> None:
    """Run the crowd in both modes, and print a line of JSON for each."""
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description="a flash crowd")
    parser.add_argument("--sessions", type=int, help="by default twice what a core holds")
    parser.add_argument(
        "--session-minute-s",
        type=float,
        default=SESSION_MINUTE_S,
        help="CPU time that a session takes in a minute",
    )
    parser.add_argument("--frame-ms", type=int, default=20, help="audio in each frame")
    parser.add_argument("--patience", type=float, default=90.0, help="seconds for an answer")
    parser.add_argument("--mode", choices=MODES, action="append", help="only this one")
    options = parser.parse_args()
    if options.sessions is None:
        options.sessions = 2 * round(REFUSING_PERCENT / 100 * 60 / options.session_minute_s)
    for mode in options.mode or MODES:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            print(json.dumps(runner.run(run_crowd(mode, options))), flush=True)


if __name__ == "__main__":
    main()
