"""Whether anything that is no speech is answered: hours of silence, noise and music,
faster than they sound.

``python -m tools.evaluate_noise MODELS [--minutes 60] [--kind NAME] [--recordings
FOLDER]``: MODELS is the folder into which ``voicechat models pull local`` put its
models.

Each kind is made in pieces with other levels, pitches and rhythms, and goes through
what a hands-free microphone goes through: voice detection, and the recogniser for what
that takes for speech, with its guards. A turn of which words are recognised would be
answered; those words are printed. ``--recordings``: music or noises of your own
(``*.ogg``, ``*.wav``, ``*.mp3``, ``*.flac``) as one more kind, one after the other at
different levels. Seeds are fixed.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from voicechat.providers.faster_whisper import BEAM_SIZE, PassOptions, WorkerOptions
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.voice.activity import SpeechActivity, SpeechOnset
from voicechat.voice.listener import Listener, StreamFrames, score
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS, find_model
from voicechat.voice.silero_network import open_silero

STREAMS = 30
"""Listened to at once: the time of a kind is divided among so many microphones."""
PIECE_S = 15
"""After this time the kind changes its character."""
TURN_GAP_MS = 700
"""Speech after a longer pause is another turn."""
MOST_TURN_MS = 28_000
SUFFIXES = (".ogg", ".wav", ".mp3", ".flac")
SEMITONE = 2 ** (1 / 12)
KEYS_HZ = ((697, 770, 852, 941), (1209, 1336, 1477, 1633))

Samples = NDArray[np.float64]
"""Of 16 kHz, parts of full scale."""
Kind = Callable[[np.random.Generator, int], Samples]
"""Makes so many samples, with a level of about 1."""


@dataclass
class Heard:
    """What became of one kind."""

    speech_ms: int = 0
    """What voice detection took for speech."""
    turns: int = 0
    answered: list[str] | None = None
    """What was recognised of the turns that would be answered."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", type=Path, help="the folder of the pulled models")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each kind")
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--recordings", type=Path, help="a folder of sounds, one more kind")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    kinds: dict[str, Kind] = {name: KINDS[name] for name in given.kind or KINDS}
    if given.recordings is not None:
        kinds["recordings"] = recordings(given.recordings)
    recogniser = Recogniser(given.models, given.threads)
    print("| kind | minutes | heard as speech, s | turns | answered |\n|---|---|---|---|---|")
    for name, kind in kinds.items():
        heard = listen(kind, given.minutes, recogniser)
        texts = heard.answered or []
        print(
            f"| {name} | {given.minutes:g} | {heard.speech_ms / 1000:.1f} | {heard.turns} | "
            f"{len(texts)} |",
            flush=True,
        )
        for text in texts:
            print(f"  {text}", flush=True)


class Recogniser:
    """Whisper with its guards, in this process."""

    def __init__(self, models: Path, threads: int) -> None:
        # Its packages are an extra, and heavy: only who measures imports them.
        from voicechat.providers.faster_whisper_worker import WhisperTranscriber

        options = WorkerOptions(
            model=str(models / "faster-whisper-base"), languages=("zh", "en"), prompt="",
            simplified=True, compute_type="int8", beam_size=BEAM_SIZE, threads=threads, niceness=0,
        )  # fmt: skip
        self._whisper = WhisperTranscriber(options)

    def words(self, pcm: bytes) -> str:
        """The words of a turn; empty without any."""
        *_, answer = self._whisper.transcribe(pcm, PassOptions(complete=True))
        text: str = json.loads(answer)["text"]
        return text


def listen(kind: Kind, minutes: float, recogniser: Recogniser) -> Heard:
    """Listen to one kind for so long."""
    pieces = max(1, round(minutes * 60 / PIECE_S / STREAMS))
    model = open_silero(find_model())
    microphones = [Microphone(np.random.default_rng(seed)) for seed in range(STREAMS)]
    heard = Heard(answered=[])
    for _ in range(pieces):
        frames = [microphone.begin_piece(kind) for microphone in microphones]
        for at in range(0, len(frames[0]), FRAME_BYTES):
            given = [
                StreamFrames(microphone.listener, (pcm[at : at + FRAME_BYTES],))
                for microphone, pcm in zip(microphones, frames, strict=True)
            ]
            for microphone, (probability,) in zip(
                microphones, score(model, given).probabilities, strict=True
            ):
                microphone.hear(probability)
    for microphone in microphones:
        heard.speech_ms += sum(end - begin for begin, end in microphone.speech)
        for begin_ms, end_ms in turns_of(microphone.speech):
            heard.turns += 1
            text = recogniser.words(microphone.between(begin_ms, end_ms))
            if text and heard.answered is not None:
                heard.answered.append(text)
    return heard


class Microphone:
    """One stream, and what was taken for speech in it."""

    def __init__(self, chance: np.random.Generator) -> None:
        self.listener = Listener()
        self.speech: list[tuple[int, int]] = []
        self._chance = chance
        self._activity = SpeechActivity()
        self._pcm = bytearray()
        self._heard_ms = 0
        self._began_ms: int | None = None

    def begin_piece(self, kind: Kind) -> bytes:
        """Make the next ``PIECE_S`` of sound, in whole frames; s16le mono 16 kHz."""
        count = PIECE_S * 1000 // FRAME_MS * FRAME_BYTES // 2
        level = 10 ** (self._chance.uniform(-50, -12) / 20)
        samples = kind(self._chance, count) * level + self._chance.standard_normal(count) * 3e-5
        pcm = (samples * 32767).clip(-32768, 32767).astype("<i2").tobytes()
        self._pcm += pcm
        return pcm

    def hear(self, probability: float) -> None:
        """Take the probability of the next frame."""
        self._heard_ms += FRAME_MS
        found = self._activity.push(self._heard_ms, probability)
        if isinstance(found, SpeechOnset):
            self._began_ms = found.audio_start_ms
        elif found is not None and self._began_ms is not None:
            self.speech.append((self._began_ms, found.audio_end_ms))

    def between(self, begin_ms: int, end_ms: int) -> bytes:
        """The samples of a turn."""
        per_ms = PCM_RATE_HZ * 2 // 1000
        return bytes(self._pcm[begin_ms * per_ms : (end_ms + 200) * per_ms])


