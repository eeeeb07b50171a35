"""Devices beside other clients: ``python -m tools.device_capacity --sessions N``.

So many devices with Opus both ways, and after them so many clients of speech-chat with
samples, hold conversations with a server of scripted services: microphones are open all
the time, and voice detection is real. Server and clients have a core each. A user asks,
interrupts the answer after 1.5 s with another question, hears that answer to its end
(4.4 s), and pauses for a second: the conversation of ``tools.peers``. With ``--calm``
no answer is interrupted and the pause is 6 s. What a user has said and heard in a
minute stands in the table.

*Wait* is from the end of what the user said to the first audio, with the silence that
ends a turn and the script's delays in it, the same for both: what counts is the
difference. *Interruption* is from the first sound of an interruption to the last audio
of the old answer.
"""

import argparse
import asyncio
import base64
import json
import random
import secrets
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import cast
from urllib.parse import urlsplit

import aiohttp
import uvloop
from typing_extensions import override

from voicechat.audio.encode import open_encoder
from voicechat.audio.formats import Container, packet_format
from voicechat.bench.recognising import synthesised
from voicechat.bench.resource_usage import ResourceUsage, usage_of
from voicechat.bench.script import REPLY_AUDIO_MS
from voicechat.bench.server import SCRIPTED, bench_server, running_on, separate_cores

FRAME_MS = 60
FRAME_BYTES = FRAME_MS * 32
BITRATE_BPS = 24_000
INTERRUPT_S = 1.5
"""After so much of an answer the user interrupts it."""
PAUSE_S = 1.0
CALM_PAUSE_S = 6.0
TURN_S = 15.0
"""A turn without an answer for so long counts as lost."""
CONNECT_S = 0.03
SPREAD_S = 14.0
"""Users begin to talk within so long, about one round of their conversation."""
WARM_S = 16.0
"""From the last connection to the first thing that counts."""
DTX = b"\x58"
"""What the firmware's encoder leaves of 60 ms of silence."""
SPEECH = "Hello there, can you tell me how the weather will be tomorrow morning?"
CONFIG = (
    SCRIPTED
    + """
[agents.default.turn_detection]
silence_duration_ms = 200
[hands_free]
interrupt_by = "voice"
"""
)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a user converses."""

    interrupts: bool = True
    """Every second answer is interrupted."""
    pause_s: float = PAUSE_S
    """After an answer that was heard to its end."""


@dataclass(slots=True)
class Tally:
    """What all users of one protocol saw."""

    waits_ms: list[float] = field(default_factory=list)
    interruptions_ms: list[float] = field(default_factory=list)
    lags_ms: list[float] = field(default_factory=list)
    """How late the users' own frames were."""
    said_s: float = 0.0
    heard_s: float = 0.0
    lost: int = 0
    counting: bool = False


class Protocol(ABC):
    """What one kind of client sends and receives."""

    path: str
    headers: dict[str, str]
    speech: Sequence[bytes | str]
    """What the user says, in frames of ``frame_ms``."""
    silence: bytes | str
    frame_ms = FRAME_MS

    @abstractmethod
    def hello(self) -> Sequence[str]:
        """What is said first."""

    @abstractmethod
    def is_audio(self, message: aiohttp.WSMessage) -> bool:
        """Whether a message holds audio of an answer."""

    @abstractmethod
    def is_end(self, message: aiohttp.WSMessage) -> bool:
        """Whether an answer ends with a message."""


class Device(Protocol):
    """A device in its mode ``realtime``."""

    def __init__(self, pcm: bytes, key: str) -> None:
        encoder = open_encoder(packet_format(Container.OPUS, 16_000, FRAME_MS, BITRATE_BPS))
        self.speech = encoder.encode(pcm, 16_000)
        self.silence = DTX
        self.path = "/xiaozhi/v1/"
        self.headers = {"Authorization": f"Bearer {key}", "Device-Id": "bench"}

    def hello(self) -> Sequence[str]:
        params = {"format": "opus", "sample_rate": 16_000, "frame_duration": FRAME_MS}
        hello = {"type": "hello", "transport": "websocket", "audio_params": params}
        return [
            json.dumps(hello),
            json.dumps({"type": "listen", "state": "start", "mode": "realtime"}),
        ]

    def is_audio(self, message: aiohttp.WSMessage) -> bool:
        return message.type is aiohttp.WSMsgType.BINARY

    def is_end(self, message: aiohttp.WSMessage) -> bool:
        return message.type is aiohttp.WSMsgType.TEXT and '"stop"' in message.data


