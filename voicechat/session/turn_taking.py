"""Turn taking without a button: endpointing and barge-in. Speech and words in,
decisions out. Pure; time is an argument.

A sound while the assistant has the floor is *contested*: the reply continues until
``BargeIn`` has judged the sound. Any other sound belongs to the user's turn, whose end
``TurnEnd`` finds. A turn may end although its sound continues, for example because the
sound is a television or a fan; then the rest of the sound needs words to interrupt.
"""

from dataclasses import replace
from enum import Enum, auto

from voicechat.session.barge_in import BargeIn, BargeInSettings, Verdict
from voicechat.session.turn_end import TurnEnd
from voicechat.session.turn_policy import AdaptiveSilence
from voicechat.session.turn_words import TextEnding, ending_of
from voicechat.session.types import TurnDetection

PREEMPTIVE_PART = 0.5
"""Fraction of the endpointing silence after which a preemptive reply may start. Most
pauses within a turn are shorter than that.
"""


class Decision(Enum):
    """What the session must do next."""

    END_TURN = auto()
    """The user has finished: answer."""
    BEGIN_PREEMPTIVELY = auto()
    """The user has probably finished: start the reply, and withhold it."""
    INTERRUPT = auto()
    """The user interrupts: stop the reply."""
    DISMISS = auto()
    """A sound during the reply was no interruption: discard what it brought."""


class TurnTaking:
    """One session's hands-free state."""

    def __init__(self, detection: TurnDetection, *, by_voice: bool = True) -> None:
        """``by_voice``: if no words are required, the length of a sound alone makes it
        an interruption.
        """
        self._barge_in = BargeInSettings(
            min_ms=detection.min_interruption_ms,
            min_words=detection.min_interruption_words,
            by_voice=by_voice,
        )
        self._back_to_user = replace(self._barge_in, min_words=0, by_voice=True)
        """What continues a turn that was ended too early: speech, even without words,
        because nothing of the answer has been heard yet.
        """
        self._turn_end = TurnEnd(AdaptiveSilence(silence_ms=detection.silence_duration_ms))
        self._sound: BargeIn | None = None
        self._sound_began_ms = 0
        self._sound_ended_ms: int | None = None
        self._text = ""
        self._settled_text = ""
        self._stopped_ms: int | None = None

    @property
    def silent_since_ms(self) -> int | None:
        """When the user fell silent; None while they speak, or have not spoken in this
        turn.
        """
        return self._stopped_ms

    @property
    def contested(self) -> bool:
        """Whether a sound is being judged while the reply continues."""
        return self._sound is not None

    @property
    def undecided(self) -> bool:
        """Whether anything that was heard needs a decision; most of the time nothing
        does.
        """
        return self._sound is not None or self._turn_end.open

    def speech_started(self, at_ms: int, *, contested: bool) -> None:
        """The user began to speak at ``at_ms``; ``contested``: while the assistant has
        the floor.
        """
        self._stopped_ms = None
        if self._sound is not None:
            self._sound.speech_resumed(at_ms)
            self._sound_ended_ms = None
        elif contested:
            self._contest(at_ms, self._back_to_user if self._turn_end.resumes(at_ms) else None)
        else:
            self._turn_end.speech_started(at_ms)

    def speech_stopped(self, at_ms: int) -> None:
        """The user fell silent at ``at_ms``."""
        self._stopped_ms = at_ms
        if self._sound is not None:
            self._sound.speech_stopped(at_ms)
            self._sound_ended_ms = at_ms
        else:
            self._turn_end.speech_stopped(at_ms)

    def note_completion(self, probability: float) -> None:
        """Take a learned model's judgement of the turn up to its last silence; it is
        ignored for a contested sound.
        """
        if self._sound is None:
            self._turn_end.note_completion(probability)

    def note_transcript(self, text: str, now_ms: int, settled_text: str) -> None:
        """``text`` is what is shown of the user's words. ``settled_text``: all words up
        to the current silence, on which a reply may begin; empty: some are not known.
        """
        self._text, self._settled_text = text, settled_text
        if self._sound is not None:
            self._sound.note_transcript(text, now_ms)
        else:
            self._turn_end.note_transcript(text, now_ms)

    def accept_sound(self, now_ms: int) -> None:
        """The contested sound begins the user's turn: it interrupted the reply, or the
        reply has been heard.
        """
        if self._sound is None:
            return
        self._sound = None
        self._turn_end.speech_started(self._sound_began_ms, now_ms)
        if self._text:
            self._turn_end.note_transcript(self._text, now_ms)
        if self._sound_ended_ms is not None:
            self._turn_end.speech_stopped(self._sound_ended_ms)

    def note_reply_audible(self) -> None:
        """The listener hears the reply now."""
        self._turn_end.note_reply_audible()

    def end_turn(self) -> None:
        """The user's turn is over, by a decision or a command of the client."""
        self._turn_end.end_turn()
        self._text = self._settled_text = ""
        self._stopped_ms = None

    @property
    def sounding(self) -> bool:
        """Whether a sound of the user's turn continues."""
        return self._turn_end.sounding

    def continue_sound(self, now_ms: int, *, contested: bool) -> None:
        """The turn ended although its sound continues: only words from now on count."""
        if contested:
            self._contest(
                now_ms, replace(self._barge_in, min_words=max(1, self._barge_in.min_words))
            )
        else:
            self._turn_end.speech_started(now_ms)

    def reset(self) -> None:
        """Discard everything that was heard."""
        self._sound = None
        self.end_turn()

    def _contest(self, at_ms: int, settings: BargeInSettings | None) -> None:
        self._sound, self._sound_began_ms, self._sound_ended_ms = (
            BargeIn(settings or self._barge_in, at_ms),
            at_ms,
            None,
        )
        self._text = self._settled_text = ""

    def deadline_ms(self, *, may_end: bool) -> int | None:
        """Return when to call ``decide`` if no event comes before; None: not at all.
        ``may_end``: the user's turn may end now.
        """
        if self._sound is not None:
            return self._sound.deadline_ms()
        return self._turn_end.deadline_ms() if may_end else None

    def preemptive_at_ms(self) -> int | None:
        """Return when a preemptive reply may start: within a silence after words that
        are all known and do not suggest more; None: not now.
        """
        end_ms, text = self._turn_end.deadline_ms(), self._settled_text
        if self._sound is not None or end_ms is None or self._stopped_ms is None or not text:
            return None
        if ending_of(text) in (TextEnding.UNFINISHED, TextEnding.DICTATING):
            return None
        return self._stopped_ms + int((end_ms - self._stopped_ms) * PREEMPTIVE_PART)

    def decide(self, now_ms: int, *, may_end: bool) -> Decision | None:
        """Return what to do now; None: nothing. Afterwards call ``accept_sound``,
        ``reset`` or ``end_turn``.
        """
        if self._sound is not None:
            match self._sound.decide(now_ms):
                case Verdict.INTERRUPTION:
                    return Decision.INTERRUPT
                case Verdict.NONE:
                    return Decision.DISMISS
                case Verdict.UNDECIDED:
                    return None
        end_ms = self._turn_end.deadline_ms()
        if not may_end or end_ms is None:
            return None
        if now_ms >= end_ms:
            return Decision.END_TURN
        preemptive_ms = self.preemptive_at_ms()
        return (
            Decision.BEGIN_PREEMPTIVELY
            if preemptive_ms is not None and now_ms >= preemptive_ms
            else None
        )
