"""What a reply and a hands-free minute cost: ``python -m tools.reply_costs``.

A whole server with scripted services runs in this process, on the virtual clock and
with clients in the place of sockets: nothing waits, other programs disturb little, and
the same calls are made each time. Two figures are told for each thing: the processor
time, the least of several runs, and the Python calls of this package, by the
interpreter's profile hook.

Replies of different lengths are made one after the other. A piece of the model's text,
a packet of audio and a sentence cost what a reply costs more that has more of them; the
rest is the reply's own.

With ``--hands-free N``, N microphones are open instead: everybody speaks, hears half an
answer, interrupts it, hears the next one whole, and pauses. Syscalls and uvloop are no
part of either; ``docs/bench.md`` has the bench that includes them.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from aiohttp import web

import voicechat
from voicechat.bench.recognising import synthesised
from voicechat.client import chat_settings
from voicechat.config import build_services, endpoints_of, load_config
from voicechat.providers.interfaces import (
    AudioChunk,
    ChatModel,
    ChatRequest,
    RecognitionOptions,
    ReplyFinished,
    ReplyPart,
    SpeechRecognizer,
    SpeechSynthesizer,
    TextDelta,
    VoiceOptions,
)
from voicechat.server.admission import Admission
from voicechat.server.app import build_app
from voicechat.server.auth import Principal
from voicechat.server.gc_tuning import tune_garbage_collector
from voicechat.server.mount import Mount
from voicechat.server.serve import detecting, open_detector, tune_threads
from voicechat.server.session_opening import Conditions
from voicechat.session.limits import SessionLimits
from voicechat.session.types import Transcript
from voicechat.store.access import ApiEndpoint
from voicechat.testing.virtual_time import VirtualTimeLoop

FORMATS = ("PCM_16000HZ_MONO_16BIT", "MP3_16000HZ_MONO_64KBPS", "OGG_OPUS_16KHZ_MONO_32KBPS")
PATH = (
    "/api/open-apis/projects/default/chat/speech-chat"
    "?token=k&model=default&asr_easyllm_id=default&tts_easyllm_id=default"
)
RATE_HZ = 16_000
CHUNK_MS = 20
PACKET_MS = 100
"""Of a reply's audio, in one message."""
TOKEN_S = 0.01
FIRST_AUDIO_S = 0.05
UNDERSTOOD_S = 0.1
PAUSE_S = 1.0
HEARD_S = 1.5
"""Of the answer that is interrupted."""
SPEECH = "Please tell me how the weather will be tomorrow, and the day after that."
CONFIG = """
[server]
speech_cache_mib = 0
max_sessions = 10000
[asr.default]
provider = "tools.reply_costs:open_recognizer"
[llm.default]
provider = "tools.reply_costs:open_chat_model"
[tts.default]
provider = "tools.reply_costs:open_synthesizer"
[hands_free]
interrupt_by = "voice"
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the scripted services answer."""

    sentences: int = 4
    pieces: int = 40
    """Of the model's text, in all sentences."""
    packets: int = 40
    """Of audio, in all sentences."""

    def tokens(self) -> list[str]:
        """Return the pieces of the model's text."""
        per_sentence = self.pieces // self.sentences
        return [
            ("Word" if number % per_sentence == 0 else " word")
            + (". " if (number + 1) % per_sentence == 0 else "")
            for number in range(self.pieces)
        ]

    def chunks(self) -> int:
        """Return how many chunks of audio a sentence has."""
        return self.packets * PACKET_MS // CHUNK_MS // self.sentences


_shape = Shape()
"""What the services answer now."""


