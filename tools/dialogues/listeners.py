"""The listeners that are compared: ours, and the plain one with its two fixed times."""

from typing import Protocol

from voicechat.session.barge_in import BargeIn, BargeInSettings, Verdict
from voicechat.session.turn_end import TurnEnd
from voicechat.session.turn_policy import AdaptiveSilence


class Listener(Protocol):
    """Hears a dialogue; the player asks it after each event whether the turn has ended
    or the reply is interrupted.
    """

    @property
    def knows_echo(self) -> bool:
        """Whether frames in which the reply prevails are silence to it."""

    def started(self, onset_ms: int, now_ms: int, *, replying: bool) -> None: ...

    def stopped(self, at_ms: int) -> None: ...

    def transcribed(self, turn_text: str, sound_text: str, now_ms: int) -> None: ...

    def turn_ended(self, now_ms: int) -> bool: ...

    def interrupted(self, now_ms: int) -> bool: ...


class Ours:
    """The pieces of the engine."""

    knows_echo = True

    def __init__(self, policy: AdaptiveSilence, settings: BargeInSettings) -> None:
        self._turn = TurnEnd(policy)
        self._settings = settings
        self._barge_in: BargeIn | None = None

    def started(self, onset_ms: int, now_ms: int, *, replying: bool) -> None:
        if not replying:
            self._barge_in = None
            self._turn.speech_started(onset_ms)
        elif self._barge_in is None or self._barge_in.decide(now_ms) is not Verdict.UNDECIDED:
            self._barge_in = BargeIn(self._settings, onset_ms)
        else:
            self._barge_in.speech_resumed(onset_ms)

    def stopped(self, at_ms: int) -> None:
        self._turn.speech_stopped(at_ms)
        if self._barge_in is not None:
            self._barge_in.speech_stopped(at_ms)

    def transcribed(self, turn_text: str, sound_text: str, now_ms: int) -> None:
        if self._barge_in is not None:
            self._barge_in.note_transcript(sound_text, now_ms)
        self._turn.note_transcript(turn_text, now_ms)

    def turn_ended(self, now_ms: int) -> bool:
        deadline_ms = self._turn.deadline_ms()
        if deadline_ms is None or now_ms < deadline_ms:
            return False
        self._turn.end_turn()
        return True

    def interrupted(self, now_ms: int) -> bool:
        return self._barge_in is not None and self._barge_in.decide(now_ms) is Verdict.INTERRUPTION


class Plain:
    """So much silence ends the turn; so much speech interrupts."""

    knows_echo = False

    def __init__(self, silence_ms: int, speech_ms: int) -> None:
        self._silence_ms = silence_ms
        self._speech_ms = speech_ms
        self._quiet_from_ms: int | None = None
        self._sound_from_ms: int | None = None

    def started(self, onset_ms: int, now_ms: int, *, replying: bool) -> None:
        self._quiet_from_ms = None
        self._sound_from_ms = onset_ms

    def stopped(self, at_ms: int) -> None:
        self._quiet_from_ms = at_ms
        self._sound_from_ms = None

    def transcribed(self, turn_text: str, sound_text: str, now_ms: int) -> None:
        pass

    def turn_ended(self, now_ms: int) -> bool:
        if self._quiet_from_ms is None or now_ms - self._quiet_from_ms < self._silence_ms:
            return False
        self._quiet_from_ms = None
        return True

    def interrupted(self, now_ms: int) -> bool:
        return self._sound_from_ms is not None and now_ms - self._sound_from_ms >= self._speech_ms
