"""Prints the figures of hands-free mode: ``python -m tools.hands_free.figures``, or of
one of them by its name.

``stop`` runs over real sockets in real time, ``listening`` counts CPU time; the others
play whole conversations with the real voice detection in virtual time: they tell what
the server waits for, and not what this machine is busy with.
"""

import argparse
import asyncio
import itertools
import wave
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import uvloop

from tests.hands_free.stage import Echo, Stage
from tests.voice.sounds import RATE_HZ, Samples, speak, to_pcm
from voicechat.client import (
    CanceledMessage,
    CompletedMessage,
    ReplyAudioMessage,
    ServerMessage,
    SpeechStartedMessage,
    TurnCompletedMessage,
)
from voicechat.providers.interfaces import AudioChunk, VoiceOptions
from voicechat.session.effects import PreemptiveReplyEnded
from voicechat.session.types import TurnDetection
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer
from voicechat.testing.virtual_time import VirtualTimeLoop
from voicechat.text.words import count_words

T = TypeVar("T")
RECORDINGS = Path(__file__).parents[2] / "tests" / "recordings"
QUESTION = "what is the weather like today"
STORY = (
    "Once upon a time there was a small village at the foot of a mountain. Every morning the "
    "people went up to the "
    "spring and carried the water home. One day the spring was dry, and nobody knew what they "
    "should do about it. "
    "An old woman said that she had seen this before, when she was a child and the winter had "
    "been too warm."
)
FIRST_PARTIAL_MS = 300
"""From the onset to the first words of the scripted recogniser."""
OFFSETS = 3
ONSET_DB = -20
"""Speech begins with the first 10 ms that are no softer than this, against the
recording's loudest 10 ms.
"""


class WordByWord:
    """A synthesiser whose words have known times: each is spoken by itself. ``ends_ms``
    are those of the last reply.
    """

    voices = ("en-us",)

    def __init__(self) -> None:
        self.ends_ms: list[int] = []

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        for word in text.split():
            pcm = to_pcm(speak(word))
            self.ends_ms.append(
                (self.ends_ms[-1] if self.ends_ms else 0) + len(pcm) * 1000 // (2 * RATE_HZ)
            )
            yield AudioChunk(pcm, RATE_HZ)


def main() -> None:
    figures: dict[str, Callable[[], None]] = {
        "stop": stop,
        "listening": listening,
        "onset": onset,
        "echo": echo,
        "heard": heard,
        "early": early,
    }
    parser = argparse.ArgumentParser(prog="python -m tools.hands_free.figures")
    parser.add_argument("figure", nargs="?", choices=list(figures))
    chosen = parser.parse_args().figure
    for name in [chosen] if chosen else figures:
        figures[name]()


def stop() -> None:
    """From the decision to interrupt to what the socket is handed."""
    from tools.hands_free.stopping import measure_stops  # the others need no server

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(measure_stops(sessions=100, interruptions=3))
    print(
        f"stop: {len(result.delays_ms)} interruptions by voice of 100 sessions, clients in "
        "another process"
    )
    print(f"  decision to canceled handed to the socket: {spread(result.delays_ms)} ms")
    print(f"  of it, computed by the event loop's thread: {spread(result.cpu_ms)} ms")
    print(f"  lateness of the same loop's timers: {spread(result.lateness_ms)} ms")
    print(f"  bytes of the old reply after the decision: {result.late_bytes}")


def listening() -> None:
    """What a second of a microphone costs."""
    from tools.hands_free.listening import measure_listening

    print("listening: milliseconds of CPU per second of speech, 20 ms blocks")
    for name, cost_ms in measure_listening().items():
        print(f"  {name}: {cost_ms:.2f}")