class SpeechChat(Protocol):
    """A client of speech-chat, with samples both ways."""

    def __init__(self, pcm: bytes, key: str) -> None:
        starts = range(0, len(pcm), FRAME_BYTES)
        self.speech = [pcm[start : start + FRAME_BYTES] for start in starts]
        self.silence = bytes(FRAME_BYTES)
        self.path = (
            "/api/open-apis/projects/default/chat/speech-chat"
            "?model=default&asr_easyllm_id=default&tts_easyllm_id=default"
        )
        self.headers = {"Authorization": f"Bearer {key}"}

    def hello(self) -> Sequence[str]:
        hearing = {"speech_recognition_param": {"sample_rate": 16_000, "format": "pcm"}}
        speaking = {"synthesis_param": {"format": "PCM_16000HZ_MONO_16BIT"}}
        settings = {
            "create_transcription_task_req": {"heartbeat": True, **hearing},
            "chat_completion_with_voice_output_req": {
                "chat_completion_req": {},
                "speech_synthesis_req": speaking,
            },
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
        }
        return [json.dumps({"event_type": "chat.update", "message": settings})]

    def is_audio(self, message: aiohttp.WSMessage) -> bool:
        text = message.data if message.type is aiohttp.WSMsgType.TEXT else ""
        return text.startswith('{"status":"accepting"')

    def is_end(self, message: aiohttp.WSMessage) -> bool:
        text = message.data if message.type is aiohttp.WSMsgType.TEXT else ""
        return "conversation.chat.completed" in text or "conversation.chat.canceled" in text


class RawSocket(asyncio.Protocol):
    """A WebSocket that costs little: it sends frames that were masked before, by 0, and
    does not look into what is fragmented.
    """

    def __init__(self, received: Callable[[aiohttp.WSMessage], None]) -> None:
        self._received = received
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def shake_hands(self, path: str, host: str, headers: dict[str, str]) -> None:
        """Ask for the upgrade; ``open`` has a result once it was granted."""
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def send(self, frame: bytes) -> None:
        """Send what ``masked`` made."""
        assert self._transport is not None, "it is connected"
        self._transport.write(frame)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # which uvloop's is not by class

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        error = ConnectionError(f"the server has closed a connection: {exc}")
        if not self.open.done():
            self.open.set_exception(error)
        self._received(aiohttp.WSMessage(aiohttp.WSMsgType.CLOSED, error, None))

    @override
    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.open.done():
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            status = head.split(b"\r\n", 1)[0]
            if b" 101 " not in status:
                self.open.set_exception(ConnectionError(status.decode()))
                return
            self._data = rest
            self.open.set_result(None)
        at, data_bytes = 0, len(self._data)
        while data_bytes - at >= 2:
            size, begin = self._data[at + 1], at + 2
            if size == 126 and data_bytes >= at + 4:
                (size,), begin = struct.unpack_from(">H", self._data, at + 2), at + 4
            elif size == 127 and data_bytes >= at + 10:
                (size,), begin = struct.unpack_from(">Q", self._data, at + 2), at + 10
            elif size >= 126:
                break
            if data_bytes < begin + size:
                break
            self._take(self._data[at] & 15, bytes(self._data[begin : begin + size]))
            at = begin + size
        del self._data[:at]

    def _take(self, opcode: int, payload: bytes) -> None:
        match opcode:
            case 1:
                text = payload.decode()
                self._received(aiohttp.WSMessage(aiohttp.WSMsgType.TEXT, text, None))
            case 2:
                self._received(aiohttp.WSMessage(aiohttp.WSMsgType.BINARY, payload, None))
            case 9:
                self.send(masked(payload, opcode=10))
            case _:
                pass


def masked(frame: bytes | str, opcode: int | None = None) -> bytes:
    """Return the WebSocket frame of a client, masked by 0 (RFC 6455, section 5.3)."""
    payload = frame.encode() if isinstance(frame, str) else frame
    kind = opcode or (1 if isinstance(frame, str) else 2)
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | kind, 0x80 | size))
    else:
        head = bytes((0x80 | kind, 0x80 | 126)) + size.to_bytes(2, "big")
    return head + bytes(4) + payload


