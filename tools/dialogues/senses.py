"""What the server's senses make of a dialogue: probabilities and echo shares of 32 ms
frames, and late, faulty text.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from tools.dialogues.script import Dialogue, Kind, Sound
from voicechat.text.words import join

FRAME_MS = 32
WORD_ERRORS = 0.06
NOISE_WORDS = 0.04
"""How often a recogniser finds a word in a cough or a noise."""
PUNCTUATION_WAIT_MS = 250
"""After so much silence a recogniser that punctuates gives its sentence its marks."""


@dataclass(frozen=True, slots=True)
class Frame:
    end_ms: int
    probability: float
    echo_share: float


@dataclass(frozen=True, slots=True)
class Partial:
    """What the recogniser adds or, with ``replaces``, makes of the last sound's
    words.
    """

    at_ms: int
    sound: int
    text: str


@dataclass(frozen=True, slots=True)
class Senses:
    frames: tuple[Frame, ...]
    partials: tuple[Partial, ...]


@dataclass(slots=True)
class _Recogniser:
    random: random.Random
    latency_ms: int
    punctuates: bool
    partials: list[Partial] = field(default_factory=list)

    def hear(self, index: int, sound: Sound, chinese: bool) -> None:
        words = list(sound.text) if chinese else sound.text.split()
        if not words:
            if sound.kind in (Kind.COUGH, Kind.NOISE) and self.random.random() < NOISE_WORDS:
                self._add(sound.end_ms, index, "他" if chinese else "the")
            return
        if sound.kind is Kind.BACKCHANNEL and self.random.random() < 0.3:
            return  # a hum that no recogniser writes down
        length_ms = (sound.end_ms - sound.begin_ms) / len(words)
        heard: list[str] = []
        for number, word in enumerate(words, start=1):
            heard += self._mishear(word, words)
            text = "".join(heard) if chinese else " ".join(heard)
            self._add(round(sound.begin_ms + number * length_ms), index, text)
        if self.punctuates and heard:
            text = "".join(heard) if chinese else " ".join(heard)
            self._add(sound.end_ms + PUNCTUATION_WAIT_MS, index, text + self._mark(sound, chinese))

    def _add(self, said_ms: int, index: int, text: str) -> None:
        at_ms = said_ms + self.latency_ms + self.random.randint(-60, 60)
        at_ms = max([at_ms, *(partial.at_ms for partial in self.partials[-1:])])
        self.partials.append(Partial(at_ms, index, text))

    def _mishear(self, word: str, words: list[str]) -> list[str]:
        if self.random.random() >= WORD_ERRORS:
            return [word]
        return [] if self.random.random() < 0.3 else [self.random.choice(words)]

    def _mark(self, sound: Sound, chinese: bool) -> str:
        stop, comma = ("。", "，") if chinese else (".", ",")
        weights = (0.9, 0.02, 0.08) if sound.finishes else (0.25, 0.35, 0.4)
        return self.random.choices((stop, comma, ""), weights)[0]


def perceive(dialogue: Dialogue) -> Senses:
    """Let the senses err as they do, the same way for every policy."""
    chance = random.Random(dialogue.seed ^ 0x5EED)
    recogniser = _Recogniser(chance, chance.randint(120, 330), chance.random() < 0.5)
    for index, sound in sorted(enumerate(dialogue.sounds), key=lambda entry: entry[1].begin_ms):
        recogniser.hear(index, sound, dialogue.chinese)
    recogniser.partials.sort(key=lambda partial: partial.at_ms)
    return Senses(tuple(_frames(dialogue, chance)), tuple(recogniser.partials))


def text_of(partials: dict[int, str]) -> str:
    """Join the newest text of each sound."""
    return join(text for _, text in sorted(partials.items()))


def _frames(dialogue: Dialogue, chance: random.Random) -> Iterator[Frame]:
    for end_ms in range(FRAME_MS, dialogue.length_ms + 1_000, FRAME_MS):
        middle_ms = end_ms - FRAME_MS // 2
        sounding = [
            sound for sound in dialogue.sounds if sound.begin_ms <= middle_ms < sound.end_ms
        ]
        probability = max(
            [chance.betavariate(1, 30), *(_probability(sound, chance) for sound in sounding)]
        )
        echo = bool(sounding) and all(sound.kind is Kind.ECHO for sound in sounding)
        lagging = echo and middle_ms - sounding[0].begin_ms < 100
        share = chance.betavariate(8, 2) if echo and not lagging else chance.betavariate(1, 12)
        yield Frame(end_ms, probability, share)


def _probability(sound: Sound, chance: random.Random) -> float:
    match sound.kind:
        case Kind.SPEECH | Kind.ECHO | Kind.BACKCHANNEL:
            return chance.betavariate(9, 1) if chance.random() > 0.04 else chance.betavariate(2, 4)
        case Kind.COUGH:
            return chance.betavariate(4, 2)
        case Kind.NOISE:
            return chance.betavariate(2.5, 2.5)
