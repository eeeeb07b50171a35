"""Scripted dialogues: what sounds when, what is said, and what a good listener would
have done.
"""

import random
from dataclasses import dataclass
from enum import Enum

from tools.dialogues.phrases import Bank
from voicechat.text.words import count_words

WORD_MS = {False: 290, True: 210}
"""One English word, one Chinese character."""
TURNS = 4
REPLY_AFTER_MS = 5_000
"""The reply begins so long after the user's turn, whatever the policy did: each is
judged on the same sounds.
"""
REPLY_MS = 4_500


class Kind(Enum):
    SPEECH = "speech"
    BACKCHANNEL = "backchannel"
    COUGH = "cough"
    NOISE = "noise"
    ECHO = "echo"


@dataclass(frozen=True, slots=True)
class Sound:
    kind: Kind
    begin_ms: int
    end_ms: int
    text: str = ""
    finishes: bool = False
    """Its sentence is complete."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """A time in which the reply is played, and where in it the user really
    interrupts.
    """

    begin_ms: int
    end_ms: int
    interruption: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Dialogue:
    chinese: bool
    seed: int
    sounds: tuple[Sound, ...]
    turn_spans_ms: tuple[tuple[int, int], ...]
    overlaps: tuple[Overlap, ...]
    length_ms: int


class _Writer:
    def __init__(self, bank: Bank, seed: int) -> None:
        self.bank = bank
        self.random = random.Random(seed)
        self.at_ms = 500
        self.sounds: list[Sound] = []
        self.slowness = self.random.uniform(0.7, 1.5)

    def say(self, text: str, *, kind: Kind = Kind.SPEECH, finishes: bool = False) -> Sound:
        words = count_words(text)
        length_ms = round(words * WORD_MS[self.bank.chinese] * self.random.uniform(0.85, 1.15))
        return self.sound(kind, max(180, length_ms), text, finishes)

    def sound(self, kind: Kind, length_ms: int, text: str = "", finishes: bool = False) -> Sound:
        sound = Sound(kind, self.at_ms, self.at_ms + length_ms, text, finishes)
        self.sounds.append(sound)
        self.at_ms = sound.end_ms
        return sound

    def pause(self, median_ms: float) -> None:
        self.at_ms += round(
            min(max(self.random.lognormvariate(0, 0.35) * median_ms * self.slowness, 130), 2_200)
        )

    def turn(self) -> tuple[int, int]:
        bank, chance = self.bank, self.random
        begin_ms = self.at_ms
        if chance.random() < 0.15:
            for part in chance.choice(bank.numbers):
                if self.sounds and self.at_ms > begin_ms:
                    self.pause(480)
                self.say(part)
        else:
            for _ in range(chance.choice((0, 1, 1, 2))):
                opened = chance.random() < 0.6
                self.say(chance.choice(bank.open_parts if opened else bank.plain_parts))
                self.interject()
                self.pause(560 if opened else 260)
            self.say(chance.choice(bank.ends), finishes=True)
        return begin_ms, self.at_ms

    def interject(self) -> None:
        """Now and then a cough fills a pause."""
        if self.random.random() < 0.08:
            self.at_ms += self.random.randint(120, 250)
            self.sound(Kind.COUGH, self.random.randint(150, 350))

    def after_turn(self) -> None:
        """Someone else's noise just when silence is waited for."""
        end_ms = self.at_ms
        if self.random.random() < 0.25:
            for _ in range(self.random.choice((1, 1, 2, 4))):
                self.at_ms += self.random.randint(150, 420)
                self.sound(
                    self.random.choice((Kind.COUGH, Kind.NOISE)), self.random.randint(150, 700)
                )
        self.at_ms = end_ms

    def overlap(self) -> Overlap:
        begin_ms = self.at_ms
        what = self.random.choice(
            ("nothing", "backchannel", "cough", "noise", "echo", "interruption", "command", "start")
        )
        self.at_ms += (
            self.random.randint(0, 150) if what == "start" else self.random.randint(600, 2_200)
        )
        span = self._act(what)
        self.at_ms = begin_ms + REPLY_MS
        return Overlap(begin_ms, begin_ms + REPLY_MS, span)

    def _act(self, what: str) -> tuple[int, int] | None:
        bank, chance = self.bank, self.random
        match what:
            case "backchannel":
                self.say(chance.choice(bank.backchannels), kind=Kind.BACKCHANNEL)
            case "cough":
                self.sound(Kind.COUGH, chance.randint(150, 450))
            case "noise":
                self.sound(Kind.NOISE, chance.randint(150, 900))
            case "echo":
                self.sound(Kind.ECHO, chance.randint(500, 2_000))
            case "interruption" | "start":
                said = self.say(chance.choice(bank.interruptions), finishes=True)
                return said.begin_ms, said.end_ms
            case "command":
                said = self.say(chance.choice(bank.commands), finishes=True)
                return said.begin_ms, said.end_ms
            case _:
                pass
        return None


def write(bank: Bank, seed: int) -> Dialogue:
    """Write the dialogue of this seed."""
    writer = _Writer(bank, seed)
    turns: list[tuple[int, int]] = []
    overlaps: list[Overlap] = []
    for _ in range(TURNS):
        turns.append(writer.turn())
        writer.after_turn()
        writer.at_ms += REPLY_AFTER_MS
        overlaps.append(writer.overlap())
        writer.at_ms += 3_000
    return Dialogue(
        bank.chinese, seed, tuple(writer.sounds), tuple(turns), tuple(overlaps), writer.at_ms
    )