class Doing(Enum):
    """What a user does."""

    PAUSING = auto()
    ASKING = auto()
    WAITING = auto()
    HEARING = auto()


class User:
    """One user: asks, interrupts the answer, hears the next one to its end."""

    def __init__(self, protocol: Protocol, tally: Tally, manner: Manner) -> None:
        self._protocol = protocol
        self._tally = tally
        self._manner = manner
        self._loop = asyncio.get_running_loop()
        self._speech = [masked(frame) for frame in protocol.speech]
        self._silence = masked(protocol.silence)
        self._socket = RawSocket(self._receive)
        self._doing = Doing.PAUSING
        self._said = 0
        """Frames of the question that have been sent."""
        self._interrupting = False
        """The question, or the one that is answered, has interrupted an answer."""
        self._since_s = 0.0
        """When the question was begun, or ended, or the answer began."""
        self._next_s = 0.0
        """When the user asks next, if he pauses."""
        self._audio_s = 0.0
        """When the last audio came."""
        self._over = False
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.failed: BaseException | None = None

    async def connect(self, url: str) -> None:
        """Connect and say hello."""
        where = urlsplit(url)
        await self._loop.create_connection(
            lambda: self._socket, where.hostname or "", where.port or 80
        )
        protocol = self._protocol
        self._socket.shake_hands(protocol.path, where.netloc, protocol.headers)
        await self._socket.open
        for text in protocol.hello():
            self._socket.send(masked(text))

    def talk(self, delay_s: float) -> None:
        """Hold a conversation until ``close``, silent for ``delay_s`` first."""
        now_s = self._loop.time()
        self._next_s = now_s + delay_s
        self._due_s = now_s + random.random() * self._protocol.frame_ms / 1000
        self._timer = self._loop.call_at(self._due_s, self._tick)

    def close(self) -> None:
        """End the conversation."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        """Send the next frame of the microphone, and decide what to do."""
        if self.failed is not None:
            return
        now_s = self._loop.time()
        if self._tally.counting:
            self._tally.lags_ms.append((now_s - self._due_s) * 1000)
        self._due_s += self._protocol.frame_ms / 1000
        self._timer = self._loop.call_at(self._due_s, self._tick)
        self._decide(now_s)
        if self._doing is not Doing.ASKING:
            self._socket.send(self._silence)
            return
        self._socket.send(self._speech[self._said])
        self._said += 1
        self._tally.said_s += self._tally.counting * self._protocol.frame_ms / 1000
        if self._said == len(self._speech):
            self._ended(now_s)

    def _decide(self, now_s: float) -> None:
        match self._doing:
            case Doing.PAUSING if now_s >= self._next_s:
                self._ask(now_s, interrupting=False)
            case Doing.WAITING if now_s - self._since_s > TURN_S:
                self._tally.lost += self._tally.counting
                self._pause(now_s)
            case Doing.HEARING:
                heard_s = now_s - self._since_s
                if self._manner.interrupts and not self._interrupting and heard_s >= INTERRUPT_S:
                    self._tally.heard_s += self._tally.counting * heard_s
                    self._ask(now_s, interrupting=True)
                elif self._over and heard_s >= REPLY_AUDIO_MS / 1000:
                    self._tally.heard_s += self._tally.counting * REPLY_AUDIO_MS / 1000
                    self._pause(now_s)
                elif heard_s > TURN_S:
                    self._tally.lost += self._tally.counting
                    self._pause(now_s)
            case _:
                pass

    def _pause(self, now_s: float) -> None:
        self._doing, self._next_s = Doing.PAUSING, now_s + self._manner.pause_s

    def _ask(self, now_s: float, *, interrupting: bool) -> None:
        self._doing, self._interrupting = Doing.ASKING, interrupting
        self._said, self._since_s = 0, now_s

    def _ended(self, now_s: float) -> None:
        """The question has been said."""
        if self._interrupting and self._tally.counting and self._audio_s > self._since_s:
            self._tally.interruptions_ms.append((self._audio_s - self._since_s) * 1000)
        self._doing, self._since_s, self._over = Doing.WAITING, now_s, False

    def _receive(self, message: aiohttp.WSMessage) -> None:
        if message.type is aiohttp.WSMsgType.CLOSED:
            self.failed = message.data
        elif self._protocol.is_audio(message):
            self._audio_s = now_s = self._loop.time()
            if self._doing is Doing.WAITING:
                if self._tally.counting:
                    self._tally.waits_ms.append((now_s - self._since_s) * 1000)
                self._doing, self._since_s, self._over = Doing.HEARING, now_s, False
        elif self._doing is Doing.HEARING and self._protocol.is_end(message):
            self._over = True


async def hold(
    protocol: Protocol,
    url: str,
    sessions: int,
    seconds: float,
    pid: int,
    manner: Manner | None = None,
) -> "Row":
    """Hold so many conversations, and measure for so many seconds.

    Raises ConnectionError when the server refuses a connection or closes one.
    """
    tally = Tally()
    users: list[User] = []
    before = usage_of(pid)
    for _ in range(sessions):
        user = User(protocol, tally, manner or Manner())
        await user.connect(url)
        user.talk(CONNECT_S * (sessions - len(users)) + SPREAD_S * len(users) / sessions)
        users.append(user)
        await asyncio.sleep(CONNECT_S)
    await asyncio.sleep(WARM_S)
    began = usage_of(pid)
    tally.counting = True
    await asyncio.sleep(seconds)
    tally.counting = False
    ended = usage_of(pid)
    failures = [user.failed for user in users if user.failed is not None]
    for user in users:
        user.close()
    if failures:
        raise ConnectionError(f"{len(failures)} of {sessions} connections were lost: {failures[0]}")
    return Row(type(protocol).__name__, sessions, seconds, tally, before, began, ended)


@dataclass(frozen=True, slots=True)
class Row:
    """One protocol's figures."""

    name: str
    sessions: int
    seconds: float
    tally: Tally
    before: ResourceUsage | None
    began: ResourceUsage | None
    ended: ResourceUsage | None

    @property
    def cpu_s_per_minute(self) -> float:
        """Seconds of the server's CPU time for each minute of a session."""
        if self.began is None or self.ended is None:
            return float("nan")
        used_s = self.ended.cpu_s - self.began.cpu_s
        return used_s * 60 / self.seconds / self.sessions

    def __str__(self) -> str:
        """Write it as a line of the table."""
        tally = self.tally
        cpu, memory = self.cpu_s_per_minute, float("nan")
        if self.before is not None and self.ended is not None:
            memory = (self.ended.anonymous_bytes - self.before.anonymous_bytes) / self.sessions
        return (
            f"{self.name:<11} {len(tally.waits_ms):>6} {tally.lost:>5} "
            f"{_ms(tally.waits_ms)} {_ms(tally.interruptions_ms):>13} "
            f"{cpu:>8.3f} {memory / 1024**2:>7.2f} {self._a_minute(tally.said_s):>5.0f} "
            f"{self._a_minute(tally.heard_s):>5.0f} {_at(tally.lags_ms, 0.99):>7.0f}"
        )

    def _a_minute(self, seconds: float) -> float:
        """Seconds of each user's minute."""
        return seconds * 60 / self.seconds / self.sessions


