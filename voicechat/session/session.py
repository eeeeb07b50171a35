"""A conversation as a value machine: events in, effects out, time as an argument.

It knows no protocol: commands come from a dialect, and notices go to it. Nothing a
client or a provider does can make it raise. The state table is in ``states``; what a
turn gathers in ``hearing``; what a reply is, and what is remembered of it, in
``reply_state``; who may speak, in ``hands_free``; whether the client is there, in
``presence``; what is measured, in ``turn_times``.
"""

from dataclasses import dataclass
from typing import assert_never

from voicechat.errors import Fault
from voicechat.session import commands as cmd
from voicechat.session import events as ev
from voicechat.session.agent import Agent
from voicechat.session.agent_turns import AgentTurns
from voicechat.session.effects import (
    Close,
    Effect,
    RecordMetric,
    Route,
    RouteAudio,
    Send,
    SessionClosed,
    StaleDropped,
    StaleKind,
)
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.idle_timeout import IdleTimeout
from voicechat.session.limits import SessionLimits, earliest_ms
from voicechat.session.notices import (
    Done,
    Ended,
    Ending,
    Failed,
    Interrupted,
    Notice,
    Outcome,
    Rejected,
    ReplyCut,
    TurnCommitted,
    TurnCompleted,
    Why,
)
from voicechat.session.reply_state import ReplyState
from voicechat.session.states import MOVES, TURN, State, Step
from voicechat.session.transcription_state import TranscriptionState
from voicechat.session.turn_detector import TurnDetector
from voicechat.session.turn_taking import Decision
from voicechat.session.turn_times import TurnTimes
from voicechat.session.types import (
    InputSettings,
    Message,
    ReplyOverrides,
    Settings,
    TurnDetection,
)

_RESTARTS = Ended(Ending.RESTART, "the server restarts; connect again", Fault.AT_CAPACITY)


@dataclass(slots=True)
class _Awaited:
    """A committed turn whose last words are awaited."""

    since_ms: int
    respond: cmd.Respond | None
    """How it is to be answered; None: it is remembered only."""
    insists: bool = False
    """The answer was asked for by itself: it comes although nothing was understood."""


