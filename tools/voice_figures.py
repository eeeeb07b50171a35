"""``python -m tools.voice_figures``: what voice detection and echo detection cost, and
how late speech is noticed.
"""

import asyncio
import statistics
import time

import numpy as np

from tests.voice.sounds import OBJECTION, REPLY, Samples, in_a_room, noise, silence, speak, to_pcm
from voicechat.server.serve import tune_threads
from voicechat.voice.activity import SpeechActivity, SpeechOnset
from voicechat.voice.detector import Tick, VoiceDetector
from voicechat.voice.echo import EchoDetector
from voicechat.voice.listener import Listener, StreamFrames, score
from voicechat.voice.silero import (
    FRAME_BYTES,
    FRAME_MS,
    MOST_STREAMS,
    SileroModel,
    VoiceModel,
    find_model,
)
from voicechat.voice.silero_network import open_silero

SESSIONS = 300
PHASES = 20


def frames_of(samples: Samples) -> list[bytes]:
    pcm = to_pcm(samples)
    return [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES)]


def batches(model: VoiceModel) -> None:
    frames = frames_of(speak(REPLY))[:100]
    for streams in (1, 4, 8, MOST_STREAMS):
        listeners = [Listener() for _ in range(streams)]
        began_s = time.thread_time()
        for frame in frames:
            score(model, [StreamFrames(listener, (frame,)) for listener in listeners])
        spent_ms = (time.thread_time() - began_s) * 1000
        audio_s = len(frames) * FRAME_MS / 1000 * streams
        print(
            f"{streams:4} streams of speech: {spent_ms / audio_s:5.2f} ms/s, "
            f"{spent_ms / len(frames):6.2f} ms a call"
        )


def gate(model: VoiceModel) -> None:
    sounds = {
        "silence": silence(10_000),
        "noise -60 dB": noise(10_000, -60),
        "noise -30 dB": noise(10_000, -30),
        "speech": speak(REPLY),
        "speech, 70 % silence": np.concatenate(
            (speak(REPLY), silence(len(speak(REPLY)) * 7 // 3 // 16))
        ),
    }
    for name, samples in sounds.items():
        listener, frames = Listener(), frames_of(samples)
        began_s = time.thread_time()
        modelled = sum(
            score(model, [StreamFrames(listener, (frame,))]).modelled for frame in frames
        )
        spent_ms = (time.thread_time() - began_s) * 1000
        share = modelled / len(frames)
        print(
            f"{name:22}: the model runs on {share:4.0%}, "
            f"{spent_ms / (len(frames) * FRAME_MS / 1000):5.2f} ms/s alone"
        )


async def live(model: VoiceModel) -> None:
    """300 sessions speak for five seconds in 20 ms packets, their phases spread."""
    ticks: list[Tick] = []
    detector = VoiceDetector(model, ticks.append)
    pcm = to_pcm(speak(REPLY))
    loop = asyncio.get_running_loop()
    stalls_s: list[float] = []

    async def talk(phase_ms: int) -> None:
        ears = [detector.open_stream(lambda _: None) for _ in range(SESSIONS // PHASES)]
        await asyncio.sleep(phase_ms / 1000)
        began_s = loop.time()
        for packet in range(250):
            for ear in ears:
                ear.push(pcm[packet * 640 : packet * 640 + 640])
            await asyncio.sleep(max(0.0, began_s + (packet + 1) * 0.02 - loop.time()))

    async def watch() -> None:
        while True:
            before_s = loop.time()
            await asyncio.sleep(0.005)
            stalls_s.append(loop.time() - before_s - 0.005)

    async with asyncio.TaskGroup() as group:
        services = [group.create_task(detector.run()), group.create_task(watch())]
        async with asyncio.TaskGroup() as talkers:
            for phase_ms in range(PHASES):
                talkers.create_task(talk(phase_ms))
        for service in services:
            service.cancel()
    spent_ms = sorted(tick.duration_ms for tick in ticks)
    lag_ms = sorted(tick.lag_ms for tick in ticks)
    frames = statistics.mean(tick.frames for tick in ticks)
    print(f"{SESSIONS} sessions live: {len(ticks)} rounds of {frames:.0f} frames;", end=" ")
    print(f"round p50 {_at(spent_ms, 0.5):.1f}, p99 {_at(spent_ms, 0.99):.1f} ms;", end=" ")
    print(f"frames waited p50 {_at(lag_ms, 0.5):.1f}, p99 {_at(lag_ms, 0.99):.1f} ms;", end=" ")
    print(f"loop late p99 {_at(sorted(stalls_s), 0.99) * 1000:.1f} ms")


def onset(model: VoiceModel) -> None:
    """How long after the first sound speech is reported, in audio time."""
    late_ms: list[int] = []
    for lead_ms in range(500, 1_000, 37):
        listener, activity = Listener(), SpeechActivity()
        spoken = speak(OBJECTION)
        sounding = int((abs(spoken) > 300).argmax()) // 16
        for index, frame in enumerate(
            frames_of(np.concatenate((silence(lead_ms), spoken))), start=1
        ):
            probability = score(model, [StreamFrames(listener, (frame,))]).probabilities[0][0]
            if isinstance(activity.push(index * FRAME_MS, probability), SpeechOnset):
                late_ms.append(index * FRAME_MS - lead_ms - sounding)
                break
    print(
        f"speech reported after its first sound: median {statistics.median(late_ms):.0f}, worst "
        f"{max(late_ms)} ms"
    )


def echo() -> None:
    reply = speak(REPLY)
    played, heard = (
        to_pcm(reply),
        frames_of(np.concatenate((silence(130), in_a_room(reply))) * 0.15),
    )
    detector = EchoDetector()
    began_s = time.thread_time()
    for index, frame in enumerate(heard, start=1):
        detector.played(played[(index - 1) * FRAME_BYTES : index * FRAME_BYTES], index * FRAME_MS)
        detector.heard(frame, index * FRAME_MS)
    spent_ms = (time.thread_time() - began_s) * 1000
    print(f"echo detection: {spent_ms / (len(heard) * FRAME_MS / 1000):.2f} ms per second of reply")


def _at(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def main() -> None:
    """Print all figures."""
    model: VoiceModel = open_silero(find_model())
    for judge in (SileroModel(find_model()), model):
        print(type(judge).__name__)
        batches(judge)
    gate(model)
    onset(model)
    tune_threads()
    for judge in (SileroModel(find_model()), model):
        print(f"{type(judge).__name__}: ", end="")
        asyncio.run(live(judge))
    echo()


if __name__ == "__main__":
    main()
