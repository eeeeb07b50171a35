"""Whether the user, who makes a sound while the reply is heard, wants the floor. Pure; time is an argument.

While it is being decided the reply goes on. A cough ends before it is decided; "mm-hm" is understood and let pass;
"wait" is obeyed at once; a recogniser that says nothing delays the decision by a bounded time only.
"""

from dataclasses import dataclass
from enum import Enum

from voicechat.session.turn_words import asks_for_the_floor, is_backchannel, words_of_substance


class Verdict(Enum):
    """What a sound during a reply is."""

    UNDECIDED = "undecided"
    INTERRUPTION = "interruption"
    NONE = "none"
    """A cough, a noise, an echo, a sign of listening: the reply goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BargeInSettings:
    """What it takes to interrupt."""

    min_ms: int = 200
    """Speech shorter than this does not interrupt, unless its words ask for the floor."""
    min_words: int = 0
    """Words of substance that are needed; a Han character is a word."""
    ignore_backchannels: bool = True
    """False, with no words asked for: speech of ``min_ms`` interrupts at once, whatever it says."""
    recogniser_wait_ms: int = 400
    """A recogniser that has been silent for so long no longer delays the decision."""
    backchannel_ms: int = 900
    """Speech that goes on for so long after words that only show attention is more than those."""
    echo_share: float = 0.5
    """A sound of which more than this is the reply itself, heard again, does not count."""

    @property
    def by_voice_alone(self) -> bool:
        """Whether no word is needed."""
        return self.min_words == 0 and not self.ignore_backchannels


class BargeIn:
    """One sound during a reply, from the start of speech to the verdict. A verdict does not change."""

    def __init__(self, settings: BargeInSettings, began_ms: int) -> None:
        self._settings = settings
        self._began_ms = began_ms
        self._ended_ms: int | None = None
        self._words_ms: int | None = None
        """When the recogniser said something new."""
        self._text = ""
        self._echo_ms = 0
        self._heard_ms = 0
        self._verdict = Verdict.UNDECIDED

    def stopped(self, at_ms: int) -> None:
        """The speech ended at ``at_ms``."""
        self._ended_ms = at_ms

    def resumed(self) -> None:
        """It goes on after a gap too short to be the end of anything."""
        self._ended_ms = None

    def transcribed(self, text: str, now_ms: int) -> None:
        """``text`` is all that was recognised since the speech began."""
        if text != self._text:
            self._text, self._words_ms = text, now_ms

    def echoed(self, length_ms: int, share: float) -> None:
        """Of ``length_ms`` of the sound, ``share`` (0 to 1) of the energy was the reply itself."""
        self._heard_ms += length_ms
        if share > self._settings.echo_share:
            self._echo_ms += length_ms

    def decide(self, now_ms: int) -> Verdict:
        """Judge at ``now_ms``. Ask after every event and at `deadline_ms`."""
        if self._verdict is Verdict.UNDECIDED:
            self._verdict = self._judge(now_ms)
        return self._verdict

    def deadline_ms(self) -> int | None:
        """When `decide` may say something new although nothing happens; None when it has decided."""
        if self._verdict is not Verdict.UNDECIDED:
            return None
        if self._ended_ms is not None:
            return self._ended_ms + self._settings.recogniser_wait_ms
        return self._began_ms + self._echo_ms + self._settings.min_ms + self._patience_ms()

    def _judge(self, now_ms: int) -> Verdict:
        settings = self._settings
        if self._text and asks_for_the_floor(self._text):
            return Verdict.INTERRUPTION
        until_ms = now_ms if self._ended_ms is None else self._ended_ms
        speech_ms = until_ms - self._began_ms - self._echo_ms
        patience_ms = self._patience_ms()
        if speech_ms >= settings.min_ms + patience_ms and (self._ended_ms is None or patience_ms == 0):
            return Verdict.INTERRUPTION
        if self._ended_ms is not None and now_ms - self._ended_ms >= settings.recogniser_wait_ms:
            return Verdict.NONE
        return Verdict.UNDECIDED

    def _patience_ms(self) -> int:
        """How long, after ``min_ms``, speech may go on before it interrupts by itself."""
        settings = self._settings
        if settings.by_voice_alone or words_of_substance(self._text) >= max(1, settings.min_words):
            return 0
        if self._words_ms is None:
            return settings.recogniser_wait_ms
        silent_since_ms = max(0, self._words_ms - self._began_ms - self._echo_ms - settings.min_ms)
        wait_ms = settings.backchannel_ms if is_backchannel(self._text) else settings.recogniser_wait_ms
        return silent_since_ms + wait_ms