class Session:
    """One conversation: see ``Machine``."""

    def __init__(
        self,
        settings: Settings | None = None,
        limits: SessionLimits | None = None,
        *,
        audio_shows_life: bool = True,
        fallback_message: FallbackMessage | None = None,
        agent: Agent | None = None,
        interrupt_by_voice: bool = True,
    ) -> None:
        """``settings`` are the defaults of the connection.

        ``audio_shows_life`` false: a client that only sends audio counts as absent.
        ``fallback_message`` is spoken when the chat model fails before any of its
        reply was.
        ``interrupt_by_voice``: hands-free, where no words are asked for, any speech
        interrupts a reply at once; False: a cough or "mm-hm" does not.
        """
        self.state = State.OPENED
        self.settings = settings or Settings()
        self._limits = limits or SessionLimits()
        self._audio_shows_life = audio_shows_life
        self._now_ms = 0
        self._effects: list[Effect] = []
        self._idle_timeout = IdleTimeout(self._limits)
        self._transcription = TranscriptionState()
        self._replies = ReplyState(self._limits, fallback_message)
        self._turn_detector = TurnDetector(
            self._idle_timeout,
            self._transcription,
            self._replies,
            self._limits,
            by_voice=interrupt_by_voice,
        )
        self._turn_detector.configure(self.settings.turn_detection)
        self._times = TurnTimes(0, 0)
        self._awaited: _Awaited | None = None
        self._drain_at_ms: int | None = None
        self._agent = AgentTurns(agent or Agent())
        self._leaving: Ended | None = None
        """Why the session ends as soon as no turn is in progress."""
        self._routed: tuple[Route, InputSettings, int, TurnDetection | None]
        self._routed = (Route.AWAIT, self.settings.input, 0, None)
        """The last ``RouteAudio``; a new connection's audio is awaited."""

    # --- the machine ------------------------------------------------------------------

    def receive(self, event: ev.Event, now_ms: int) -> list[Effect]:
        """See ``Machine.receive``."""
        if self.state is State.CLOSED:
            return []
        self._now_ms = max(self._now_ms, now_ms)
        self._effects = []
        stale = self._stale(event)
        if stale is None:
            self._handle(event)
            self._settle_floor()
            self._settle_agent()
            self._settle_route()
        else:
            self._effects.append(RecordMetric(StaleDropped(stale)))
        return self._effects

    @property
    def held_ms(self) -> int:
        """How much audio of the running reply pacing holds back: the synthesiser need
        not hurry.
        """
        return self._replies.current.held_ms if self._replies.current is not None else 0

    def _stale(self, event: ev.Event) -> StaleKind | None:
        """The only place where numbers of replies and streams are compared: what is
        late is dropped and counted.
        """
        match event:
            case ev.ReplyEvent():
                return None if self._replies.in_progress(event.reply) else StaleKind.REPLY
            case ev.AudioSent() | cmd.Played():
                return None if self._replies.is_playing(event.reply) else StaleKind.REPLY
            case ev.StreamEvent():
                return None if self._transcription.is_current(event.stream) else StaleKind.STREAM
            case _:
                return None

    def _handle(self, event: ev.Event) -> None:
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
                self._effects += self._replies.handle_event(event, self._now_ms)
                if isinstance(event, ev.ToolsUsed):
                    self._agent.note_tools(event.exchange)
                self._finish_if_spoken()
            case ev.AudioSent() | cmd.Played():
                self._on_playback(event)
            case ev.Ticked():
                self._on_tick()
            case cmd.Command():
                self._on_command(event)
            case ev.AudioStarted():
                self._on_audio()
            case ev.AudioArrived():
                self._note_audio(event.at_ms)
            case ev.Opened():
                self._idle_timeout.note_message(self._now_ms)
            case ev.Transcribed() | ev.RecognitionEnded() | ev.RecognitionFailed():
                self._on_recognition(event)
            case ev.RecognitionDelayed():
                self._transcription.extend_deadline(event.stream, event.by_ms)
            case ev.SpeechStarted() | ev.SpeechStopped() | ev.TurnJudged():
                if isinstance(event, ev.SpeechStarted):
                    self._agent.heard_user()
                heard = self._turn_detector.handle_event(
                    event, self.settings.input, self.state, self._now_ms
                )
                self._effects += heard
            case ev.ReplyFailed():
                self._on_reply_failed(event)
            case ev.PressureChanged():
                self._turn_detector.overloaded = event.short
            case (
                ev.Disconnected()
                | ev.WriteStalled()
                | ev.AccessEnded()
                | ev.Faulted()
                | ev.DrainRequested()
            ):
                self._on_end(event)
            case _:
                assert_never(event)

    # --- the clock --------------------------------------------------------------------

    def deadline_ms(self) -> int | None:
        """See ``Machine.deadline_ms``."""
        if self.state is State.CLOSED:
            return None
        return earliest_ms(
            self._idle_timeout.deadline_ms(
                must_speak=self._must_speak, heard_ms=self._replies.heard_ms or 0
            ),
            self._drain_at_ms,
            self._transcript_due_ms,
            self._replies.deadline_ms(),
            self._turn_detector.deadline_ms(self.state, self._now_ms),
            self._transcription.deadline_ms(self._now_ms),
            self._agent_deadline_ms,
        )

    @property
    def _transcript_due_ms(self) -> int | None:
        """When the last words of a committed turn must have come."""
        if self._awaited is None:
            return None
        return self._awaited.since_ms + self._limits.transcript_ms + self._transcription.grace_ms

    def _on_tick(self) -> None:
        now_ms, transcript_due_ms = self._now_ms, self._transcript_due_ms
        absent = self._idle_timeout.expired_reason(
            now_ms, must_speak=self._must_speak, heard_ms=self._replies.heard_ms or 0
        )
        if absent:
            self._end(Ended(Ending.ABSENT, absent, Fault.TIMEOUT))
        elif self._drain_at_ms is not None and now_ms >= self._drain_at_ms:
            self._end(_RESTARTS)
        elif transcript_due_ms is not None and now_ms >= transcript_due_ms:
            self._fail_recognition(Fault.ASR_FAILED, "the recogniser did not answer in time")
        else:
            self._effects += self._replies.tick(now_ms)
            self._finish_if_spoken()

    @property
    def _must_speak(self) -> bool:
        """Whether the connection ends when the user stays silent: it is their turn, and
        all of the reply was sent.
        """
        if self.state is not State.LISTENING or self.settings.input.silence_allowed:
            return False
        return self._replies.heard_ms is not None and not self._agent.minds_silence

    # --- commands of the client -------------------------------------------------------

    def _note_audio(self, at_ms: int) -> None:
        if self._audio_shows_life:
            self._idle_timeout.note_message(at_ms)

    def _on_audio(self) -> None:
        self._note_audio(self._now_ms)
        if self.state is State.OPENED:
            self._idle_timeout.note_speech(self._now_ms)
        if self._route()[0] is not Route.AWAIT:
            return
        self._move(Step.AUDIO)
        if self.settings.turn_detection is None:
            self._effects += self._transcription.open_stream(self.settings.input, self._now_ms)

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
        if self.settings.half_duplex and self.state in TURN:
            return Route.SKIP, 0
        if self.state is State.OPENED:
            return Route.AWAIT, 0
        if self.settings.turn_detection is not None:
            return Route.LISTEN, 0
        return self._transcription.route_audio(self._now_ms)

    def _on_command(self, command: cmd.AnyCommand) -> None:
        match command:
            case cmd.Alive():
                self._idle_timeout.note_message(self._now_ms)
            case cmd.Begin():
                self._agent.begin()
                self._idle_timeout.note_speech(self._now_ms)
            case cmd.Played():
                pass
            case cmd.Configure():
                self._on_configure(command)
            case cmd.CommitTurn():
                self._on_commit(command)
            case cmd.Respond():
                self._on_respond(command)
            case cmd.ClearInput():
                self._drop_gathering()
                self._tell(Done(command.cause))
            case cmd.ClearHistory():
                self._replies.clear_history()
                self._tell(Done(command.cause))
            case cmd.AddItem() | cmd.DeleteItem():
                self._tell(self._change_history(command))
            case cmd.TruncateReply():
                cut = self._replies.truncate_reply(command)
                self._tell(cut)
                if isinstance(cut, ReplyCut):
                    self._tell(Done(command.cause))
            case cmd.Cancel():
                self._on_cancel(command)
            case cmd.AnswerTool():
                self._effects += self._replies.answer_tool(command, self._now_ms)
            case cmd.Finish():
                self._leave(Ended(Ending.FINISHED))
            case cmd.Leave():
                self._end(Ended(Ending.VIOLATION, command.message, cause=command.cause))
            case _:
                assert_never(command)

    def _on_configure(self, command: cmd.Configure) -> None:
        before, self.settings = self.settings.turn_detection, command.settings
        detection = command.settings.turn_detection
        if (before is None) != (detection is None):
            self._drop_gathering()  # how audio reaches a recogniser changes
        if before != detection:
            self._effects += self._turn_detector.reset()
            self._turn_detector.configure(detection)
        self._tell(Done(command.cause))

    def _change_history(self, command: cmd.AddItem | cmd.DeleteItem) -> Done | Rejected:
        """Change what is remembered; say why not, if it cannot be."""
        history = self._replies.history
        if isinstance(command, cmd.DeleteItem):
            gone = history.delete(command.id)
            return Done(command.cause) if gone else _rejected(command, Why.NO_ITEM, command.id)
        if command.id in history:
            return _rejected(command, Why.ITEM_EXISTS, command.id)
        if command.after and command.after not in history:
            return _rejected(command, Why.NO_ITEM, command.after)
        history.add(command.message, command.id, command.after)
        return Done(command.cause)

    def _on_cancel(self, command: cmd.Cancel) -> None:
        number, replies = command.reply, self._replies
        current = None if replies.preemptive else replies.current
        if number is None or (current is not None and current.number == number):
            self._interrupt_turn(Done(command.cause))
            return
        stopped = replies.stop_out_of_band(self._now_ms, number)
        self._effects += stopped
        self._tell(
            Done(command.cause) if stopped else _rejected(command, Why.NO_REPLY, str(number))
        )

    def _interrupt_turn(self, told: Done | Interrupted) -> None:
        """Stop the turn in progress and what is still heard of the last reply, and tell
        so.
        """
        if self.state in TURN:
            self._stop()
            self._tell(told)
            self._end_turn(Outcome.CANCELED)
            return
        silenced = self._replies.stop_playback(self._now_ms)
        if silenced:
            self._idle_timeout.note_speech(
                self._now_ms
            )  # no more of the reply is heard: it is the user's turn from now on
        self._effects += silenced
        self._tell(told)

    # --- turns ------------------------------------------------------------------------

    def _on_commit(self, command: cmd.CommitTurn) -> None:
        respond = cmd.Respond(cause=command.cause) if command.respond else None
        if self.state not in TURN:
            self._tell(TurnCommitted(command.cause))
            self._begin_turn(respond, command.text)
        elif self.state is State.REPLYING and respond is None and command.text is None:
            self._tell(TurnCommitted(command.cause))
            self._note_aside()
        else:
            self._tell(_rejected(command, Why.BUSY))

    def _on_respond(self, command: cmd.Respond) -> None:
        if command.overrides.out_of_band:
            self._effects += self._replies.start_out_of_band(self.settings, command, self._now_ms)
        elif self._awaited is not None and self._awaited.respond is None:
            # The words that are to be answered are on their way.
            if self.state is State.REPLYING:
                self._tell(_rejected(command, Why.BUSY))
                return
            if self.state is not State.TRANSCRIBING:
                self._move(Step.COMMIT)
                self._note_turn(self._now_ms)
            self._awaited.respond, self._awaited.insists = command, True
        elif self.state in TURN:
            self._tell(_rejected(command, Why.BUSY))
        else:
            self._move(Step.RESPOND)
            self._note_turn(self._now_ms)
            self._times.understood_ms = self._now_ms
            self._effects += self._replies.start_reply(
                self.settings, command, self._times, self._now_ms
            )
            self._finish_if_spoken()

    def _begin_turn(self, respond: cmd.Respond | None, text: str | None = None) -> None:
        if text is not None:
            self._agent.heard_user()
        self._settle_aside()
        silent_since_ms = self._turn_detector.silent_since_ms if text is None else None
        self._move(Step.COMMIT)
        self._note_turn(self._now_ms if silent_since_ms is None else silent_since_ms)
        if text is not None:
            self._understand(text, respond)
            return
        finish = self._transcription.finish_utterance()
        self._effects += finish
        if finish:
            self._awaited = _Awaited(self._now_ms, respond)
        else:
            self._understand(self._transcription.take_awaited_text(), respond)

    def _note_turn(self, spoken_ms: int) -> None:
        self._times = TurnTimes(spoken_ms, self._now_ms)
        self._replies.begin_turn()
        self._turn_detector.end_turn()

    def _understand(self, text: str, respond: cmd.Respond | None, *, insists: bool = False) -> None:
        """All words of the turn are known: answer them, if there is anything to
        answer.
        """
        self._awaited = None
        self._times.understood_ms = self._now_ms
        if respond is not None and (text or insists):
            self._move(Step.UNDERSTOOD)
            replies, times, now_ms = self._replies, self._times, self._now_ms
            if text:
                self._effects += replies.answer_user(text, self.settings, respond, times, now_ms)
            else:
                self._effects += replies.start_reply(self.settings, respond, times, now_ms)
            self._finish_if_spoken()
            return
        self._effects += self._replies.drop_preemptive()
        if text:
            self._effects += self._replies.add_user_message(text)
        self._end_turn(Outcome.UNANSWERED if text else Outcome.EMPTY)

    def _note_aside(self) -> None:
        """The user's words during a reply are committed: they are remembered, and
        nobody answers them.
        """
        self._settle_aside()
        finish = self._transcription.finish_utterance()
        self._effects += finish
        if finish:
            self._awaited = _Awaited(self._now_ms, None)
        else:
            self._remember_aside()

    def _settle_aside(self) -> None:
        """Wait no longer for the words of an earlier turn that nobody answers."""
        if self._awaited is not None and self.state is not State.TRANSCRIBING:
            self._remember_aside()

    def _remember_aside(self) -> None:
        self._awaited = None
        awaited = self._transcription.awaited
        text = awaited.text if awaited is not None else ""
        self._effects += self._transcription.drop_awaited()
        if text:
            self._effects += self._replies.add_unanswered_message(text)

    # --- recognition ------------------------------------------------------------------

    def _on_recognition(
        self, event: ev.Transcribed | ev.RecognitionEnded | ev.RecognitionFailed
    ) -> None:
        awaited = self._transcription.is_awaited(event.stream)
        match event:
            case ev.Transcribed():
                if event.transcript.text.strip():
                    self._idle_timeout.note_speech(self._now_ms)
                    self._agent.heard_user()
                hold = self.state in TURN or self._turn_detector.contested
                self._effects += self._transcription.add_result(
                    event.stream, event.transcript, hold=hold
                )
                if not awaited:
                    self._turn_detector.note_transcript(self._now_ms)
            case ev.RecognitionEnded():
                self._transcription.end_stream(event.stream)
                if awaited:
                    self._on_last_words()
            case ev.RecognitionFailed():
                self._on_recognition_failed(event, awaited=awaited)
            case _:
                assert_never(event)

    def _on_last_words(self) -> None:
        """The recogniser has said everything about a committed turn."""
        if self._awaited is None or self.state is not State.TRANSCRIBING:
            self._remember_aside()
            return
        respond, insists = self._awaited.respond, self._awaited.insists
        self._understand(self._transcription.take_awaited_text(), respond, insists=insists)

    def _on_recognition_failed(self, event: ev.RecognitionFailed, *, awaited: bool) -> None:
        if awaited:
            again = self._transcription.replace_awaited(event, self.settings.input)
            self._effects += again
            if not again:
                self._fail_recognition(event.fault, event.message)
            return
        self._tell(Failed(event.fault, event.message))
        if event.fault is Fault.TOO_LARGE:
            self._drop_gathering()
        else:
            self._effects += self._transcription.replace_gathering(
                event, self.settings.input, self._now_ms
            )

    def _fail_recognition(self, fault: Fault, message: str) -> None:
        """The last words of a committed turn will not come."""
        if self.state is State.TRANSCRIBING:
            self._stop()
            self._tell(Failed(fault, message))
            self._end_turn(Outcome.FAILED)
        else:
            self._tell(Failed(fault, message))
            self._remember_aside()

    def _drop_gathering(self) -> None:
        self._effects += self._transcription.drop_gathering()
        self._effects += self._turn_detector.reset()

    # --- hands-free -------------------------------------------------------------------

    def _settle_floor(self) -> None:
        """Do what the floor decides, until it decides nothing more."""
        if not self._turn_detector.undecided or self.state is State.CLOSED:
            return
        if self._turn_detector.uncontested(self.state, self._now_ms):
            self._effects += self._turn_detector.accept_sound(self._now_ms)
        match self._turn_detector.decide(self.state, self._now_ms):
            case Decision.END_TURN:
                self._end_users_turn()
            case Decision.INTERRUPT:
                self._interrupt()
            case Decision.DISMISS:
                self._effects += self._turn_detector.dismiss_sound()
            case Decision.BEGIN_PREEMPTIVELY:
                text = self._transcription.gathering.text
                self._effects += self._replies.start_preemptive(text, self.settings, self._now_ms)
            case None:
                pass

    def _end_users_turn(self) -> None:
        sounding = self._turn_detector.sounding
        self._tell(TurnCommitted(None, detected=True))
        self._begin_turn(cmd.Respond() if self._turn_detector.answers else None)
        if sounding:
            self._effects += self._turn_detector.continue_sound(self.settings.input, self._now_ms)

    def _interrupt(self) -> None:
        if (
            self.state is State.TRANSCRIBING
        ):  # the user was cut short: what was said before belongs to this turn too
            self._effects += self._transcription.reclaim_awaited()
        self._interrupt_turn(Interrupted())
        self._effects += self._turn_detector.accept_sound(self._now_ms)

    # --- the agent --------------------------------------------------------------------

    @property
    def _silent_since_ms(self) -> int | None:
        """Since when the user could say something and does not; None: it is not their
        turn, or they do.
        """
        waits = self.state is State.LISTENING or (self.state is State.OPENED and self._agent.begun)
        if not waits or self._turn_detector.undecided or self._transcription.gathering.text:
            return None
        heard_ms = self._replies.heard_ms
        return None if heard_ms is None else max(heard_ms, self._idle_timeout.last_speech_ms)

    @property
    def _agent_deadline_ms(self) -> int | None:
        if self.state in TURN:
            return None
        return self._agent.deadline_ms(self._silent_since_ms, self._replies.heard_ms)

    def _settle_agent(self) -> None:
        """Let the agent say what it has to say by itself, and end the conversation."""
        if self.state in TURN or self.state is State.CLOSED:
            return
        said = self._agent.due(self._now_ms, self._silent_since_ms, self._replies.heard_ms)
        if self._agent.leaves:
            self._end(Ended(Ending.GOODBYE))
        elif said is not None:
            self._settle_aside()
            self._move(Step.RESPOND)
            self._note_turn(self._now_ms)
            self._times.understood_ms = self._now_ms
            if said.prompt:
                asked: Message = {"role": "user", "content": said.prompt}
                overrides = ReplyOverrides(input=(*self.settings.chat.messages, asked))
                self._effects += self._replies.start_reply(
                    self.settings, cmd.Respond(overrides), self._times, self._now_ms
                )
            else:
                self._effects += self._replies.say_text(said.text, self.settings, self._now_ms)
            self._finish_if_spoken()

    # --- the reply --------------------------------------------------------------------

    def _on_reply_failed(self, event: ev.ReplyFailed) -> None:
        current = self._replies.current
        if current is None or current.number != event.reply:
            self._effects += self._replies.fail_out_of_band(event, self._now_ms)
        elif self._replies.preemptive:
            self._effects += self._replies.drop_preemptive()
        elif self._replies.speaking_fallback:  # the turn's error has been told
            self._stop(event)
            self._end_turn(Outcome.FAILED)
        elif event.fault is Fault.LLM_FAILED and (
            apologising := self._replies.start_fallback_message()
        ):
            self._tell(Failed(event.fault, event.message))
            self._effects += apologising
        else:
            self._stop(event)
            self._tell(Failed(event.fault, event.message))
            self._end_turn(Outcome.FAILED)

    def _on_playback(self, event: ev.AudioSent | cmd.Played) -> None:
        if isinstance(event, ev.AudioSent):
            self._turn_detector.note_reply_audible()
        self._effects += self._replies.handle_playback(event, self._now_ms)
        self._finish_if_spoken()

    def _finish_if_spoken(self) -> None:
        if finished := self._replies.finish_spoken():
            self._effects += finished
            failed = self._replies.speaking_fallback
            self._end_turn(Outcome.FAILED if failed else Outcome.SPOKEN, spoken=True)

    # --- the end of a turn, and of the session ----------------------------------------

    def _stop(self, failed: ev.ReplyFailed | None = None) -> None:
        """Stop whatever the turn is doing; of its reply, remember what was heard."""
        if self.state is State.TRANSCRIBING:
            self._effects += self._transcription.drop_awaited()
            self._awaited = None
        self._effects += self._replies.stop_current(self._now_ms, failed)

    def _end_turn(self, outcome: Outcome, *, spoken: bool = False) -> None:
        """The one place where a turn ends: exactly one ``TurnCompleted`` for each that
        began.
        """
        reply_times = self._replies.end_turn(spoken=spoken)
        self._tell(TurnCompleted(outcome))
        self._effects.append(RecordMetric(self._times.ended(outcome, reply_times)))
        self._move(Step.CANCEL if outcome is Outcome.CANCELED else Step.TURN_OVER)
        self._idle_timeout.note_speech(self._now_ms)
        if not self._turn_detector.contested:
            self._effects += self._transcription.release_held()
        self._leave_if_free()

    def _on_end(self, event: ev.EndEvent) -> None:
        match event:
            case ev.Disconnected():
                self._give_everything_up()
                self.state = State.CLOSED
            case ev.WriteStalled():
                self._end(Ended(Ending.NOT_READING, event.message, Fault.TIMEOUT))
            case ev.AccessEnded():
                self._end(Ended(Ending.ACCESS, event.message, event.fault))
            case ev.Faulted():
                message = "internal error; this session ends"
                self._end(Ended(Ending.FAULT, message, Fault.INTERNAL))
            case ev.DrainRequested():
                self._drain_at_ms = max(self._now_ms, event.deadline_ms)
                self._leave(_RESTARTS)
            case _:
                assert_never(event)

    def _leave(self, ended: Ended) -> None:
        """End as soon as no turn is in progress."""
        self._leaving = ended
        self._leave_if_free()

    def _leave_if_free(self) -> None:
        if self._leaving is not None and self.state not in TURN:
            self._end(self._leaving)

    def _give_everything_up(self) -> None:
        self._stop()
        self._effects += self._transcription.drop_awaited()
        self._effects += self._replies.stop_out_of_band(self._now_ms)
        self._drop_gathering()

    def _end(self, ended: Ended) -> None:
        self._leaving = None
        if self.state in TURN:
            self._stop()
            self._end_turn(Outcome.FAILED)
        self._give_everything_up()
        self._tell(ended)
        self._effects += [Close(ended), RecordMetric(SessionClosed(ended.ending))]
        self.state = State.CLOSED

    # --- small words ------------------------------------------------------------------

    def _move(self, step: Step) -> None:
        self.state = MOVES[self.state][step]

    def _tell(self, notice: Notice) -> None:
        self._effects.append(Send(notice))


def _rejected(command: cmd.Command, why: Why, what: str = "") -> Rejected:
    return Rejected(command.cause, why, f"{what}: {why.value}" if what else why.value)
