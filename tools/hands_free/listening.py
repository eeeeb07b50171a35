"""What listening costs: the event loop's and the detector's milliseconds for a second
of a microphone, part by part.

Blocks of 20 ms, as a microphone sends them; a reply plays meanwhile where the echo is
measured.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

import numpy as np

from tests.voice.sounds import RATE_HZ, REPLY, Samples, in_a_room, noise, speak, to_pcm
from voicechat.audio.decode import open_decoder
from voicechat.audio.formats import parse_input_format
from voicechat.dialects.base import Connection
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.runtime.audio_input import AudioInput, EchoGate
from voicechat.runtime.audio_input.ring_buffer import RingBuffer
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import OpenRecognition, Route, RouteAudio
from voicechat.session.limits import SessionLimits
from voicechat.session.types import InputSettings, Transcript
from voicechat.voice.activity import SpeechActivity
from voicechat.voice.detector import FrameScore
from voicechat.voice.gate import Gate
from voicechat.voice.listener import Listener, StreamFrames, score
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS, VoiceModel, find_model
from voicechat.voice.silero_network import open_silero

T = TypeVar("T")
BLOCK_BYTES = RATE_HZ * 2 * 20 // 1000
BATCH = 32
REPEATED = 5
"""Of as many runs the fastest counts: the others were disturbed."""


def cut(pcm: bytes, size_bytes: int) -> list[bytes]:
    return [pcm[at : at + size_bytes] for at in range(0, len(pcm) - size_bytes + 1, size_bytes)]


def measure_listening() -> dict[str, float]:
    """Milliseconds of CPU per second of audio."""
    reply = speak(REPLY)
    pcm, seconds = to_pcm(reply), len(reply) / RATE_HZ
    frames, blocks = cut(pcm, FRAME_BYTES), cut(pcm, BLOCK_BYTES)
    model, listener = open_silero(find_model()), Listener()
    probabilities = [
        score(model, [StreamFrames(listener, (frame,))]).probabilities[0][0] for frame in frames
    ]
    wide = cut(to_pcm(np.repeat(reply, 3)), 3 * BLOCK_BYTES)
    echo = cut(to_pcm(in_a_room(reply) * 0.15), FRAME_BYTES)
    tone = cut(to_pcm(noise(len(reply) * 1000 // RATE_HZ, -60)), FRAME_BYTES)
    parts: dict[str, Callable[[], object]] = {
        "message": lambda: take_messages(blocks),
        "samples of 16 kHz": lambda: decode(blocks, 16_000),
        "samples of 48 kHz, resampled": lambda: decode(wide, 48_000),
        "gate": lambda: [gate.push(frame) for gate in [Gate()] for frame in frames],
        "Silero alone, of speech, with the gate": lambda: detect(model, frames, 1),
        f"Silero in a batch of {BATCH}": lambda: detect(model, frames, BATCH),
        "speech and silence": lambda: [
            activity.push(32, p) for activity in [SpeechActivity()] for p in probabilities
        ],
        "echo, without a reply": lambda: listen_for_echo(None, frames, probabilities),
        "echo, a reply and a silent user": lambda: listen_for_echo(reply, tone, [0.0] * len(tone)),
        "echo, a reply that echoes": lambda: listen_for_echo(reply, echo, probabilities),
        "recogniser's stream": lambda: asyncio.run(follow(blocks)),
    }
    costs = {name: spent_ms(work) / seconds for name, work in parts.items()}
    costs[f"Silero in a batch of {BATCH}"] /= BATCH
    return costs


def spent_ms(work: Callable[[], object]) -> float:
    def once() -> float:
        began_s = time.thread_time()
        work()
        return (time.thread_time() - began_s) * 1000

    return min(once() for _ in range(REPEATED))


def take_messages(blocks: Sequence[bytes]) -> None:
    dialect = SpeechChat(Connection(session_id="s"))
    for block in blocks:
        list(dialect.receive(block, 0))


def decode(blocks: Sequence[bytes], rate_hz: int) -> None:
    decoder = open_decoder(parse_input_format("pcm", rate_hz))
    for block in blocks:
        decoder.decode(block)


def detect(model: VoiceModel, frames: Sequence[bytes], streams: int) -> None:
    listeners = [Listener() for _ in range(streams)]
    for frame in frames:
        score(model, [StreamFrames(listener, (frame,)) for listener in listeners])


def listen_for_echo(
    reply: Samples | None, frames: Sequence[bytes], probabilities: Sequence[float]
) -> None:
    now_ms = 0
    timeline = RingBuffer()
    timeline.keep(4_000)
    gate = EchoGate(lambda: now_ms, timeline)
    if reply is not None:
        for number, piece in enumerate(cut(to_pcm(reply), RATE_HZ // 5)):
            gate.reply_made(1, piece, RATE_HZ, (number + 1) * 100)
    for now_ms, frame, probability in zip(
        range(FRAME_MS, 10**9, FRAME_MS), frames, probabilities, strict=False
    ):
        gate.reply_sent(1, now_ms + 1_500)
        timeline.push(frame)
        gate.place(FRAME_MS, now_ms)
        gate.judge(FrameScore(now_ms, probability))


class Swallowing:
    """A recogniser that hears everything and says nothing."""

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        async for pcm in audio:
            if not pcm:
                yield Transcript("", 0)


async def follow(blocks: Sequence[bytes]) -> None:
    tasks = SessionTasks(on_fault=lambda: None)
    audio = AudioInput(
        Swallowing(), limits=SessionLimits(), now_ms=lambda: 0, post=lambda _: None, tasks=tasks
    )
    settings = InputSettings(format="pcm", sample_rate_hz=16_000)
    audio.open(OpenRecognition(1, settings))
    audio.route(RouteAudio(Route.RECOGNISE, settings, 1))
    for block in blocks:
        audio.push(block)
        await asyncio.sleep(0)
    await tasks.close(1)
