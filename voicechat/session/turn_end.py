"""When the user's turn is over: speech, silence and words in, a deadline out. Pure; time is an argument.

All times are milliseconds on one line that does not go back. The speech detector's own delay is part of the silence:
``speech_stopped`` says where speech ended, and is told later.
"""

from collections import deque
from dataclasses import dataclass

from voicechat.session.turn_policy import TurnPolicy
from voicechat.session.turn_words import Ending, ending_of

REMEMBERED_PAUSES = 12
RESUMED_WITHIN_MS = 2_000
"""Speech that goes on so soon after an end shows that the end was none: the gap was one of the speaker's pauses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundLimits:
    """How long a sound that brings no word may keep a turn open that has words: a cough, a door, a television."""

    words_wait_ms: int = 350
    """How long after the sound a word of it may still arrive from the recogniser."""
    wordless_ms: int = 1_200
    """A sound that lasts so long without a word is none of the user's speech."""


class TurnEnd:
    """One session's open turn. Ask `deadline_ms` after each call; at that time the turn is over: call `end`."""

    def __init__(self, policy: TurnPolicy, limits: SoundLimits | None = None) -> None:
        self._policy = policy
        self._limits = limits or SoundLimits()
        self._pauses_ms: deque[int] = deque(maxlen=REMEMBERED_PAUSES)
        self._ended_ms: int | None = None
        self._text = ""
        self._text_before = ""
        """What was recognised before the newest sound."""
        self._completion: float | None = None
        self._delay_ms: int | None = None
        """The policy's answer, until what it was asked about changes: it is wanted after every event."""
        self._quiet_from_ms: int | None = None
        """Where the last sound that surely was speech ended."""
        self._sound_from_ms: int | None = None
        self._sound_to_ms: int | None = None

    @property
    def open(self) -> bool:
        """Whether anything has been heard in this turn."""
        return self._sound_from_ms is not None

    def speech_started(self, at_ms: int) -> None:
        """Someone speaks since ``at_ms``."""
        self._sound_from_ms, self._sound_to_ms = at_ms, None
        self._text_before = self._text
        self._completion = self._delay_ms = None
        if self._ended_ms is not None and not self._text:
            gap_ms = at_ms - self._ended_ms
            self._ended_ms = None
            if 0 < gap_ms <= RESUMED_WITHIN_MS:
                self._pauses_ms.append(gap_ms)

    def speech_stopped(self, at_ms: int) -> None:
        """Nobody has spoken since ``at_ms``."""
        if self._sound_from_ms is None:
            return
        self._sound_to_ms = at_ms
        if self._quiet_from_ms is None or self._is_speech:
            self._adopt()

    def transcribed(self, text: str) -> None:
        """``text`` is all that was recognised of the turn so far. New words make a doubtful sound speech."""
        if text == self._text:
            return
        self._text = text
        self._delay_ms = None
        if self._sound_to_ms is not None:
            self._adopt()

    def completed(self, probability: float) -> None:
        """A learned model's judgement of the silence that lasts now."""
        self._completion = probability
        self._delay_ms = None

    def deadline_ms(self) -> int | None:
        """When the turn is over if nothing more happens; None while there is speech, or no turn."""
        if self._sound_from_ms is None or (self._sound_to_ms is None and self._is_speech):
            return None
        if self._quiet_from_ms is None:
            return None
        due_ms = self._due_ms(self._quiet_from_ms)
        return due_ms if self._sound_to_ms == self._quiet_from_ms else max(due_ms, self._doubt_until_ms())

    def answered(self) -> None:
        """The answer to the last turn is being heard: what is said after it is no continuation of that turn."""
        self._ended_ms = None

    def end(self) -> None:
        """The turn is over: forget it, keep the speaker's pauses."""
        self._ended_ms = self._quiet_from_ms
        self._text = self._text_before = ""
        self._completion = self._delay_ms = None
        self._quiet_from_ms = self._sound_from_ms = self._sound_to_ms = None

    @property
    def pauses_ms(self) -> tuple[int, ...]:
        """The speaker's unannounced pauses within turns, oldest first."""
        return tuple(self._pauses_ms)

    def _due_ms(self, quiet_from_ms: int) -> int:
        if self._delay_ms is None:
            self._delay_ms = self._policy.end_delay_ms(self._text, self._pauses_ms, self._completion)
        return quiet_from_ms + self._delay_ms

    @property
    def _is_speech(self) -> bool:
        """Whether the newest sound counts as the user's: it brought words, or nothing has brought any."""
        return not self._text or self._text != self._text_before

    def _doubt_until_ms(self) -> int:
        """Until when the sound after the last speech may still turn out to be speech."""
        assert self._sound_from_ms is not None
        if self._sound_to_ms is not None:
            return self._sound_to_ms + self._limits.words_wait_ms
        return self._sound_from_ms + self._limits.wordless_ms

    def _adopt(self) -> None:
        """The last sound was speech: the silence counts from its end, and the gap before it was a pause."""
        assert self._sound_from_ms is not None
        if self._sound_to_ms == self._quiet_from_ms:
            return
        if self._quiet_from_ms is not None and self._sound_from_ms > self._quiet_from_ms:
            # A pause that the words announce says nothing about those that they do not.
            if ending_of(self._text_before) in (Ending.PLAIN, Ending.COMPLETE):
                self._pauses_ms.append(self._sound_from_ms - self._quiet_from_ms)
            self._delay_ms = None
        self._quiet_from_ms = self._sound_to_ms
