"""Endpointing: when the user's turn is over. Speech, silence and words in, a deadline
out. Pure; time is an argument.

All times are milliseconds on one line and never decrease. The speech detector's own
delay is part of the silence: ``speech_stopped`` gets the time at which speech ended,
and is called later.
"""

from collections import deque
from dataclasses import dataclass

from voicechat.session.turn_policy import AdaptiveSilence
from voicechat.session.turn_words import TextEnding, ending_of

REMEMBERED_PAUSES = 12
RESUMED_WITHIN_MS = 2_000
"""If the user speaks again within 2 s, the turn was ended too early: the gap is
recorded as a pause of this speaker.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundLimits:
    """How long a sound without words keeps a turn open: a cough, a door, a television.

    Voice detection cannot distinguish these from the user, so without a bound the turn
    would wait for a silence that does not come.
    """

    words_wait_ms: int = 350
    """How long after a sound the recogniser may still return a word of it."""
    wordless_ms: int = 1_200
    """A sound after the words that brings no word within this time is not the user's
    speech.
    """
    unchanged_ms: int = 4_000
    """After this long without a change the words are complete, even if a sound
    continues. Recognisers of whole utterances return something new at least every 3.5
    s.
    """
    unheard_ms: int = 30_000
    """A turn without recognised words ends after this long, so that the recogniser
    returns what it has and the next words begin a turn of their own.
    """


class TurnEnd:
    """One session's open turn. Call `deadline_ms` after each other call; at that time
    the turn is over: call `end_turn`.
    """

    def __init__(self, policy: AdaptiveSilence, limits: SoundLimits | None = None) -> None:
        self._policy = policy
        self._limits = limits or SoundLimits()
        self._pauses_ms: deque[int] = deque(maxlen=REMEMBERED_PAUSES)
        self._ended_ms: int | None = None
        self._text = ""
        self._text_before = ""
        """The text before the newest sound."""
        self._completion: float | None = None
        self._delay_ms: int | None = None
        """The policy's result, until its arguments change: it is needed after every
        event.
        """
        self._quiet_from_ms: int | None = None
        """The end of the last sound that was certainly speech."""
        self._sound_from_ms: int | None = None
        self._sound_to_ms: int | None = None
        self._began_ms = 0
        """When the turn began, with its first sound."""
        self._words_ms = 0
        """When the words last changed; if they have not, when the turn began."""

    @property
    def sounding(self) -> bool:
        """Whether a sound of this turn continues."""
        return self._sound_from_ms is not None and self._sound_to_ms is None

    @property
    def open(self) -> bool:
        """Whether anything has been heard in this turn."""
        return self._sound_from_ms is not None

    def speech_started(self, at_ms: int, known_ms: int | None = None) -> None:
        """A sound began at ``at_ms``. ``known_ms``: since when it is known to be part
        of the turn, if later; its words are awaited from then on.
        """
        if self._sound_from_ms is None or known_ms is not None:
            self._began_ms = self._words_ms = at_ms if known_ms is None else known_ms
        self._sound_from_ms, self._sound_to_ms = at_ms, None
        self._text_before = self._text
        self._completion = self._delay_ms = None
        if self._ended_ms is not None and not self._text:
            if self.resumes(at_ms):
                self._pauses_ms.append(at_ms - self._ended_ms)
            self._ended_ms = None

    def resumes(self, at_ms: int) -> bool:
        """Whether speech at ``at_ms`` continues the last turn, which was ended too
        early: it begins at most 2 s after that turn, before anything of the answer was
        heard.
        """
        return self._ended_ms is not None and 0 < at_ms - self._ended_ms <= RESUMED_WITHIN_MS

    def speech_stopped(self, at_ms: int) -> None:
        """The sound ended at ``at_ms``."""
        if self._sound_from_ms is None:
            return
        self._sound_to_ms = at_ms
        if self._quiet_from_ms is None or self._is_speech:
            self._adopt()

    def note_transcript(self, text: str, now_ms: int) -> None:
        """``text`` is everything recognised of the turn so far, at ``now_ms``.

        New words show that a doubtful sound is speech.
        """
        if text == self._text:
            return
        self._text, self._words_ms = text, now_ms
        self._delay_ms = None
        if self._sound_to_ms is not None:
            self._adopt()

    def note_completion(self, probability: float) -> None:
        """Set a learned model's judgement of the current silence."""
        self._completion = probability
        self._delay_ms = None

    def deadline_ms(self) -> int | None:
        """Return when the turn is over if no event comes before; None: there is no
        turn.
        """
        if self._sound_from_ms is None:
            return None
        latest_ms = self._latest_ms()
        if self._quiet_from_ms is None or (self._sound_to_ms is None and self._is_speech):
            return latest_ms
        due_ms = self._quiet_from_ms + self._silence_ms()
        if self._sound_to_ms != self._quiet_from_ms:
            due_ms = max(due_ms, self._doubt_until_ms())
        return min(due_ms, latest_ms)

    def note_reply_audible(self) -> None:
        """The answer to the last turn is being heard: speech after this does not
        continue that turn.
        """
        self._ended_ms = None

    def end_turn(self) -> None:
        """End the turn: forget everything except the speaker's pauses."""
        self._ended_ms = None if self.sounding else self._quiet_from_ms
        self._text = self._text_before = ""
        self._completion = self._delay_ms = None
        self._quiet_from_ms = self._sound_from_ms = self._sound_to_ms = None

    @property
    def pauses_ms(self) -> tuple[int, ...]:
        """The speaker's pauses within turns, oldest first, without those that the words
        announce.
        """
        return tuple(self._pauses_ms)

    def _silence_ms(self) -> int:
        """Return how much silence ends the turn."""
        if self._delay_ms is None:
            self._delay_ms = self._policy.end_delay_ms(
                self._text, self._pauses_ms, self._completion
            )
        return self._delay_ms

    def _latest_ms(self) -> int:
        """Return when the turn is over even if a sound continues."""
        if not self._text:
            return self._began_ms + self._limits.unheard_ms
        return self._words_ms + self._limits.unchanged_ms + self._silence_ms()

    @property
    def _is_speech(self) -> bool:
        """Whether the newest sound counts as the user's: it brought words, or no sound
        has brought any.
        """
        return not self._text or self._text != self._text_before

    def _doubt_until_ms(self) -> int:
        """Return until when the sound after the last speech may still prove to be
        speech.
        """
        assert self._sound_from_ms is not None
        if self._sound_to_ms is not None:
            return self._sound_to_ms + self._limits.words_wait_ms
        return self._sound_from_ms + self._limits.wordless_ms

    def _adopt(self) -> None:
        """Treat the last sound as speech: the silence counts from its end, and the gap
        before it was a pause.
        """
        assert self._sound_from_ms is not None
        if self._sound_to_ms == self._quiet_from_ms:
            return
        if self._quiet_from_ms is not None and self._sound_from_ms > self._quiet_from_ms:
            # A pause that the words announce does not show how long the other pauses
            # are.
            if ending_of(self._text_before) in (TextEnding.PLAIN, TextEnding.COMPLETE):
                self._pauses_ms.append(self._sound_from_ms - self._quiet_from_ms)
            self._delay_ms = None
        self._quiet_from_ms = self._sound_to_ms
