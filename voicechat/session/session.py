"""A conversation as a value machine: events in, effects out, time as an argument.

Nothing a client or a provider does can make it raise. The state table is in ``states``; what a turn gathers in
``hearing``; what a reply is, and what is remembered of it, in ``speaking``; who may speak, in ``hands_free``; whether
the client is there, in ``presence``; what is measured, in ``turn_times``.
"""

from typing import assert_never

from voicechat.errors import Status
from voicechat.session import events as ev
from voicechat.session.apology import Apology
from voicechat.session.deadlines import earliest_ms
from voicechat.session.effects import (
    Answered,
    Close,
    Effect,
    ErrorReported,
    LateDropped,
    LateKind,
    Observe,
    Outcome,
    Request,
    Route,
    RouteAudio,
    Send,
    SessionClosed,
    TurnCompleted,
)
from voicechat.session.floor import Decision
from voicechat.session.hands_free import TURN_DETECTED, HandsFree
from voicechat.session.hearing import Hearing
from voicechat.session.limits import SessionLimits
from voicechat.session.presence import Presence
from voicechat.session.speaking import Speaking
from voicechat.session.states import MOVES, REFUSALS, TURN, State, Step
from voicechat.session.turn_times import TurnTimes
from voicechat.session.vocabulary import AsrMode, InputSettings, Settings, TurnDetection

_OF_REPLY = (
    ev.ReplyTextArrived,
    ev.ToolCalled,
    ev.ToolsUsed,
    ev.ReplyTextEnded,
    ev.SpeechSynthesized,
    ev.SentenceSynthesized,
    ev.SpeechEnded,
    ev.ReplyFailed,
)
_OF_PLAYBACK = (ev.AudioSent, ev.PlaybackReported)
_OF_STREAM = (ev.Transcribed, ev.RecognitionEnded, ev.RecognitionFailed, ev.RecognitionDelayed)


