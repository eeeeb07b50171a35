"""Barge-in: whether a sound of the user during a reply interrupts it. Pure; time is an
argument.

The reply continues until this is decided. So a cough ends before the decision, "mm-hm"
is recognised as a backchannel and ignored, and "wait" interrupts at once.
"""

from dataclasses import dataclass
from enum import Enum

from voicechat.session.turn_words import is_backchannel, is_interruption_request, words_of_substance


class Verdict(Enum):
    """The decision about a sound during a reply."""

    UNDECIDED = "undecided"
    INTERRUPTION = "interruption"
    NONE = "none"
    """A cough, a noise, a backchannel: the reply continues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BargeInSettings:
    """When a sound interrupts."""

    min_ms: int = 200
    """Shorter speech does not interrupt, unless its words ask to stop."""
    min_words: int = 0
    """The words that are needed, backchannels not counted, however long the sound
    lasts; a Han character is a word.
    """
    by_voice: bool = False
    """True, with no words needed: speech of ``min_ms`` interrupts at once, whatever its
    words.
    """
    wordless_ms: int = 800
    """If no word is needed, speech without recognised words interrupts when it lasts
    this long after ``min_ms``. "Mm-hm" is shorter.
    """
    backchannel_ms: int = 900
    """Speech that continues this long after backchannel words interrupts."""
    more_words_ms: int = 400
    """How long after the sound a recogniser that has already returned words of it may
    return more.
    """
    first_words_ms: int = 1_500
    """How long after the sound a recogniser may return its first word. Recognisers of
    whole utterances take about a second.
    """

    @property
    def by_voice_alone(self) -> bool:
        """Whether the voice alone interrupts, without any words."""
        return self.by_voice and self.min_words == 0


BREAK_MS = 300
"""A longer gap in a sound begins a new sound. The time of a shorter gap does not count
as speech.
"""


class BargeIn:
    """One sound during a reply, from the start of speech to the verdict, which is
    final.
    """

    def __init__(self, settings: BargeInSettings, began_ms: int) -> None:
        self._settings = settings
        self._began_ms = began_ms
        """When the sound began, plus the length of its gaps, so that only the time of
        sound counts.
        """
        self._ended_ms: int | None = None
        self._words_ms: int | None = None
        """When the recognised text last changed."""
        self._text = ""
        self._verdict = Verdict.UNDECIDED

    def speech_stopped(self, at_ms: int) -> None:
        """The speech ended at ``at_ms``."""
        self._ended_ms = at_ms

    def speech_resumed(self, at_ms: int) -> None:
        """Speech began again at ``at_ms``, before the verdict."""
        if self._ended_ms is None:
            return
        gap_ms = at_ms - self._ended_ms
        self._began_ms = at_ms if gap_ms > BREAK_MS else self._began_ms + gap_ms
        self._ended_ms = None

    def note_transcript(self, text: str, now_ms: int) -> None:
        """``text`` is everything recognised since the speech began."""
        if text != self._text:
            self._text, self._words_ms = text, now_ms

    def decide(self, now_ms: int) -> Verdict:
        """Return the verdict at ``now_ms``. Call after every event and at
        `deadline_ms`.
        """
        if self._verdict is Verdict.UNDECIDED:
            self._verdict = self._judge(now_ms)
        return self._verdict

    def deadline_ms(self) -> int | None:
        """Return when the verdict may change without a further event.

        None after the verdict, and during a sound that only words can make an
        interruption.
        """
        if self._verdict is not Verdict.UNDECIDED:
            return None
        if self._ended_ms is not None:
            return self._ended_ms + self._words_wait_ms
        patience_ms = self._patience_ms()
        return None if patience_ms is None else self._began_ms + self._settings.min_ms + patience_ms

    def _judge(self, now_ms: int) -> Verdict:
        if self._text and is_interruption_request(self._text):
            return Verdict.INTERRUPTION
        until_ms = now_ms if self._ended_ms is None else self._ended_ms
        patience_ms = self._patience_ms()
        may_be_one = patience_ms is not None and (self._ended_ms is None or patience_ms == 0)
        if may_be_one and until_ms - self._began_ms >= self._settings.min_ms + (patience_ms or 0):
            return Verdict.INTERRUPTION
        if self._ended_ms is not None and now_ms - self._ended_ms >= self._words_wait_ms:
            return Verdict.NONE
        return Verdict.UNDECIDED

    @property
    def _words_wait_ms(self) -> int:
        """How long after the sound to wait for its words."""
        if self._words_ms is not None or self._settings.by_voice_alone:
            return self._settings.more_words_ms
        return self._settings.first_words_ms

    def _patience_ms(self) -> int | None:
        """Return how long, after ``min_ms``, speech may last before it interrupts;
        None: without limit, until it brings words.
        """
        settings = self._settings
        if settings.by_voice_alone or words_of_substance(self._text) >= max(1, settings.min_words):
            return 0
        if settings.min_words > 0:
            return None
        if not is_backchannel(self._text):
            return settings.wordless_ms
        assert self._words_ms is not None
        return max(0, self._words_ms - self._began_ms - settings.min_ms) + settings.backchannel_ms
