"""How often endpointing cuts an unfinished turn off, and how long it makes a finished
one wait: with Kokoro's voices, Whisper and Smart Turn, in English and Chinese.

``python -m tools.evaluate_turns MODELS [--noise NAME|all --snr DB]``: MODELS is the
folder into which ``voicechat models pull local`` put its models; ``all`` measures
without noise and with each one.

Each phrase is spoken, mixed with noise, recognised, and judged by the turn model after
300 ms of silence, as in a conversation. Four ways to decide are then scaled by
``silence_duration_ms`` so that all can be compared: fixed silence; the words alone; the
turn model alone; both (``AdaptiveSilence``). Printed are, as in eot-bench:

- false cut-offs at 300 ms: unfinished turns that a pause of 700 ms ends, when the
  median delay after finished ones is 300 ms;
- delay at 5 %: the median delay after finished turns at which no more than 5 % of the
  unfinished ones are cut off.

The last column says of how many turns "both" cut off, in parts of the worse of words
and model, and whether that is more than the better of them.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.neural_speech import NeuralSpeech, Samples
from voicechat.providers.faster_whisper import BEAM_SIZE, PassOptions, WorkerOptions
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.session.turn_policy import AdaptiveSilence
from voicechat.voice.turn_model import TurnModel

SILENCE_MS = 300
PAUSE_MS = 700
MEDIAN_MS = 300
CUT_SHARE = 0.05
SCALES_MS = [int(ms) for ms in np.geomspace(60, 3_000, 120)]
NOISES = ("white", "pink", "hum", "music", "babble", "voice", "echo")
"""``voice``: another one, also in the silence behind the turn; ``echo``: the same in a
room, as an assistant that is heard by its own microphone.
"""
ALL = "all"
ROOM_S = 0.3
"""Within this time the room's sound falls by 60 dB."""

FINISHED = {
    "en": """I'd like to book a table for two people please.|What should I do?
Can you help me with that?|My sister lives in Leeds.|Turn off the lights in the kitchen.
Tell me a joke.|How far is it to the station?|I think that was a great idea.
Yes, that sounds good.|No, thank you.|Where is it?|Play some music.|I moved here last year.
It is really cold today.|Who wrote that book?""",
    "zh": """我想订一张去上海的票。|你能帮我看看吗？|明天天气怎么样？|请把灯关掉。|我妹妹住在北京。
给我讲个笑话吧。|好的，谢谢你。|火车站离这里有多远？|我去年搬到这里的。|今天真的很冷。
这本书是谁写的？|放一点音乐。|不用了。|我觉得这个主意很好。|现在几点了？""",
}
UNFINISHED = {
    "en": """I want to fly to Paris and|Could you tell me, um|The problem is that the
It does not work because|I am looking for|Last week I ordered a|My number is zero two zero
I was wondering if you could|So what I would like to|Well, the thing is|If it rains tomorrow
I'd like to book a table for|When I was at the station|Let me think, uh|I need a doctor who""",
    "zh": """我想去北京，然后|这个东西不能用，因为|我在找一个|请问一下，那个|我的电话号码是一三八
如果明天下雨的话|上个星期我买了一台|我想问一下就是|我觉得这个嘛，嗯|麻烦你帮我|我昨天在车站的时候
他告诉我说|我需要一位|其实我的意思是|关于这个问题""",
}
OTHER_VOICE = "bm_george"
VOICES = {"en": ("af_heart", "am_michael"), "zh": ("zf_xiaobei", "zm_yunxi")}


