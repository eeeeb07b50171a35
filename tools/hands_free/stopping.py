"""How soon a server stops: a hundred hands-free sessions over real sockets, interrupted
by voice again and again.

The decision is the moment in which the session's machine says "canceled"; the end is
the moment in which the socket has taken that message. Both are seen from within the
server, by two observers laid around its own functions. The clients live in another
process.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.voice.sounds import RATE_HZ, silence, speak, to_pcm
from voicechat.client import (
    CanceledMessage,
    ClientConversation,
    ReplyAudioMessage,
    chat_settings,
    connect,
)
from voicechat.config import load_config
from voicechat.dialects.base import Frame
from voicechat.runtime import conversation
from voicechat.runtime.outbox import Outbox, Queued
from voicechat.runtime.services import Services
from voicechat.server.gc_tuning import tune_garbage_collector
from voicechat.server.serve import credentials, serving, tune_threads
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer

BLOCK_MS = 100
SENTENCE = "this goes on and on and it is of no importance at all. "


@dataclass
class Stops:
    """What was observed."""

    delays_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """What of the delays the event loop's thread itself computed, for whomever: the
    rest it was kept waiting.
    """
    late_bytes: int = 0
    lateness_ms: list[float] = field(default_factory=list)
    """How late timers of the same event loop fired meanwhile: what the machine and all
    other work make of any wait.
    """

    async def watch_loop(self) -> None:
        """Set a timer each 5 ms, until cancelled."""
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(0.005)
            self.lateness_ms.append((time.perf_counter() - began_s) * 1000 - 5)


class _ObservedOutbox(Outbox):
    """Sees the decision, and what is written after it."""

    stops = Stops()

    def __init__(self, *arguments: object, **more: object) -> None:
        super().__init__(*arguments, **more)  # type: ignore[arg-type]
        self._stopped_reply = 0
        self._decided_s = self._decided_cpu_s = 0.0

    def put_frames(
        self,
        frames: Sequence[Frame],
        *,
        reply: int = 0,
        audio_until_ms: int | None = None,
        urgent: bool = False,
    ) -> None:
        if _is_canceled(frames):
            # Not the loop's time: uvloop's stands still within one turn of the loop,
            # and counts whole milliseconds.
            self._decided_s = time.perf_counter()
            self._decided_cpu_s = time.thread_time()
        super().put_frames(frames, reply=reply, audio_until_ms=audio_until_ms, urgent=urgent)

    def flush_reply(self, reply: int) -> None:
        self._stopped_reply = reply
        super().flush_reply(reply)

    def _take(self) -> Queued:
        queued = super()._take()
        if queued.audio_until_ms is not None and queued.reply <= self._stopped_reply:
            self.stops.late_bytes += queued.size_bytes
        return queued

    def _note_written(self, queued: Queued) -> None:
        if _is_canceled(queued.frames):
            self.stops.cpu_ms.append((time.thread_time() - self._decided_cpu_s) * 1000)
            self.stops.delays_ms.append((time.perf_counter() - self._decided_s) * 1000)
        super()._note_written(queued)


def _is_canceled(frames: Sequence[Frame]) -> bool:
    return any(
        isinstance(frame, str) and '"conversation.chat.canceled"' in frame for frame in frames
    )


async def measure_stops(sessions: int, interruptions: int) -> Stops:
    """Serve, let as many clients talk, and tell how their replies were stopped. Takes 5
    s per interruption.
    """
    vars(conversation)["Outbox"] = _ObservedOutbox
    _ObservedOutbox.stops = Stops()
    services = Services(
        recognizers={"default": ScriptedRecognizer(texts=("say something",))},
        models={
            "default": ScriptedModel(
                replies=([f"{word} " for word in SENTENCE.split()] * 20,), delta_ms=30
            )
        },
        synthesizers={"default": ScriptedSynthesizer(chunk_delay_ms=20)},
    )
    with tempfile.TemporaryDirectory() as folder:
        # A hundred who connect at once are what is to be measured, not to be refused.
        admission = {
            "busy_refuse_percent": 1e9,
            "loop_lag_refuse_ms": 1e9,
            "detection_lag_refuse_ms": 1e9,
        }
        config = load_config(
            None, {"VOICECHAT_DATA_DIR": folder}, {"server": {"port": 0}, "admission": admission}
        )
        async with serving(config, services, credentials(config), lambda _: None) as server:
            tune_garbage_collector()
            tune_threads()
            watching = asyncio.get_running_loop().create_task(_ObservedOutbox.stops.watch_loop())
            arguments = (server.url, server.key or "", str(sessions), str(interruptions))
            clients = await asyncio.create_subprocess_exec(
                sys.executable, "-m", __spec__.name, *arguments
            )
            try:
                await clients.wait()
            finally:
                watching.cancel()
                with suppress(ProcessLookupError):
                    clients.kill()
    return _ObservedOutbox.stops


async def talk(url: str, key: str, number: int, of: int, interruptions: int) -> None:
    """One client: speaks, is answered, speaks again in mid-reply."""
    phrase = to_pcm(speak("no, stop that, and say something else"))
    script = to_pcm(silence(500)) + (phrase + to_pcm(silence(3_500))) * (1 + interruptions)
    loop = asyncio.get_running_loop()
    await asyncio.sleep(
        number * 5 / of + number * 0.0137 % 0.1
    )  # and no two send their blocks at the same time
    async with connect(url, key=key) as client:
        await client.update(
            chat_settings(
                input_format="pcm",
                sample_rate_hz=RATE_HZ,
                output_format="PCM_16000HZ_MONO_16BIT",
                turn_detection={},
                binary_audio=True,
            )
        )
        began_s = loop.time()
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_check(client))
            block_bytes = RATE_HZ * 2 * BLOCK_MS // 1000
            for start in range(0, len(script), block_bytes):
                await asyncio.sleep(began_s + start / (RATE_HZ * 2) - loop.time())
                await client.send_audio(script[start : start + block_bytes])
            reading.cancel()


async def _check(talk: ClientConversation) -> None:
    """Nothing of a reply may come after it was cancelled."""
    playing, canceled = "", set()
    async for message in talk:
        match message:
            case ReplyAudioMessage():
                playing = message.reply_id
                if playing in canceled:
                    print(f"audio of reply {playing} came after its end", file=sys.stderr)
            case CanceledMessage():
                canceled.add(playing)
            case _:
                pass


async def talk_all(url: str, key: str, sessions: int, interruptions: int) -> None:
    """All clients, their beginnings spread over one period of their speech."""
    async with asyncio.TaskGroup() as tasks:
        for number in range(sessions):
            tasks.create_task(talk(url, key, number, sessions, interruptions))


if __name__ == "__main__":
    url_of_server, key_of_server, *counts = sys.argv[1:]
    asyncio.run(talk_all(url_of_server, key_of_server, *map(int, counts)))
