"""Endpointing: how much silence ends the user's turn. Pure; a policy remembers
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from voicechat.session.turn_words import TextEnding, ending_of


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveSilence:
    """Less after a finished sentence, more where words or the speaker's habit say that
    more comes.

    ``silence_ms`` is what the client asks for, so every bound is a part of it.
    """

    silence_ms: int = 500
    """For a text that says nothing about its end and a speaker of whom nothing is
    known.
    """
    complete: float = 0.6
    unfinished: float = 3.0
    dictating: float = 2.6
    """Parts of ``silence_ms`` by how the text ends."""
    habit: float = 1.25
    """A silence is unusual for this speaker when it is so much longer than their usual
    pause.
    """
    most: float = 3.6
    """The longest delay, as a part of ``silence_ms``."""
    most_added_ms: int = 1_300
    """The most that words and habit add to ``silence_ms``."""

    @property
    def most_ms(self) -> int:
        """The longest delay, in milliseconds: whichever bound is lower."""
        return min(round(self.most * self.silence_ms), self.silence_ms + self.most_added_ms)

    def end_delay_ms(
        self, text: str, pauses_ms: Sequence[int], completion: float | None = None
    ) -> int:
        """How long after the end of speech the turn is over, if nothing more is heard.

        ``text`` is what was recognised of the turn so far, "" when nothing was.
        ``pauses_ms`` are this speaker's pauses within turns, oldest first.
        ``completion`` is a learned model's probability (0 to 1) that the turn is
        finished, None without one or while it computes.
        """
        factor = self._factor(ending_of(text), completion)
        # A habit lengthens short waits only; after an "and" the wait is long for
        # every speaker.
        habitual_ms = min(factor, 1.0) * self.habit * usual_pause_ms(pauses_ms)
        return min(round(max(factor * self.silence_ms, habitual_ms)), self.most_ms)

    def _factor(self, ending: TextEnding, completion: float | None) -> float:
        """Return the delay as a part of ``silence_ms``: the longer one of what the
        words say and of what the model says.

        The model's part falls on a straight line from ``unfinished`` at a probability
        of 0 to ``complete`` at 1. Either keeps a turn open by itself: the model hears
        the melody that words do not show, and takes "my number is zero two zero" for
        finished; a recogniser writes a full stop after "the problem is that the". Words
        that say nothing leave it to the model.
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
    """Exponential mean of a speaker's pauses, oldest first; 0 when there are none."""
    if not pauses_ms:
        return 0.0
    usual_ms = float(pauses_ms[0])
    for pause_ms in pauses_ms:
        usual_ms += PAUSE_WEIGHT * (pause_ms - usual_ms)
    return usual_ms