def onset() -> None:
    """From the onset of speech to the decision."""
    clips = voices()
    print(
        f"onset: {len(clips)} voices at {OFFSETS} offsets; by level: first 10 ms above {ONSET_DB} "
        "dB of the loudest;"
    )
    print("  by the detector: the beginning of the first frame that it took for speech")
    filtered = TurnDetection(min_interruption_words=1)
    for name, detection, words, after_ms in (
        ("by voice alone", TurnDetection(), "word " * 40, 3_000),
        *(
            (
                f"by voice alone, {after_ms} ms into the first reply",
                TurnDetection(),
                "word " * 40,
                after_ms,
            )
            for after_ms in (50, 300, 700, 1_300)
        ),
        (
            f"one word asked for, first partial after {FIRST_PARTIAL_MS} ms",
            filtered,
            "word " * 40,
            3_000,
        ),
    ):
        runs = [
            virtual(decide(clip, detection, words, after_ms + 37 * n))
            for clip in clips
            for n in range(OFFSETS)
        ]
        decided = [run for run in runs if run is not None]
        print(f"  {name}: {len(decided)} of {len(runs)} decided")
        for count, delays in zip(("level", "detector"), zip(*decided, strict=True), strict=True):
            within = sum(delay <= detection.min_interruption_ms + 64 for delay in delays)
            print(
                f"    onset by {count}: {spread(delays)} ms; {within} within min_interruption_ms "
                "+ 64"
            )


async def decide(
    clip: Samples, detection: TurnDetection, words: str, after_ms: int
) -> tuple[int, int] | None:
    """How long after the onset, by level and by the detector, the reply is cancelled;
    None: not in four seconds.
    """
    recognizer = ScriptedRecognizer(
        texts=(QUESTION, words), word_ms=FIRST_PARTIAL_MS + detection.prefix_padding_ms
    )
    stage = Stage(
        recognizer=recognizer, model=ScriptedModel(replies=((STORY,),)), detection=detection
    )
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        begins_ms = await stage.until(ReplyAudioMessage) + after_ms
        stage.says(clip, begins_ms)
        await stage.at(begins_ms + onset_ms(clip) + 2_000)
    canceled = [at_ms for at_ms in stage.times(CanceledMessage) if at_ms > begins_ms]
    if not canceled:
        return None
    started = zip(stage.times(SpeechStartedMessage), stage.of(SpeechStartedMessage), strict=True)
    begun = [message.audio_start_ms for at_ms, message in started if at_ms <= canceled[0]]
    return canceled[0] - begins_ms - onset_ms(clip), canceled[0] - begun[
        -1
    ] - detection.prefix_padding_ms


def echo() -> None:
    """What of the echo gets through, in a session's first reply and in a second that is
    played later.
    """
    rooms = list(itertools.product((-10, -15, -25), (50, 150, 250), (False, True), range(2)))
    told: list[int] = []
    canceled = 0
    for number, (level_db, delay_ms, room, seed) in enumerate(rooms):
        preemptive_ms, stops = virtual(
            echoed(Echo(level_db, delay_ms, room), (0, 60)[number % 2], seed)
        )
        told += preemptive_ms
        canceled += stops
    print(
        f"echo: {len(rooms)} conversations of two replies, -10 to -25 dB, 50 to 250 ms, with and "
        "without a room,"
    )
    print(
        "  the loudspeaker 0 to 100 ms late anew for each reply, half with 60 ms of jitter on the "
        "way up:"
    )
    print(
        f"  interrupted {canceled} times; speech told although nobody spoke: {len(told)} times "
        f"{told}"
    )


async def echoed(echo: Echo, uplink_jitter_ms: int, seed: int) -> tuple[list[int], int]:
    """When the echo was told as speech, in milliseconds of its reply, and how often it
    interrupted.
    """
    stage = Stage(
        recognizer=ScriptedRecognizer(texts=(QUESTION, QUESTION, "x", "x")),
        model=ScriptedModel(replies=((STORY,), (STORY,))),
        echo=echo,
        jitter_ms=(0, 100),
        uplink_jitter_ms=uplink_jitter_ms,
        seed=seed,
    )
    nobody_speaks: list[tuple[int, int]] = []
    async with stage.playing():
        for turn in (1, 2):
            end_ms = stage.says(speak(QUESTION), stage.mic_ms + 500)
            await stage.until(CompletedMessage, turn)
            await stage.at(end_ms + 20_000)
            nobody_speaks.append((end_ms + 200, stage.mic_ms))

    def among(kind: type[ServerMessage]) -> list[int]:
        return [
            at_ms - begin
            for at_ms in stage.times(kind)
            for begin, end in nobody_speaks
            if begin < at_ms < end
        ]

    return among(SpeechStartedMessage), len(among(CanceledMessage))