@dataclass(frozen=True)
class Turn:
    finished: bool
    text: str
    """As it was recognised."""
    completion: float
    """The turn model's probability."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", type=Path, help="the folder of the pulled models")
    parser.add_argument("--noise", choices=(*NOISES, ALL), help="mixed with the speech")
    parser.add_argument("--snr", type=float, default=10.0, help="of speech to noise, in dB")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    listening = Listening(given.models, given.threads)
    print("| noise | | turns | | fixed | words | model | both | both / worse |")
    print("|---|---|---|---|---|---|---|---|---|")
    noises = (None, *NOISES) if given.noise == ALL else (given.noise,)
    for noise in noises:
        for language in VOICES:
            turns = list(listening.turns(language, noise, given.snr))
            print_rows(f"{noise}, {given.snr:g} dB" if noise else "none", language, turns)


def print_rows(noise: str, language: str, turns: Sequence[Turn]) -> None:
    """Print the two rows of one language with one noise."""
    cut = [cut_off(delays) for delays in policies(turns)]
    _fixed, words, model, both = cut
    share = f"{both / max(words, model):.2f}" if max(words, model) else "-"
    verdict = " (more than the better)" if both > min(words, model) else ""
    shares = " | ".join(f"{part:.0%}" for part in cut)
    print(f"| {noise} | {language} | {len(turns)} | false cut-offs at 300 ms | {shares}", end="")
    print(f" | {share}{verdict} |")
    delays_ms = [f"{ms} ms" if ms else "-" for ms in map(delay_at_share, policies(turns))]
    print(f"| | | | delay at 5 % | {' | '.join(delays_ms)} | |", flush=True)


Delays = Callable[[int], Sequence[tuple[bool, int]]]
"""At a ``silence_duration_ms``: for each turn, whether it was finished; its delay."""


def policies(turns: Sequence[Turn]) -> Iterator[Delays]:
    def words(silence_ms: int, turn: Turn) -> int:
        return AdaptiveSilence(silence_ms=silence_ms).end_delay_ms(turn.text, ())

    def model(silence_ms: int, turn: Turn) -> int:
        # A text that says nothing leaves the decision to the model.
        return AdaptiveSilence(silence_ms=silence_ms).end_delay_ms("", (), turn.completion)

    def both(silence_ms: int, turn: Turn) -> int:
        return AdaptiveSilence(silence_ms=silence_ms).end_delay_ms(turn.text, (), turn.completion)

    def fixed(silence_ms: int, _turn: Turn) -> int:
        return silence_ms

    for delay_ms in (fixed, words, model, both):
        yield lambda silence_ms, delay_ms=delay_ms: [  # type: ignore[misc]
            (turn.finished, delay_ms(silence_ms, turn)) for turn in turns
        ]


def cut_off(delays: Delays) -> float:
    """The share of unfinished turns that are cut off, at a median delay of 300 ms."""
    scale_ms = min(SCALES_MS, key=lambda ms: abs(median_ms(delays(ms)) - MEDIAN_MS))
    return cut_share(delays(scale_ms))


def delay_at_share(delays: Delays) -> int | None:
    """The shortest median delay at which at most 5 % are cut off."""
    for scale_ms in SCALES_MS:
        if cut_share(delays(scale_ms)) <= CUT_SHARE:
            return round(median_ms(delays(scale_ms)))
    return None


def median_ms(delays: Sequence[tuple[bool, int]]) -> float:
    return float(np.median([ms for finished, ms in delays if finished]))


def cut_share(delays: Sequence[tuple[bool, int]]) -> float:
    return float(np.mean([ms <= PAUSE_MS for finished, ms in delays if not finished]))


class Listening:
    """The models, in this process."""

    def __init__(self, models: Path, threads: int) -> None:
        # Its packages are an extra, and heavy: only who measures imports them.
        from voicechat.providers.faster_whisper_worker import WhisperTranscriber

        self._speech = NeuralSpeech(models, threads)
        self._transcriber = WhisperTranscriber(
            WorkerOptions(
                model=str(models / "faster-whisper-base"), languages=("en", "zh"), prompt="",
                simplified=True, compute_type="int8", beam_size=BEAM_SIZE, threads=threads,
                niceness=0,
            )
        )  # fmt: skip
        self._turn_model = TurnModel(models / "smart-turn-v3.2" / "smart-turn-v3.2-cpu.onnx")
        self._chance = np.random.default_rng(1)
        self._other = self._speech_of("The weather will stay like this for the rest of the week.")
        """What another voice said."""
        self._clean: dict[tuple[str, str], Samples] = {}
        """The phrases that were spoken, by text and voice."""

    def turns(self, language: str, noise: str | None, snr_db: float) -> Iterator[Turn]:
        for finished, phrases in ((True, FINISHED), (False, UNFINISHED)):
            for phrase in phrases[language].replace("\n", "|").split("|"):
                for voice in VOICES[language]:
                    speech = self._spoken(phrase, voice, language, finished=finished)
                    if noise is not None:
                        speech = speech + self._noise(noise, speech, snr_db)
                    pcm = speech.clip(-32768, 32767).astype("<i2").tobytes()
                    *_, answer = self._transcriber.transcribe(pcm, PassOptions(complete=False))
                    text = json.loads(answer)["text"]
                    yield Turn(finished, text, self._turn_model.probability(pcm))
                    print(".", end="", file=sys.stderr, flush=True)

    def _spoken(self, phrase: str, voice: str, language: str, *, finished: bool) -> Samples:
        """The phrase at 16 kHz, with silence behind it. An unfinished one is spoken as
        if a comma followed.
        """
        if not finished:
            phrase += "，" if language == "zh" else ","
        if (phrase, voice) not in self._clean:
            spoken = np.frombuffer(self._speech.speak(phrase, voice), "<i2").astype(np.float64)
            silence = np.zeros(PCM_RATE_HZ * SILENCE_MS // 1000)
            self._clean[phrase, voice] = np.concatenate([spoken, silence])
        return self._clean[phrase, voice]

    def _speech_of(self, text: str) -> Samples:
        """A sentence by a voice of none of the turns."""
        return np.frombuffer(self._speech.speak(text, OTHER_VOICE), "<i2").astype(np.float64)

    def _noise(self, name: str, speech: Samples, snr_db: float) -> Samples:
        count = len(speech)
        seconds = np.arange(count) / PCM_RATE_HZ
        match name:
            case "pink":
                spectrum = np.fft.rfft(self._chance.standard_normal(count))
                noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), count)
            case "hum":
                waves = [np.sin(2 * np.pi * 50 * n * seconds) / n for n in (1, 2, 3, 5)]
                noise = np.sum(waves, axis=0)
            case "music":
                notes = [np.sin(2 * np.pi * hz * seconds) for hz in (262, 330, 392, 523)]
                noise = np.sum(notes, axis=0) * np.exp(-3 * (seconds % 0.5))
            case "babble":
                others = [np.roll(speech, self._chance.integers(count))[::-1] for _ in range(6)]
                noise = np.sum(others, axis=0)
            case "voice" | "echo":
                noise = np.resize(self._other, count)
                if name == "echo":
                    tail = np.exp(
                        -6.9 * np.arange(int(ROOM_S * PCM_RATE_HZ)) / ROOM_S / PCM_RATE_HZ
                    )
                    room = self._chance.standard_normal(len(tail)) * tail
                    noise = np.convolve(noise, room)[:count]
            case _:
                noise = self._chance.standard_normal(count)
        level = np.sqrt(np.mean(speech**2)) / 10 ** (snr_db / 20)
        mixed: Samples = noise / np.sqrt(np.mean(noise**2)) * level
        return mixed


if __name__ == "__main__":
    main()