class _Recognizer:
    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        heard_bytes = 0
        async for pcm in audio:
            heard_bytes += len(pcm)
        if heard_bytes:
            await asyncio.sleep(UNDERSTOOD_S)
            yield Transcript(SPEECH, 0, heard_bytes * 1000 // (2 * RATE_HZ))


class _Model:
    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        for token in _shape.tokens():
            await asyncio.sleep(TOKEN_S)
            yield TextDelta(token)
        yield ReplyFinished("stop")


class _Synthesizer:
    voices = ("noise",)

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        await asyncio.sleep(FIRST_AUDIO_S)
        chunk = bytes(range(1, 161)) * (RATE_HZ * CHUNK_MS // 1000 * 2 // 160)
        for _ in range(_shape.chunks()):
            yield AudioChunk(chunk, RATE_HZ)


def open_recognizer() -> SpeechRecognizer:
    """Open the scripted recogniser."""
    return _Recognizer()


def open_chat_model() -> ChatModel:
    """Open the scripted chat model."""
    return _Model()


def open_synthesizer() -> SpeechSynthesizer:
    """Open the scripted synthesiser."""
    return _Synthesizer()


class _Doorkeeper:
    async def __call__(self, request: web.Request, endpoint: ApiEndpoint) -> Principal:
        return Principal("id")

    async def admit_key(self, key: str, address: str, endpoint: ApiEndpoint) -> Principal:
        return Principal("id")


class Client(asyncio.Transport):
    """A client in the place of its socket, to which the server writes."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._protocol: Any = protocol
        self._closed = False
        self.completed = asyncio.Event()
        self.audible = asyncio.Event()
        protocol.connection_made(self)
        request = (
            f"GET {PATH} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        protocol.data_received(request.encode())

    def send(self, frame: bytes) -> None:
        """Send a frame made by ``masked``."""
        self._protocol.data_received(frame)

    def send_message(self, **message: object) -> None:
        """Send a text message."""
        self.send(masked(json.dumps(message).encode(), opcode=0x1))

    def write(self, data: Any) -> None:
        """Take what the server writes: it is one frame."""
        if b"conversation.chat.completed" in data[:100]:
            self.completed.set()
        elif b'"accepting"' in data[:40]:
            self.audible.set()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol have what the client sends."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def close(self) -> None:
        """Close the connection."""
        self.abort()

    def abort(self) -> None:
        """Drop the connection."""
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def pause_reading(self) -> None:
        """Nothing is paused: clients send little."""

    def resume_reading(self) -> None:
        """Nothing was paused."""

    def get_write_buffer_size(self) -> int:
        """Everything is taken at once."""
        return 0


def masked(payload: bytes, opcode: int = 0x2) -> bytes:
    """Return a client's frame (RFC 6455), masked with zeros."""
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + size + bytes(4) + payload


@asynccontextmanager
async def serving() -> AsyncIterator[Callable[[], Client]]:
    """Run a server; yields what connects a client."""
    with tempfile.TemporaryDirectory(prefix="reply-costs-") as folder:
        path = Path(folder) / "voicechat.toml"
        path.write_text(CONFIG)
        config = load_config(path, {"VOICECHAT_DATA_DIR": folder})
        services = build_services(config)
        detector = open_detector(config)
        conditions = Conditions(
            limits=SessionLimits(),
            observe=lambda _: None,
            detector=detector,
            interrupt_by_voice=True,
        )
        mount = Mount(endpoints_of(config), services, Admission(10_000), _Doorkeeper(), conditions)
        runner = web.AppRunner(build_app(mount.routes()))
        await runner.setup()
        assert runner.server is not None
        tune_garbage_collector()
        tune_threads()
        try:
            async with detecting(detector):
                yield lambda: Client(runner.server())  # type: ignore[misc]
        finally:
            await mount.drain(0)
            await runner.cleanup()
            await services.aclose()


class CallTotal:
    """Counts the Python calls of this package, with the profile hook."""

    def __init__(self) -> None:
        self.calls = 0
        self._inside: dict[Any, bool] = {}

    def hook(self, frame: FrameType, event: str, _: Any) -> None:
        """See ``sys.setprofile``."""
        if event == "call":
            code = frame.f_code
            inside = self._inside.get(code)
            if inside is None:
                path = code.co_filename
                package = str(Path(voicechat.__file__).parent)
                inside = path.startswith(package) and "/testing/" not in path
                self._inside[code] = inside
            self.calls += inside


async def measured(work: Callable[[], Any], times: int) -> tuple[float, int]:
    """Return the processor time in seconds, the least of ``times`` runs, and the calls
    of one run more.
    """
    least_s = float("inf")
    for _ in range(times):
        began_s = time.process_time()
        await work()
        least_s = min(least_s, time.process_time() - began_s)
    counter = CallTotal()
    sys.setprofile(counter.hook)
    await work()
    sys.setprofile(None)
    return least_s, counter.calls


async def answer(client: Client, shape: Shape, replies: int) -> None:
    """Let the server make replies, one after the other."""
    global _shape
    _shape = shape
    for _ in range(replies):
        client.completed.clear()
        message = {"event_type": "conversation.message.create", "role": "user", "content": "a"}
        client.send_message(**message)
        await client.completed.wait()
        await asyncio.sleep(PAUSE_S)


async def price_replies(output_format: str, times: int, replies: int) -> None:
    """Print what a reply costs in a format."""
    usual = Shape()
    shapes: Mapping[str, tuple[Shape, int]] = {
        "a reply of 4 sentences, 40 pieces of text, 4 s": (usual, 1),
        "a piece of text": (replace(usual, pieces=80), 40),
        f"a packet of {PACKET_MS} ms of audio": (replace(usual, packets=80), 40),
        "a sentence": (replace(usual, sentences=8), 4),
    }
    print(f"{output_format:50} {'us':>8} {'calls':>8}")
    async with serving() as connect:
        client = connect()
        await asyncio.sleep(PAUSE_S)
        settings = chat_settings(output_format=output_format)
        client.send_message(event_type="chat.update", message=settings)
        await answer(client, usual, 3)
        base_s, base_calls = 0.0, 0
        for name, (shape, more) in shapes.items():
            took_s, calls = await measured(partial(answer, client, shape, replies), times)
            each_us = (took_s - base_s) / replies / more * 1e6
            print(f"{name:50} {each_us:8.0f} {(calls - base_calls) / replies / more:8.1f}")
            if not base_s:
                base_s, base_calls = took_s, calls


async def speak(client: Client, frames: list[bytes]) -> None:
    """Send frames in real time."""
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    for frame in frames:
        client.send(frame)
        due_s += CHUNK_MS / 1000
        await asyncio.sleep(due_s - loop.time())


async def converse(client: Client, speech: list[bytes], after_s: float) -> None:
    """Hold a hands-free conversation until cancelled."""
    silence = masked(bytes(RATE_HZ * CHUNK_MS // 1000 * 2))
    await speak(client, [silence] * int(after_s * 1000 / CHUNK_MS))
    while True:
        for heard_s in (HEARD_S, None):
            await speak(client, speech)
            client.audible.clear()
            client.completed.clear()
            awaited = client.completed if heard_s is None else client.audible
            while not awaited.is_set():
                await speak(client, [silence])
            more_s = PAUSE_S if heard_s is None else heard_s
            await speak(client, [silence] * int(more_s * 1000 / CHUNK_MS))


async def price_minutes(sessions: int, times: int, speech: bytes) -> None:
    """Print what a session-minute costs."""
    size = RATE_HZ * CHUNK_MS // 1000 * 2
    frames = [
        masked(speech[at : at + size].ljust(size, b"\0")) for at in range(0, len(speech), size)
    ]
    seconds = 10
    settings = chat_settings(
        input_format="pcm",
        output_format=FORMATS[0],
        turn_detection={"silence_duration_ms": 200, "min_interruption_ms": 200},
    )
    async with serving() as connect, asyncio.TaskGroup() as conversations:
        tasks = []
        for number in range(sessions):
            client = connect()
            await asyncio.sleep(0.01)
            client.send_message(event_type="chat.update", message=settings)
            after_s = seconds * number / sessions
            tasks.append(conversations.create_task(converse(client, frames, after_s)))
        await asyncio.sleep(2 * seconds)
        took_s, calls = await measured(partial(asyncio.sleep, seconds), times)
        minutes = sessions * seconds / 60
        print(
            f"{sessions} hands-free sessions: {took_s / minutes * 1000:.0f} ms and "
            f"{calls / minutes:,.0f} calls in a session-minute"
        )
        for task in tasks:
            task.cancel()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hands-free", type=int, metavar="N", help="N open microphones")
    parser.add_argument("--times", type=int, default=5, help="runs, of which the least counts")
    parser.add_argument("--replies", type=int, default=20, help="replies in a run")
    options = parser.parse_args()
    speech = asyncio.run(synthesised(SPEECH)) if options.hands_free else b""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        if options.hands_free:
            runner.run(price_minutes(options.hands_free, options.times, speech))
            return
        for output_format in FORMATS:
            runner.run(price_replies(output_format, options.times, options.replies))


if __name__ == "__main__":
    # The configuration loads this module by its name: another one would have a shape of
    # its own.
    from tools import reply_costs

    reply_costs.main()