def turns_of(speech: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join what is near each other to turns."""
    joined: list[tuple[int, int]] = []
    for begin_ms, end_ms in speech:
        if joined and begin_ms - joined[-1][1] < TURN_GAP_MS:
            begin_ms = joined.pop()[0]
        joined.append((begin_ms, end_ms))
    for begin_ms, end_ms in joined:
        for at_ms in range(begin_ms, end_ms, MOST_TURN_MS):
            yield at_ms, min(end_ms, at_ms + MOST_TURN_MS)


# --- sounds ---------------------------------------------------------------------------


def silence(_chance: np.random.Generator, count: int) -> Samples:
    """Nothing, but for the microphone's own noise."""
    return np.zeros(count)


def noise(chance: np.random.Generator, count: int) -> Samples:
    """White to brown noise, steady or in gusts: rain, wind, a street, a fan."""
    spectrum = np.fft.rfft(chance.standard_normal(count))
    slope = chance.uniform(0, 1)
    made: Samples = np.fft.irfft(spectrum / (np.arange(len(spectrum)) + 1) ** slope, count)
    made /= np.sqrt(np.mean(made**2)) * 3
    seconds = np.arange(count) / PCM_RATE_HZ
    if chance.random() < 0.5:
        made *= 0.6 + 0.4 * np.sin(2 * np.pi * chance.uniform(0.1, 6) * seconds)
    if chance.random() < 0.5:
        mains_hz = chance.choice([50.0, 60.0, 120.0])
        for harmonic in (1, 2, 3, 5):
            made += np.sin(2 * np.pi * mains_hz * harmonic * seconds) / harmonic / 4
    return made


def music(chance: np.random.Generator, count: int) -> Samples:
    """Chords, a melody and a beat, of strings that are plucked or bowed."""
    seconds = np.arange(count) / PCM_RATE_HZ
    beat_s = 60 / chance.uniform(60, 160)
    root_hz = 110 * SEMITONE ** chance.integers(0, 12)
    plucked = chance.uniform(0.5, 6)
    made = np.zeros(count)
    for begin_s in np.arange(0, seconds[-1], beat_s):
        at = int(begin_s * PCM_RATE_HZ)
        since = seconds[: min(count - at, int(beat_s * 2 * PCM_RATE_HZ))]
        steps = [0, *chance.choice([3, 4, 7, 9, 12, 14, 16], 2), chance.choice([12, 15, 19, 24])]
        vibrato = 0.003 * np.sin(2 * np.pi * 5 * since)
        for step in steps:
            phase = 2 * np.pi * root_hz * SEMITONE**step * (since + vibrato / 5)
            tone = sum(np.sin(n * phase) / n ** chance.uniform(1, 2) for n in range(1, 6))
            made[at : at + len(since)] += tone * np.exp(-plucked * since)
        hit = chance.standard_normal(len(since)) * np.exp(-60 * since)
        made[at : at + len(since)] += hit * chance.uniform(0, 2)
    made /= np.max(np.abs(made)) + 1e-9
    return made


def keys(chance: np.random.Generator, count: int) -> Samples:
    """Keypad tones, typing, clicks, beeps."""
    made = np.zeros(count)
    at = 0
    while at < count:
        length = int(chance.uniform(0.01, 0.4) * PCM_RATE_HZ)
        since = np.arange(min(length, count - at)) / PCM_RATE_HZ
        if chance.random() < 0.5:
            low, high = (float(chance.choice(row)) for row in KEYS_HZ)
            tone = (np.sin(2 * np.pi * low * since) + np.sin(2 * np.pi * high * since)) / 2
        else:
            tone = chance.standard_normal(len(since)) * np.exp(-chance.uniform(20, 300) * since)
        made[at : at + len(since)] += tone
        at += length + int(chance.uniform(0.03, 0.8) * PCM_RATE_HZ)
    return made


KINDS: Mapping[str, Kind] = {"silence": silence, "noise": noise, "music": music, "keys": keys}


def recordings(folder: Path) -> Kind:
    """The sounds of a folder, from random places."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    sounds = [decoded(path) for path in files]
    if not sounds:
        raise SystemExit(f"{folder}: there is no {', '.join(SUFFIXES)} in it")

    def made(chance: np.random.Generator, count: int) -> Samples:
        parts: list[Samples] = []
        while sum(map(len, parts)) < count:
            sound = sounds[chance.integers(len(sounds))]
            begin = chance.integers(max(1, len(sound) - count))
            parts.append(sound[begin : begin + count])
        return np.concatenate(parts)[:count]

    return made


def decoded(path: Path) -> Samples:
    """A file as samples of 16 kHz, the loudest of which is 1."""
    resampler = av.AudioResampler("s16", "mono", PCM_RATE_HZ)
    pieces: list[Samples] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            pieces += [out.to_ndarray()[0] / 32768 for out in resampler.resample(frame)]
    samples: Samples = np.concatenate(pieces)
    samples /= np.max(np.abs(samples)) + 1e-9
    return samples


if __name__ == "__main__":
    main()