def heard() -> None:
    """What the model is told was heard, against what the loudspeaker had played."""
    for name, report_every_ms in (("reports every 200 ms", 200), ("no reports", None)):
        errors = [virtual(heard_error(seed, report_every_ms)) for seed in range(40)]
        good = sum(abs(error) <= 1 for error in errors)
        print(
            f"heard: {name}, a loudspeaker 0 to 200 ms late: off by at most one word in {good} of "
            f"{len(errors)}; "
            f"mean {np.mean(errors):+.2f}, worst {max(errors, key=abs):+d} words"
        )


async def heard_error(seed: int, report_every_ms: int | None) -> int:
    """Words remembered less words played; a word counts when it was played to its
    middle.
    """
    model, synthesizer = ScriptedModel(replies=((STORY,),)), WordByWord()
    stage = Stage(
        recognizer=ScriptedRecognizer(texts=(QUESTION, "no, stop that")),
        model=model,
        synthesizer=synthesizer,
        report_every_ms=report_every_ms,
        jitter_ms=(0, 200),
        seed=seed,
    )
    async with stage.playing():
        stage.says(speak(QUESTION), 500)
        stage.says(
            speak("no, stop that"), await stage.until(ReplyAudioMessage) + 1_500 + 230 * seed
        )
        await stage.until(CanceledMessage)
        played_ms = stage.heard_ms
        ends_ms = list(synthesizer.ends_ms)
        await stage.until(CompletedMessage, 2)
        await stage.until(TurnCompletedMessage, 2)
    remembered = [str(m["content"]) for m in model.requests[1].messages if m["role"] == "assistant"]
    begins_ms = [0, *ends_ms]
    played = sum(
        (begin + end) / 2 <= played_ms for begin, end in zip(begins_ms, ends_ms, strict=False)
    )
    return count_words(remembered[0] if remembered else "") - played


def early() -> None:
    """What replies begun early save, and what they cost."""
    pauses_ms = [0] * 20 + list(range(160, 760, 30))
    facts = [fact for pause_ms in pauses_ms for fact in virtual(one_turn(pause_ms))]
    saved = [fact.saved_ms for fact in facts if fact.used]
    wasted = len(facts) - len(saved)
    print(
        f"early: {len(pauses_ms)} turns, half with a pause of 160 to 730 ms; {len(saved)} early "
        "replies were used"
    )
    print(f"  and saved {spread(saved)} ms; {wasted} were begun in vain")


async def one_turn(pause_ms: int) -> list[PreemptiveReplyEnded]:
    """A question, or one that goes on after a pause."""
    begin, rest = "tell me the way to the station", "if you would be so kind"
    texts = (f"{begin} {rest}", rest) if pause_ms else (begin, "")
    stage = Stage(
        recognizer=ScriptedRecognizer(texts=texts, word_ms=220),
        model=ScriptedModel(replies=(("Yes. ",),), first_ms=300),
    )
    async with stage.playing():
        end_ms = stage.says(speak(begin), 500)
        if pause_ms:
            end_ms = stage.says(speak(rest), end_ms + pause_ms)
        await stage.at(end_ms + 4_000)
    return [fact for fact in stage.facts if isinstance(fact, PreemptiveReplyEnded)]


def voices() -> list[Samples]:
    """The recordings of people, and synthesised speech."""
    spoken = [
        speak(text) for text in ("no, stop that", "wait a moment please", "excuse me, one question")
    ]
    for path in sorted(RECORDINGS.glob("*.wav")):
        with wave.open(str(path)) as file:
            if file.getframerate() == RATE_HZ:
                samples = np.frombuffer(file.readframes(3 * RATE_HZ), "<i2").astype(np.float64)
                spoken.append(samples * 8_000 / np.abs(samples).max())
    return spoken


def onset_ms(clip: Samples) -> int:
    frames = clip[: len(clip) // 160 * 160].reshape(-1, 160)
    powers = (frames**2).mean(axis=1)
    return int(np.argmax(powers >= powers.max() * 10 ** (ONSET_DB / 10))) * 10


def spread(values: Sequence[float]) -> str:
    """Median, 95th and 99th percentile, worst."""
    if not values:
        return "none"
    median, p95, p99 = np.percentile(values, (50, 95, 99))
    return f"median {median:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, worst {max(values):.1f}"


def virtual(work: Coroutine[None, None, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


if __name__ == "__main__":
    main()
