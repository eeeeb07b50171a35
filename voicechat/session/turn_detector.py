"""Turn detection: combines turn taking with recognition, playback and the client's
settings.

``TurnTaking`` handles sounds and words. This module knows whether the assistant is
being heard, and so whether a sound is contested and whether a turn may end. Without
turn detection nothing here decides anything.
"""

from collections.abc import Sequence

from voicechat.session import events as ev
from voicechat.session.effects import Effect, Send
from voicechat.session.idle_timeout import IdleTimeout
from voicechat.session.limits import SessionLimits, earliest_ms
from voicechat.session.notices import SpeechNoticed
from voicechat.session.reply_state import ReplyState
from voicechat.session.states import TURN, State
from voicechat.session.transcription_state import TranscriptionState
from voicechat.session.turn_taking import Decision, TurnTaking
from voicechat.session.types import InputSettings, Settings, TurnDetection

FROM_NOW_MS = 2**62
"""A time later than all of the connection's audio: recognition begins with the next
sample.
"""


class TurnDetector:
    """Decides who may speak: the session calls ``decide`` after every event, and
    carries the decision out.
    """

    def __init__(
        self,
        presence: IdleTimeout,
        hearing: TranscriptionState,
        speaking: ReplyState,
        limits: SessionLimits,
        *,
        by_voice: bool = True,
    ) -> None:
        """``by_voice``: if no words are required, any speech interrupts, even
        backchannels.
        """
        self.overloaded = False
        """Whether the process is overloaded: then no preemptive reply is started."""
        self.delay_ms = 0
        """How much of the newest audio is not judged yet: a silence is certain only up
        to its beginning.
        """
        self._idle_timeout = presence
        self._transcription = hearing
        self._replies = speaking
        self._limits = limits
        self._by_voice = by_voice
        self._detection: TurnDetection | None = None
        self._turn_taking: TurnTaking | None = None

    def configure(self, detection: TurnDetection | None) -> None:
        """Start over with ``detection``; None: the client ends each turn."""
        self._detection = detection
        self.delay_ms = 0
        self._turn_taking = (
            TurnTaking(detection, by_voice=self._by_voice) if detection is not None else None
        )

    @property
    def silent_since_ms(self) -> int | None:
        """When the user fell silent; None while they speak, or without turn
        detection.
        """
        return self._turn_taking.silent_since_ms if self._turn_taking is not None else None

    @property
    def contested(self) -> bool:
        """Whether a sound is being judged while the assistant has the floor."""
        return self._turn_taking is not None and self._turn_taking.contested

    @property
    def undecided(self) -> bool:
        """Whether `decide` can return anything: the user has been heard, and has not
        been answered yet.
        """
        return self._turn_taking is not None and self._turn_taking.undecided

    @property
    def answers(self) -> bool:
        """Whether turns are answered at all; a hands-free client may want only their
        ends.
        """
        return self._detection is None or self._detection.create_response

    # --- events -----------------------------------------------------------------------

    def handle_event(
        self,
        event: ev.SpeechStarted | ev.SpeechStopped | ev.TurnJudged,
        settings: InputSettings,
        state: State,
        now_ms: int,
    ) -> Sequence[Effect]:
        """Handle a beginning or an end of speech, or a learned model's judgement of an
        end.
        """
        turn_taking = self._turn_taking
        if turn_taking is None or state is State.OPENED:
            return ()
        if isinstance(event, ev.TurnJudged):
            turn_taking.note_completion(event.probability)
            return ()
        noticed = Send(SpeechNoticed(isinstance(event, ev.SpeechStarted), event.at_ms))
        # Audio may arrive faster than it was spoken, but none was spoken before the
        # connection was opened.
        at_ms = max(0, now_ms - event.ago_ms)
        if isinstance(event, ev.SpeechStopped):
            turn_taking.speech_stopped(at_ms)
            return (noticed,)
        self._idle_timeout.note_speech(now_ms)
        contested = self._assistant_heard(state, now_ms) and self._may_interrupt
        turn_taking.speech_started(at_ms, contested=contested)
        dropped = [] if contested else self._replies.drop_preemptive()
        return [noticed, *dropped, *self._transcription.open_stream_from(settings, event.at_ms)]

    def recall_words(self, state: State, now_ms: int) -> None:
        """After a lost process: words of the user's turn that were recognised before
        are answered, unless the user speaks on.
        """
        words = self._transcription.gathering.text
        if self._turn_taking is None or not words or state is not State.LISTENING:
            return
        self._turn_taking.speech_started(now_ms, contested=False)
        self._turn_taking.speech_stopped(now_ms)
        self._turn_taking.note_transcript(words, now_ms, words)

    def note_transcript(self, now_ms: int) -> Sequence[Effect]:
        """The text of the next turn has changed. A preemptive reply to other words is
        dropped.
        """
        if self._turn_taking is None:
            return ()
        gathering = self._transcription.gathering
        likely = gathering.likely_text
        self._turn_taking.note_transcript(
            gathering.text, now_ms, likely if gathering.settled else ""
        )
        return () if self._replies.begun_for(likely) else self._replies.drop_preemptive()

    def prepare_reply(self, settings: Settings, state: State) -> Sequence[Effect]:
        """Have the chat model process the prompt that the user's words so far make
        likely, unless a reply to them has begun or the process is overloaded.

        In a silence only complete words are worth it: a reply begins soon, and the
        recogniser needs the machine for the last words.
        """
        gathering = self._transcription.gathering
        text = gathering.likely_text
        idle = state is State.LISTENING and not self.contested and not self._replies.preemptive
        if not text or not idle or not self.answers or self.overloaded:
            return ()
        if self.silent_since_ms is not None and not gathering.settled:
            return ()
        return self._replies.prepare(text, settings)

    def note_reply_audible(self) -> None:
        """The listener hears the reply now."""
        if self._turn_taking is not None:
            self._turn_taking.note_reply_audible()

    def end_turn(self) -> None:
        """The user's turn is over."""
        if self._turn_taking is not None:
            self._turn_taking.end_turn()

    @property
    def sounding(self) -> bool:
        """Whether a sound of the user's turn continues."""
        return self._turn_taking is not None and self._turn_taking.sounding

    def continue_sound(self, settings: InputSettings, now_ms: int) -> Sequence[Effect]:
        """The turn ended although its sound continues: listen for words in the rest of
        the sound.
        """
        if self._turn_taking is None:
            return ()
        self._turn_taking.continue_sound(now_ms, contested=self._may_interrupt)
        return self._transcription.open_stream_from(settings, FROM_NOW_MS)

    def accept_sound(self, now_ms: int) -> Sequence[Effect]:
        """The contested sound begins the user's turn: send its held results."""
        if self._turn_taking is None:
            return ()
        self._turn_taking.accept_sound(now_ms)
        return self._transcription.release_held()

    def dismiss_sound(self) -> Sequence[Effect]:
        """The contested sound was no interruption: discard its results."""
        if self._turn_taking is not None:
            self._turn_taking.reset()
        return self._transcription.drop_gathering()

    def reset(self) -> Sequence[Effect]:
        """Discard what was heard of the turn, and the preemptive reply to it."""
        if self._turn_taking is None:
            return ()
        self._turn_taking.reset()
        return self._replies.drop_preemptive()

    # --- decisions --------------------------------------------------------------------

    def deadline_ms(self, state: State, now_ms: int) -> int | None:
        """Return when to call ``decide`` if no event comes before; None: not at all."""
        turn_taking = self._turn_taking
        if turn_taking is None or not turn_taking.undecided:
            return None
        turn_at_ms = self._when_judged(
            turn_taking.deadline_ms(may_end=self._turn_may_end(state, now_ms))
        )
        if state is not State.LISTENING:
            return turn_at_ms
        preemptive_at_ms = (
            self._when_judged(turn_taking.preemptive_at_ms())
            if self._may_begin_preemptively(state, now_ms)
            else None
        )
        return earliest_ms(
            turn_at_ms, self._replies.playback.silent_at_ms(now_ms), preemptive_at_ms
        )

    def uncontested(self, state: State, now_ms: int) -> bool:
        """Whether a contested sound needs no judgement any more, because the reply has
        been heard.
        """
        return self.contested and not self._assistant_heard(state, now_ms)

    def decide(self, state: State, now_ms: int) -> Decision | None:
        """Return what the session must do now; None: nothing."""
        if self._turn_taking is None:
            return None
        decision = self._turn_taking.decide(
            now_ms - self.delay_ms, may_end=self._turn_may_end(state, now_ms)
        )
        if decision is Decision.BEGIN_PREEMPTIVELY and not self._may_begin_preemptively(
            state, now_ms
        ):
            return None
        return decision

    def _when_judged(self, at_ms: int | None) -> int | None:
        """Return when the audio of ``at_ms`` will have been judged."""
        return None if at_ms is None else at_ms + self.delay_ms

    def _assistant_heard(self, state: State, now_ms: int) -> bool:
        """Whether a turn is in progress, or the listener still hears its reply."""
        return state in TURN or self._replies.playback.audible(now_ms)

    @property
    def _may_interrupt(self) -> bool:
        return self._detection is not None and self._detection.interrupt_response

    def _turn_may_end(self, state: State, now_ms: int) -> bool:
        """Whether the user's turn may end now: not while an earlier turn is being
        answered or its answer heard, if replies may not be interrupted.
        """
        return state is State.LISTENING and (
            self._may_interrupt or not self._assistant_heard(state, now_ms)
        )

    def _may_begin_preemptively(self, state: State, now_ms: int) -> bool:
        wasted = self._replies.wasted >= self._limits.early_replies_wasted
        unwise = wasted or self.overloaded
        return (
            self._turn_may_end(state, now_ms)
            and self.answers
            and not self._replies.preemptive
            and not unwise
        )
