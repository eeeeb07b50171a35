"""What the engine adds to a turn, and where: the client's moments and the server's put
together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voicechat.bench.timestamps import Moment, Moments


@dataclass(frozen=True, slots=True)
class AnsweredTurn:
    """One turn as its user saw it, in seconds of the system's monotonic clock."""

    turn: int
    complete_s: float
    """The client sent ``complete``."""
    first_audio_s: float
    """The client had the reply's first audio."""

    @property
    def took_ms(self) -> float:
        """From one to the other."""
        return (self.first_audio_s - self.complete_s) * 1000


@dataclass(frozen=True, slots=True)
class Stages:
    """The four intervals of one turn in which only the engine (and the network) is at
    work, in milliseconds.
    """

    hear: float
    """``complete`` sent, until the recogniser is told."""
    ask: float
    """The recogniser's final result, until the model is asked."""
    say: float
    """The end of the model's first sentence, until the synthesiser is asked."""
    send: float
    """The synthesiser's first samples, until the client has the first audio: encoded,
    written, read.
    """

    @property
    def total(self) -> float:
        """What the engine added to the turn."""
        return self.hear + self.ask + self.say + self.send


def stages_of(answers: Sequence[AnsweredTurn], timestamps: Mapping[int, Moments]) -> list[Stages]:
    """Put together what both sides noted. An answered turn that the server did not note
    is a mistake: KeyError.
    """
    return [_stages(answer, timestamps[answer.turn]) for answer in answers]


def _stages(answer: AnsweredTurn, moments: Moments) -> Stages:
    def between(begin: Moment, end: Moment) -> float:
        return (moments[end] - moments[begin]) / 1e6

    return Stages(
        moments[Moment.TOLD] / 1e6 - answer.complete_s * 1e3,
        between(Moment.UNDERSTOOD, Moment.ASKED),
        between(Moment.SENTENCE, Moment.SPEAK),
        answer.first_audio_s * 1e3 - moments[Moment.SAMPLES] / 1e6,
    )
