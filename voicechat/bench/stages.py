"""The engine's overhead by stage, from the timestamps of client and server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voicechat.bench.timestamps import Moment, Moments


@dataclass(frozen=True, slots=True)
class AnsweredTurn:
    """One turn as the client saw it, in seconds of the system's monotonic clock."""

    turn: int
    complete_s: float
    """When the client sent ``complete``."""
    first_audio_s: float
    """When the client received the reply's first audio."""

    @property
    def took_ms(self) -> float:
        """From ``complete`` to the first audio."""
        return (self.first_audio_s - self.complete_s) * 1000


@dataclass(frozen=True, slots=True)
class Stages:
    """The four intervals of a turn that only the engine and the network account for, in
    milliseconds.
    """

    hear: float
    """From ``complete`` sent until the recogniser receives the end of the audio."""
    ask: float
    """From the final transcript until the model receives the request."""
    say: float
    """From the end of the model's first sentence until the synthesiser receives it."""
    send: float
    """From the synthesiser's first samples until the client receives the first audio:
    encoding, writing, reading.
    """

    @property
    def total(self) -> float:
        """The engine's overhead in the turn."""
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
