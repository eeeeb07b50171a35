"""Endpointing: how much silence ends the user's turn. Pure and stateless."""

from collections.abc import Sequence
from dataclasses import dataclass

from voicechat.session.turn_words import TextEnding, ending_of


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveSilence:
    """Needs less silence after a finished sentence, and more where the words or the
    speaker's habit suggest that more follows.

    ``silence_ms`` is what the client asks for; every bound is a fraction of it.
    """

    silence_ms: int = 500
    """The silence after a text whose ending is unclear, from a speaker without known
    pauses.
    """
    complete: float = 0.6
    unfinished: float = 3.0
    dictating: float = 2.6
    """Fractions of ``silence_ms`` by how the text ends."""
    habit: float = 1.25
    """A silence counts as unusual for this speaker when it exceeds their usual pause by
    this factor.
    """
    most: float = 3.6
    """The longest delay, as a fraction of ``silence_ms``."""
    most_added_ms: int = 1_300
    """The most that words and habit add to ``silence_ms``."""

    @property
    def most_ms(self) -> int:
        """The longest delay, in milliseconds: the lower one of both bounds."""
        return min(round(self.most * self.silence_ms), self.silence_ms + self.most_added_ms)

    def end_delay_ms(
        self, text: str, pauses_ms: Sequence[int], completion: float | None = None
    ) -> int:
        """Return how long after the end of speech the turn is over, if nothing more is
        heard.

        ``text`` is what was recognised of the turn so far, empty if nothing was.
        ``pauses_ms`` are this speaker's pauses within turns, oldest first.
        ``completion`` is a learned model's probability (0 to 1) that the turn is
        finished, None without a model or while it computes.
        """
        factor = self._factor(ending_of(text), completion)
        # A habit lengthens short waits only; after an "and" the wait is long for every
        # speaker.
        habitual_ms = min(factor, 1.0) * self.habit * usual_pause_ms(pauses_ms)
        return min(round(max(factor * self.silence_ms, habitual_ms)), self.most_ms)

    def _factor(self, ending: TextEnding, completion: float | None) -> float:
        """Return the delay as a fraction of ``silence_ms``: the longer one of what the
        words and the model suggest.

        The model's fraction falls linearly from ``unfinished`` at a probability of 0 to
        ``complete`` at 1. Either of the two keeps a turn open by itself. The model
        hears the intonation, which words do not show, but takes "my number is zero two
        zero" for finished; a recogniser writes a full stop after "the problem is that
        the". If the words suggest nothing, the model decides.
        """
        by_words = self._by_words(ending)
        if completion is None:
            return by_words
        probability = min(max(completion, 0.0), 1.0)
        by_model = self.unfinished + (self.complete - self.unfinished) * probability
        return by_model if ending is TextEnding.PLAIN else max(by_words, by_model)

    def _by_words(self, ending: TextEnding) -> float:
        match ending:
            case TextEnding.COMPLETE:
                return self.complete
            case TextEnding.PLAIN:
                return 1.0
            case TextEnding.UNFINISHED:
                return self.unfinished
            case TextEnding.DICTATING:
                return self.dictating


PAUSE_WEIGHT = 0.3
"""Weight of the newest pause in a speaker's usual one."""


def usual_pause_ms(pauses_ms: Sequence[int]) -> float:
    """Return the exponential mean of a speaker's pauses, oldest first; 0 if there are
    none.
    """
    if not pauses_ms:
        return 0.0
    usual_ms = float(pauses_ms[0])
    for pause_ms in pauses_ms:
        usual_ms += PAUSE_WEIGHT * (pause_ms - usual_ms)
    return usual_ms
