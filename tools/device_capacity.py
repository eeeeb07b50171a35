"""Devices beside other clients: ``python -m tools.device_capacity --sessions N``.

So many devices with Opus both ways, and after them so many clients of speech-chat with
samples, hold conversations with a server of scripted services: microphones are open all
the time, voice detection is real, every second answer is interrupted. Server and
clients have a core each. *Wait* is from the end of what the user said to the first
audio, with the silence that ends a turn and the script's delays in it, the same for
both: what counts is the difference. *Interruption* is from the first sound of an
interruption to the last audio of the old answer.
"""

import argparse
import asyncio
import json
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from voicechat.audio.encode import open_encoder
from voicechat.audio.formats import Container, packet_format
from voicechat.bench.recognising import synthesised
from voicechat.bench.resource_usage import ResourceUsage, usage_of
from voicechat.bench.server import SCRIPTED, bench_server, running_on, separate_cores

FRAME_MS = 60
FRAME_BYTES = FRAME_MS * 32
BITRATE_BPS = 24_000
INTERRUPT_S = 1.5
"""After so much of an answer the user interrupts it."""
PAUSE_S = 1.0
TURN_S = 15.0
"""A turn without an answer for so long counts as lost."""
CONNECT_S = 0.03
WARM_S = 8.0
DTX = b"\x58"
"""What the firmware's encoder leaves of 60 ms of silence."""
SPEECH = "Which way is it to the station from here, please?"
CONFIG = (
    SCRIPTED
    + """
[agents.default.turn_detection]
silence_duration_ms = 500
[hands_free]
interrupt_by = "voice"
"""
)


@dataclass(slots=True)
class Tally:
    """What all users of one protocol saw."""

    waits_ms: list[float] = field(default_factory=list)
    interruptions_ms: list[float] = field(default_factory=list)
    lags_ms: list[float] = field(default_factory=list)
    """How late the users' own frames were."""
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


class User:
    """One user: asks, interrupts the answer, hears the next one to its end."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, protocol: Protocol, tally: Tally
    ) -> None:
        self._socket = socket
        self._protocol = protocol
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._said = len(protocol.speech)
        """Frames of the speech that have been sent; all: the user is silent."""
        self._ended_s = 0.0
        self._audio_s = 0.0
        """When the last audio came."""
        self._answered = asyncio.Event()
        self._over = asyncio.Event()
        self._spoken = asyncio.Event()

    async def talk(self, delay_s: float) -> None:
        """Hold a conversation until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            tasks.create_task(self._receive())
            await asyncio.sleep(delay_s)
            while True:
                try:
                    async with asyncio.timeout(2 * TURN_S):
                        await self._ask()
                        await asyncio.sleep(INTERRUPT_S)
                        began_s = self._loop.time()
                        await self._ask(interrupts=True, began_s=began_s)
                        await self._over.wait()
                except TimeoutError:
                    self._tally.lost += self._tally.counting
                await asyncio.sleep(PAUSE_S)

    async def _ask(self, *, interrupts: bool = False, began_s: float = 0.0) -> None:
        self._spoken.clear()
        self._said = 0
        await self._spoken.wait()
        if interrupts and self._tally.counting and self._audio_s > began_s:
            self._tally.interruptions_ms.append((self._audio_s - began_s) * 1000)
        self._answered.clear()
        self._over.clear()
        await self._answered.wait()
        if self._tally.counting:
            self._tally.waits_ms.append((self._audio_s - self._ended_s) * 1000)

    async def _send(self) -> None:
        frame_s = self._protocol.frame_ms / 1000
        due_s = self._loop.time() + random.random() * frame_s
        speech, silence = self._protocol.speech, self._protocol.silence
        while True:
            await asyncio.sleep(max(0.0, due_s - self._loop.time()))
            if self._tally.counting:
                self._tally.lags_ms.append((self._loop.time() - due_s) * 1000)
            due_s += frame_s
            if self._said == len(speech):
                await self._send_frame(silence)
                continue
            await self._send_frame(speech[self._said])
            self._said += 1
            if self._said == len(speech):
                self._ended_s = self._loop.time()
                self._spoken.set()

    async def _send_frame(self, frame: bytes | str) -> None:
        if isinstance(frame, str):
            await self._socket.send_str(frame)
        else:
            await self._socket.send_bytes(frame)

    async def _receive(self) -> None:
        async for message in self._socket:
            if self._protocol.is_audio(message):
                if not self._answered.is_set():
                    self._audio_s = self._loop.time()
                    self._answered.set()
                self._audio_s = self._loop.time()
            elif self._protocol.is_end(message):
                self._over.set()
        raise ConnectionError("the server has closed a connection")


async def hold(protocol: Protocol, url: str, sessions: int, seconds: float, pid: int) -> "Row":
    """Hold so many conversations, and measure for so many seconds."""
    tally = Tally()
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as client,
        asyncio.TaskGroup() as users,
    ):
        talking = []
        before = usage_of(pid)
        for number in range(sessions):
            socket = await client.ws_connect(
                url + protocol.path, headers=protocol.headers, max_msg_size=0, compress=0
            )
            for text in protocol.hello():
                await socket.send_str(text)
            user = User(socket, protocol, tally)
            talking.append(users.create_task(user.talk(10.0 * number / sessions)))
            await asyncio.sleep(CONNECT_S)
        await asyncio.sleep(WARM_S)
        began = usage_of(pid)
        tally.counting = True
        await asyncio.sleep(seconds)
        tally.counting = False
        ended = usage_of(pid)
        for task in talking:
            task.cancel()
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

    def __str__(self) -> str:
        """Write it as a line of the table."""
        tally = self.tally
        cpu = memory = float("nan")
        if self.before is not None and self.began is not None and self.ended is not None:
            used_s = self.ended.cpu_s - self.began.cpu_s
            cpu = used_s * 60 / self.seconds / self.sessions
            memory = (self.ended.anonymous_bytes - self.before.anonymous_bytes) / self.sessions
        return (
            f"{self.name:<11} {len(tally.waits_ms):>6} {tally.lost:>5} "
            f"{_ms(tally.waits_ms)} {_ms(tally.interruptions_ms):>13} "
            f"{cpu:>8.3f} {memory / 1024**2:>7.2f} {_at(tally.lags_ms, 0.99):>7.0f}"
        )


HEADER = (
    f"{'protocol':<11} {'turns':>6} {'lost':>5} {'wait p50/p99':>13} {'interruption':>13} "
    f"{'CPU s/min':>8} {'MiB':>7} {'bench':>7}"
)


def _ms(values: Sequence[float]) -> str:
    return f"{_at(values, 0.5):>5.0f} / {_at(values, 0.99):>5.0f}"


def _at(values: Sequence[float], part: float) -> float:
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


async def measure(sessions: int, seconds: float) -> None:
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
                print(await hold(protocol, server.url, sessions, seconds, server.pid), flush=True)


def main() -> int:
    """Measure and print."""
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
