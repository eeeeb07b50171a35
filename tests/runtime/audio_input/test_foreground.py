"""Voices in the background, told by their level."""

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.runtime.audio_input.test_vad_stream import Room
from voicechat.runtime.audio_input.foreground import FORGOTTEN_MS, Foreground
from voicechat.runtime.audio_input.ring_buffer import BYTES_PER_MS, RingBuffer
from voicechat.session.events import SpeechStarted, SpeechStopped
from voicechat.voice.listener import Listener, StreamFrames, score
from voicechat.voice.silero import FRAME_BYTES, find_model
from voicechat.voice.silero_network import open_silero

FRAME_MS = 32
LOUD = 6_000
ONE_FRAME = 1 / 100
"""Of 100: the first of a sound counts, which is too short to be speech."""
CHANCE = np.random.default_rng(1)


def voice(level: float, frames: int = 1) -> bytes:
    """Noise of that level, in samples (root mean square)."""
    count = frames * FRAME_MS * BYTES_PER_MS // 2
    samples = CHANCE.standard_normal(count) * level
    return samples.clip(-32768, 32767).astype("<i2").tobytes()


class Microphone:
    def __init__(self) -> None:
        self.timeline = RingBuffer()
        self.timeline.keep(4_000)
        self.foreground = Foreground(self.timeline, 12.0)

    def hears(self, level: float, frames: int) -> float:
        """The share of the frames that count."""
        counted = 0.0
        for _ in range(frames):
            self.timeline.push(voice(level))
            counted += self.foreground.judge(self.timeline.end_ms, 1.0)
        return counted / frames

    def pauses(self, frames: int) -> None:
        self.timeline.push(bytes(frames * FRAME_MS * BYTES_PER_MS))


def test_the_first_voice_counts_however_faint() -> None:
    assert Microphone().hears(LOUD / 30, 60) == 1.0


def test_a_voice_that_is_much_fainter_than_the_users_does_not_count() -> None:
    microphone = Microphone()
    assert microphone.hears(LOUD, 60) == 1.0
    microphone.pauses(20)
    assert microphone.hears(LOUD / 10, 100) == ONE_FRAME
    microphone.pauses(20)
    assert microphone.hears(LOUD, 30) == 1.0
    # Without a pause between them: from the third syllable on.
    assert microphone.hears(LOUD / 10, 100) > 0.0
    assert microphone.hears(LOUD / 10, 100) == 0.0


def test_a_user_who_speaks_softer_or_falls_in_level_counts() -> None:
    microphone = Microphone()
    microphone.hears(LOUD, 60)
    microphone.pauses(20)
    assert microphone.hears(LOUD / 3, 60) == 1.0


def test_whoever_is_louder_is_the_user() -> None:
    microphone = Microphone()
    microphone.hears(LOUD / 10, 200)
    assert microphone.hears(LOUD, 60) == 1.0
    microphone.pauses(20)
    assert microphone.hears(LOUD / 10, 100) == ONE_FRAME


def test_a_first_syllable_that_begins_softly_counts_at_once() -> None:
    microphone = Microphone()
    microphone.hears(LOUD, 60)
    microphone.pauses(20)
    assert [microphone.hears(part, 1) for part in (LOUD / 20, LOUD / 2, LOUD / 20)] == [1, 1, 1]


def test_a_user_who_has_moved_away_is_heard_again() -> None:
    microphone = Microphone()
    microphone.hears(LOUD, 60)
    microphone.pauses(20)
    frames = FORGOTTEN_MS // FRAME_MS
    assert microphone.hears(LOUD / 10, frames - 20) == 1 / (frames - 20)
    microphone.hears(LOUD / 10, 40)
    assert microphone.hears(LOUD / 10, 40) == 1.0


async def test_a_television_does_not_keep_a_turn_open() -> None:
    told = {}
    for background_db in (12.0, 0.0):
        room = Room(background_db=background_db)
        for level in (LOUD, LOUD / 10):
            for _ in range(100):
                room.records(voice(level))
                room.ear.hears(1.0)
        told[background_db] = [type(event) for event in room.told]
    assert told == {12.0: [SpeechStarted, SpeechStopped], 0.0: [SpeechStarted]}


async def test_of_real_voices_the_user_is_heard_and_one_of_minus_20_db_is_not(
    recordings: Path,
) -> None:
    user = samples(recordings / "austen-0880.wav")
    others = np.concatenate(
        [samples(recordings / f"austen-{number}.wav") for number in ("0870", "0890")]
    )
    television = others * (level(user) / level(others) / 10)
    room = Room(background_db=12.0)
    for probability, frame in heard(np.concatenate([user, np.zeros(8_000), television])):
        room.records(frame)
        room.ear.hears(probability)
    at_ms = [event.at_ms for event in room.told if isinstance(event, SpeechStarted | SpeechStopped)]
    after_ms = [ms for ms in at_ms if ms > len(user) / 16 + 400]
    stretches = [end - begin for begin, end in zip(after_ms[::2], after_ms[1::2], strict=False)]
    assert sum(stretches) < 0.1 * len(television) / 16, stretches
    alone = Room()
    for probability, frame in heard(np.concatenate([user, np.zeros(8_000)])):
        alone.records(frame)
        alone.ear.hears(probability)
    assert room.told[: len(alone.told)] == alone.told


def samples(path: Path) -> NDArray[np.float64]:
    with wave.open(str(path)) as wav:
        return np.frombuffer(wav.readframes(wav.getnframes()), "<i2").astype(np.float64)


def level(speech: NDArray[np.float64]) -> float:
    """The root mean square of what is no pause."""
    return float(np.sqrt(np.mean(speech[np.abs(speech) > 200] ** 2)))


def heard(speech: NDArray[np.float64]) -> Iterator[tuple[float, bytes]]:
    """Frames with their probability of speech."""
    model, listener = open_silero(find_model()), Listener()
    pcm = speech.clip(-32768, 32767).astype("<i2").tobytes()
    for at in range(0, len(pcm) - FRAME_BYTES, FRAME_BYTES):
        frame = pcm[at : at + FRAME_BYTES]
        yield score(model, [StreamFrames(listener, (frame,))]).probabilities[0][0], frame