class Session:
    """One conversation: see ``Machine``."""

    def __init__(
        self,
        settings: Settings | None = None,
        limits: SessionLimits | None = None,
        *,
        strict_ping: bool = False,
        apology: Apology | None = None,
        interrupt_by_voice: bool = True,
    ) -> None:
        """``settings`` are the defaults of the connection; ``strict_ping``: only ``ping`` keeps it alive.

        ``apology`` is said aloud when the chat model fails before anything was said.
        ``interrupt_by_voice``: hands-free, where no words are asked for, any speech interrupts a
        reply at once; False: a cough or "mm-hm" does not.
        """
        self.state = State.CONFIGURING
        self.settings = settings or Settings()
        self._limits = limits or SessionLimits()
        self._now_ms = 0
        self._effects: list[Effect] = []
        self._presence = Presence(self._limits, strict_ping=strict_ping)
        self._hearing = Hearing()
        self._speaking = Speaking(self._limits, apology)
        self._hands_free = HandsFree(
            self._presence, self._hearing, self._speaking, self._limits, by_voice=interrupt_by_voice
        )
        self._times = TurnTimes(0, 0)
        self._drain_at_ms: int | None = None
        self._routed: tuple[Route, InputSettings, int, TurnDetection | None]
        self._routed = (Route.AWAIT, self.settings.input, 0, None)
        """The last ``RouteAudio``; a new connection's audio is awaited."""

    # --- the machine -----------------------------------------------------------------------------------------

    def receive(self, event: ev.Event, now_ms: int) -> list[Effect]:
        """See ``Machine.receive``."""
        if self.state is State.CLOSED:
            return []
        self._now_ms = max(self._now_ms, now_ms)
        self._effects = []
        self._presence.note(event, self._now_ms)
        late = self._late(event)
        if late is None:
            self._take(event)
            self._settle_floor()
            self._settle_route()
        else:
            self._effects.append(Observe(LateDropped(late)))
        return self._effects

    @property
    def held_ms(self) -> int:
        """How much audio of the running reply pacing holds back: the synthesiser need not hurry."""
        return self._speaking.current.held_ms if self._speaking.current is not None else 0

    def _late(self, event: ev.Event) -> LateKind | None:
        """The only place where numbers of replies and streams are compared: what is late is dropped and counted."""
        if isinstance(event, _OF_REPLY):
            reply = self._speaking.current
            return None if reply is not None and event.reply == reply.number else LateKind.REPLY
        if isinstance(event, _OF_PLAYBACK):
            playing = self._speaking.playing
            return None if playing is not None and event.reply == playing.number else LateKind.REPLY
        if isinstance(event, _OF_STREAM):
            return None if self._hearing.is_current(event.stream) else LateKind.STREAM
        return None

    def _take(self, event: ev.Event) -> None:
        match event:
            case (
                ev.ReplyTextArrived()
                | ev.SpeechSynthesized()
                | ev.SentenceSynthesized()
                | ev.ToolCalled()
                | ev.ToolsUsed()
                | ev.ReplyTextEnded()
                | ev.SpeechEnded()
            ):
                self._effects += self._speaking.take(event, self._now_ms)
                self._finish_if_spoken()
            case ev.AudioSent() | ev.PlaybackReported():
                self._on_playback(event)
            case ev.Ticked():
                self._on_tick()
            case ev.AudioStarted():
                self._on_audio()
            case (
                ev.Opened()
                | ev.UpdateRequested()
                | ev.CompleteRequested()
                | ev.ClearRequested()
                | ev.ForgetRequested()
                | ev.CancelRequested()
                | ev.PingReceived()
            ):
                self._on_request(event)
            case ev.MessageCreated():
                self._on_message(event)
            case ev.ToolAnswered():
                self._effects += self._speaking.answer_tool(event, self._now_ms)
            case ev.Transcribed() | ev.RecognitionEnded() | ev.RecognitionFailed():
                self._on_recognition(event)
            case ev.RecognitionDelayed():
                self._hearing.delay(event.stream, event.by_ms)
            case ev.SpeechStarted() | ev.SpeechStopped() | ev.TurnJudged():
                self._effects += self._hands_free.hear(event, self.settings.input, self.state, self._now_ms)
            case ev.ReplyFailed():
                self._on_reply_failed(event)
            case ev.MalformedReceived():
                self._on_malformed(event)
            case ev.AudioArrived() | ev.PongReceived() | ev.IgnorableReceived() | ev.FinishRequested():
                pass
            case ev.PressureChanged():
                self._hands_free.short_of_time = event.short
            case ev.Disconnected() | ev.WriteStalled() | ev.AccessEnded() | ev.Faulted() | ev.DrainRequested():
                self._on_end(event)
            case _:
                assert_never(event)

    # --- the clock -------------------------------------------------------------------------------------------

    def deadline_ms(self) -> int | None:
        """See ``Machine.deadline_ms``."""
        if self.state is State.CLOSED:
            return None
        return earliest_ms(
            self._presence.deadline_ms(must_speak=self._must_speak, heard_ms=self._speaking.heard_ms or 0),
            self._drain_at_ms,
            self._transcript_due_ms if self.state is State.TRANSCRIBING else None,
            self._speaking.deadline_ms(),
            self._hands_free.deadline_ms(self.state, self._now_ms),
            self._hearing.deadline_ms(self._now_ms),
        )

    @property
    def _transcript_due_ms(self) -> int:
        """When the recogniser's last result must have come."""
        return self._times.decided_ms + self._limits.transcript_ms + self._hearing.grace_ms

    def _on_tick(self) -> None:
        now_ms = self._now_ms
        absent = self._presence.absent(now_ms, must_speak=self._must_speak, heard_ms=self._speaking.heard_ms or 0)
        if absent:
            self._close(1000, Status.TIMEOUT, absent)
        elif self._drain_at_ms is not None and now_ms >= self._drain_at_ms:
            self._drain()
        elif self.state is State.TRANSCRIBING and now_ms >= self._transcript_due_ms:
            self._fail_turn(Status.ASR_FAILED, "the recogniser did not answer in time")
        else:
            self._effects += self._speaking.tick(now_ms)
            self._finish_if_spoken()

    @property
    def _must_speak(self) -> bool:
        """Whether the connection ends when the user stays silent: it is their turn, and all of the reply was sent."""
        listening = self.state is State.LISTENING and not self.settings.input.heartbeat
        return listening and self._speaking.heard_ms is not None

    # --- requests of the client ------------------------------------------------------------------------------

    def _on_audio(self) -> None:
        if self.state is State.CONFIGURING:
            self._presence.spoke(self._now_ms)
        if self._route()[0] is not Route.AWAIT:
            return
        self._move(Step.AUDIO)
        if self.settings.turn_detection is None:
            self._effects += self._hearing.open(self.settings.input, self._now_ms)

    def _settle_route(self) -> None:
        """Tell where audio goes, if that has changed."""
        route, stream = self._route()
        settings = self.settings
        detection = settings.turn_detection if route is Route.LISTEN else None
        wanted = (route, settings.input, stream, detection)
        if wanted != self._routed:
            self._routed = wanted
            self._effects.append(RouteAudio(*wanted))

    def _route(self) -> tuple[Route, int]:
        """Where audio goes, and to which recogniser stream."""
        if self.state is State.CLOSED:
            return Route.DROP, 0
        if self.settings.asr_mode is AsrMode.REFRESH and self.state in TURN:
            return Route.SKIP, 0
        if self.state is State.CONFIGURING:
            return Route.AWAIT, 0
        if self.settings.turn_detection is not None:
            return Route.LISTEN, 0
        return self._hearing.route(self._now_ms)

    def _on_request(self, event: ev.Requested) -> None:
        match event:
            case ev.Opened():
                self._answer(Request.OPEN)
            case ev.UpdateRequested():
                self._on_update(event)
            case ev.CompleteRequested():
                if self._granted(Request.COMPLETE, Step.COMPLETE):
                    self._answer(Request.COMPLETE)
                    self._begin_turn()
            case ev.ClearRequested():
                if self._granted(Request.CLEAR, Step.CLEAR):
                    self._drop_gathering()
                    self._answer(Request.CLEAR)
            case ev.ForgetRequested():
                self._speaking.forget()
                self._answer(Request.FORGET)
            case ev.CancelRequested():
                self._on_cancel()
            case ev.PingReceived():
                self._answer(Request.PING)
            case _:
                assert_never(event)

    def _on_update(self, event: ev.UpdateRequested) -> None:
        if not self._granted(Request.UPDATE, Step.UPDATE):
            return
        if isinstance(event.settings, ev.Refusal):
            self._answer(Request.UPDATE, event.settings.status, event.settings.message)
            return
        self.settings = event.settings
        self._hands_free.configure(event.settings.turn_detection)
        self._answer(Request.UPDATE, message=event.note)

    def _on_cancel(self, reason: str = "") -> None:
        if self.state in TURN:
            self._stop()
            self._answer(Request.CANCEL, reason=reason)
            self._end_turn(Outcome.CANCELED)
        else:
            silenced = self._speaking.silence(self._now_ms)
            if silenced:
                self._presence.spoke(self._now_ms)  # no more of the reply is heard: it is the user's turn from now on
            self._effects += silenced
            self._answer(Request.CANCEL, reason=reason)

    def _on_message(self, event: ev.MessageCreated) -> None:
        if Step.MESSAGE not in MOVES[self.state]:
            self._report(Status.NOT_ALLOWED_NOW, REFUSALS[Step.MESSAGE])
            return
        self._move(Step.MESSAGE)
        self._note_turn(self._now_ms)
        self._times.understood_ms = self._now_ms
        self._start_reply(event.content)

    def _on_malformed(self, event: ev.MalformedReceived) -> None:
        if self._presence.senseless:
            self._close(1008, event.status, event.message)
        else:
            self._report(event.status, event.message)

    # --- recognition -----------------------------------------------------------------------------------------

    def _begin_turn(self) -> None:
        self._move(Step.COMPLETE)
        silent_since_ms = self._hands_free.silent_since_ms
        self._note_turn(self._now_ms if silent_since_ms is None else silent_since_ms)
        finish = self._hearing.finish()
        self._effects += finish
        if not finish:
            self._understand()

    def _note_turn(self, spoken_ms: int) -> None:
        self._times = TurnTimes(spoken_ms, self._now_ms)
        self._speaking.begin_turn()
        self._hands_free.end_turn()

    def _on_recognition(self, event: ev.Transcribed | ev.RecognitionEnded | ev.RecognitionFailed) -> None:
        awaited = self._hearing.is_awaited(event.stream)
        match event:
            case ev.Transcribed():
                if event.transcript.text.strip():
                    self._presence.spoke(self._now_ms)
                hold = self.state in TURN or self._hands_free.contested
                self._effects += self._hearing.take(event.stream, event.transcript, hold=hold)
                if not awaited:
                    self._hands_free.transcribed(self._now_ms)
            case ev.RecognitionEnded():
                self._hearing.end(event.stream)
                if awaited:
                    self._understand()
            case ev.RecognitionFailed():
                self._on_recognition_failed(event, awaited=awaited)
            case _:
                assert_never(event)

    def _on_recognition_failed(self, event: ev.RecognitionFailed, *, awaited: bool) -> None:
        if awaited:
            again = self._hearing.replace_awaited(event, self.settings.input)
            self._effects += again
            if not again:
                self._fail_turn(event.status, event.message)
            return
        self._report(event.status, event.message)
        if event.status is Status.TOO_LARGE:
            self._drop_gathering()
        else:
            self._effects += self._hearing.replace_gathering(event, self.settings.input, self._now_ms)

    def _understand(self) -> None:
        """The recogniser has said everything about the turn: answer it, if there is anything to answer."""
        text = self._hearing.settle()
        self._times.understood_ms = self._now_ms
        if text and self._hands_free.answers:
            self._move(Step.UNDERSTOOD)
            self._start_reply(text)
            return
        self._effects += self._speaking.drop_early()
        if text:
            self._speaking.remember_user(text)
        self._end_turn(Outcome.UNANSWERED if text else Outcome.EMPTY)

    def _drop_gathering(self) -> None:
        self._effects += self._hearing.drop_gathering()
        self._effects += self._hands_free.forget()

    # --- hands-free ------------------------------------------------------------------------------------------

    def _settle_floor(self) -> None:
        """Do what the floor decides, until it decides nothing more."""
        if not self._hands_free.undecided or self.state is State.CLOSED:
            return
        if self._hands_free.uncontested(self.state, self._now_ms):
            self._effects += self._hands_free.take_floor(self._now_ms)
        match self._hands_free.decide(self.state, self._now_ms):
            case Decision.END_TURN:
                self._end_users_turn()
            case Decision.INTERRUPT:
                self._interrupt()
            case Decision.DISMISS:
                self._effects += self._hands_free.dismiss()
            case Decision.BEGIN_EARLY:
                text = self._hearing.gathering.text
                self._effects += self._speaking.start_early(text, self.settings, self._now_ms)
            case None:
                pass

    def _end_users_turn(self) -> None:
        sounding = self._hands_free.sounding
        self._answer(Request.COMPLETE, reason=TURN_DETECTED)
        self._begin_turn()
        if sounding:
            self._effects += self._hands_free.go_on(self.settings.input, self._now_ms)

    def _interrupt(self) -> None:
        if self.state is State.TRANSCRIBING:  # the user was cut short: what was said before belongs to this turn too
            self._effects += self._hearing.take_back()
        self._on_cancel(TURN_DETECTED)
        self._effects += self._hands_free.take_floor(self._now_ms)

    # --- the reply -------------------------------------------------------------------------------------------

    def _start_reply(self, text: str) -> None:
        self._effects += self._speaking.start(text, self.settings, self._times, self._now_ms)
        self._finish_if_spoken()

    def _on_reply_failed(self, event: ev.ReplyFailed) -> None:
        if self._speaking.early:
            self._effects += self._speaking.drop_early()
        elif self._speaking.apologising:  # the turn's error has been told
            self._stop()
            self._end_turn(Outcome.FAILED)
        elif event.status is Status.LLM_FAILED and (apologising := self._speaking.apologise()):
            self._report(event.status, event.message)
            self._effects += apologising
        else:
            self._fail_turn(event.status, event.message)

    def _on_playback(self, event: ev.AudioSent | ev.PlaybackReported) -> None:
        if isinstance(event, ev.AudioSent):
            self._hands_free.answered()
        self._effects += self._speaking.play(event, self._now_ms, report_latency=self.settings.report_latency)
        self._finish_if_spoken()

    def _finish_if_spoken(self) -> None:
        if self._speaking.finish():
            self._end_turn(Outcome.FAILED if self._speaking.apologising else Outcome.SPOKEN, spoken=True)

    # --- the end of a turn, and of the session ---------------------------------------------------------------

    def _fail_turn(self, status: Status, message: str) -> None:
        self._stop()
        self._report(status, message)
        self._end_turn(Outcome.FAILED)

    def _stop(self) -> None:
        """Stop whatever the turn is doing; of its reply, remember what was heard."""
        self._effects += self._hearing.drop_awaited()
        self._effects += self._speaking.stop(self._now_ms)

    def _end_turn(self, outcome: Outcome, *, spoken: bool = False) -> None:
        """The one place where a turn ends: exactly one ``TurnCompleted`` for each that began."""
        reply_times = self._speaking.end_turn(spoken=spoken)
        self._effects.append(Send(TurnCompleted()))
        self._effects.append(Observe(self._times.ended(outcome, reply_times)))
        self._move(Step.CANCEL if outcome is Outcome.CANCELED else Step.TURN_OVER)
        self._presence.spoke(self._now_ms)
        if not self._hands_free.contested:
            self._effects += self._hearing.release()
        self._drain_if_free()

    def _on_end(self, event: ev.Ended) -> None:
        match event:
            case ev.Disconnected():
                self._stop()
                self._drop_gathering()
                self.state = State.CLOSED
            case ev.WriteStalled():
                self._close(1013, Status.TIMEOUT, event.message)
            case ev.AccessEnded():
                self._close(1008, event.status, event.message)
            case ev.Faulted():
                self._close(1011, Status.INTERNAL, "internal error; this session ends")
            case ev.DrainRequested():
                self._drain_at_ms = max(self._now_ms, event.deadline_ms)
                self._drain_if_free()
            case _:
                assert_never(event)

    def _drain_if_free(self) -> None:
        if self._drain_at_ms is not None and self.state not in TURN:
            self._drain()

    def _drain(self) -> None:
        self._close(1012, Status.AT_CAPACITY, "the server restarts; connect again")

    def _close(self, code: int, status: Status, message: str) -> None:
        if self.state in TURN:
            self._drain_at_ms = None
            self._stop()
            self._end_turn(Outcome.FAILED)
        self._drop_gathering()
        self._report(status, message)
        self._effects += [Close(code, message), Observe(SessionClosed(code))]
        self.state = State.CLOSED

    # --- small words -----------------------------------------------------------------------------------------

    def _move(self, step: Step) -> None:
        self.state = MOVES[self.state][step]

    def _granted(self, request: Request, step: Step) -> bool:
        if step in MOVES[self.state]:
            return True
        self._answer(request, Status.NOT_ALLOWED_NOW, REFUSALS[step])
        return False

    def _answer(self, request: Request, status: Status = Status.OK, message: str = "", reason: str = "") -> None:
        self._effects.append(Send(Answered(request, status, message, reason)))

    def _report(self, status: Status, message: str) -> None:
        self._effects.append(Send(ErrorReported(status, message)))