HEADER = (
    f"{'protocol':<11} {'turns':>6} {'lost':>5} {'wait p50/p99':>13} {'interruption':>13} "
    f"{'CPU s/min':>8} {'MiB':>7} {'said':>5} {'heard':>5} {'bench':>7}"
)


def _ms(values: Sequence[float]) -> str:
    return f"{_at(values, 0.5):>5.0f} / {_at(values, 0.99):>5.0f}"


def _at(values: Sequence[float], part: float) -> float:
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


async def measure(sessions: int, seconds: float, manner: Manner) -> None:
    """Measure both protocols, each with a server of its own, and print a table."""
    speech = await synthesised(SPEECH)
    pcm = speech + bytes(-len(speech) % FRAME_BYTES)
    cores = separate_cores()
    print(f"{sessions} sessions, {seconds:g} s; {cores}")
    print(HEADER)
    for kind in (SpeechChat, Device):
        async with bench_server(CONFIG, cores.server) as server:
            with running_on(cores.client):
                protocol = kind(pcm, server.key)
                print(
                    await hold(protocol, server.url, sessions, seconds, server.pid, manner),
                    flush=True,
                )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--calm", action="store_true", help="nobody interrupts, pauses are long")
    options = parser.parse_args()
    manner = Manner(interrupts=False, pause_s=CALM_PAUSE_S) if options.calm else Manner()
    uvloop.run(measure(options.sessions, options.seconds, manner))
    return 0


if __name__ == "__main__":
    sys.exit(main())
