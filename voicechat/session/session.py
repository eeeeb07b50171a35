"""A conversation as a value machine: events in, effects out, time as an argument.

It knows no protocol: a dialect sends commands and gets notices. Nothing that a client
or a provider does makes it raise. The state table is in ``states``. This module passes
each event to the part that handles it: ``turns`` (how a turn begins, is answered and
ends), ``turn_detector`` (hands-free: who may speak), ``transcription_state``,
``reply_state``, ``audio_routing``, ``idle_timeout``, ``agent_turns`` and ``closing``.
"""

from typing import assert_never

from voicechat.errors import Fault
from voicechat.session import commands as cmd
from voicechat.session import events as ev
from voicechat.session.agent import Agent
from voicechat.session.audio_routing import AudioRouting
from voicechat.session.closing import RESTARTS, EndableTurns
from voicechat.session.effects import Effect, RecordMetric, Route, StaleDropped, StaleKind
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.limits import SessionLimits, earliest_ms
from voicechat.session.notices import (
    Done,
    Ended,
    Ending,
    Interrupted,
    ReplyCut,
    Why,
)
from voicechat.session.session_core import SessionCore
from voicechat.session.snapshot import SessionSnapshot
from voicechat.session.states import TURN, State, Step
from voicechat.session.turn_taking import Decision
from voicechat.session.types import Message, Settings


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
        prepares_replies: bool = False,
    ) -> None:
        """``settings`` are the connection's first settings.

        ``audio_shows_life`` false: a client that only sends audio counts as absent.
        ``fallback_message`` is spoken when the chat model fails before any of its reply
        was spoken. ``interrupt_by_voice``: hands-free, if no words are required, any
        speech interrupts a reply at once; False: a cough or "mm-hm" does not.
        ``prepares_replies``: while the user speaks, ``PrepareReply`` asks the chat
        model to process what is known of the prompt.
        """
        self._core = SessionCore(
            settings or Settings(),
            limits or SessionLimits(),
            fallback_message=fallback_message,
            agent=agent or Agent(),
            interrupt_by_voice=interrupt_by_voice,
        )
        self._audio_shows_life = audio_shows_life
        self._prepares_replies = prepares_replies
        self._turns = EndableTurns(self._core)
        self._routing = AudioRouting(self._core)

    @property
    def state(self) -> State:
        """The conversation's state in the state table."""
        return self._core.state

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._core.settings

    @property
    def words_so_far(self) -> str:
        """The words of the user's turn in progress, as recognised so far."""
        transcription = self._core.transcription
        return (transcription.awaited or transcription.gathering).text

    @property
    def messages(self) -> tuple[Message, ...]:
        """The items of the history."""
        return self._core.replies.history.messages

    # --- across processes -------------------------------------------------------------

    def snapshot(self, now_ms: int) -> SessionSnapshot:
        """Return the conversation as it is at ``now_ms``; see ``restore``."""
        core = self._core
        transcription = core.transcription
        keys, keys_complete_at_ms = core.keypad.kept
        return SessionSnapshot(
            now_ms=max(core.now_ms, now_ms),
            state=core.state.name,
            settings=core.settings,
            replies=core.replies.snapshot(max(core.now_ms, now_ms)),
            agent=core.agent.snapshot(),
            words=transcription.gathering.text,
            user_speaks=transcription.alive,
            awaited=self._turns.snapshot(),
            streams=transcription.streams,
            last_speech_ms=core.idle_timeout.last_speech_ms,
            keys=keys,
            keys_complete_at_ms=keys_complete_at_ms,
        )

    def restore(self, kept: SessionSnapshot) -> None:
        """Become the conversation of a snapshot, whose settings this session was made
        with. ``Restored`` must be the first event, at ``now_ms`` of the snapshot.
        """
        core = self._core
        core.state, core.now_ms = State[kept.state], kept.now_ms
        awaited = kept.awaited.words if kept.awaited is not None else None
        core.transcription.restore(kept.words, awaited, kept.streams)
        core.replies.restore(kept.replies, kept.now_ms)
        core.agent.restore(kept.agent)
        core.keypad.restore(kept.keys, kept.keys_complete_at_ms)
        core.idle_timeout.note_message(kept.now_ms)
        core.idle_timeout.note_speech(kept.last_speech_ms)
        self._turns.restore(kept.awaited)

    # --- the machine ------------------------------------------------------------------

    def receive(self, event: ev.Event, now_ms: int) -> list[Effect]:
        """See ``Machine.receive``."""
        core, before = self._core, self._core.state
        if before is State.CLOSED:
            return []
        core.now_ms = max(core.now_ms, now_ms)
        core.effects = []
        stale = self._stale(event)
        if stale is not None:
            core.effects.append(RecordMetric(StaleDropped(stale)))
            return core.effects
        self._handle(event)
        # Events of a reply change no turn until the reply ends one. They are most of
        # all events, and settling after each would be 9 of the 41 calls for a piece of
        # audio.
        if core.state is not before or not isinstance(event, ev.ReplyEvent):
            self._settle_turn_taking()
            if self._prepares_replies and isinstance(event, ev.Transcribed):
                core.effects += core.turn_detector.prepare_reply(core.settings, core.state)
            self._settle_keypad()
            self._settle_agent()
            self._routing.settle()
        return core.effects

    @property
    def held_ms(self) -> int:
        """How much audio of the current reply pacing holds back: the synthesiser may
        wait.
        """
        return self._core.replies.current.held_ms if self._core.replies.current is not None else 0

    def _stale(self, event: ev.Event) -> StaleKind | None:
        """Whether the event belongs to a reply or stream that is over: then it is
        dropped and counted. Only this method compares the numbers of replies and
        streams.
        """
        match event:
            case ev.ReplyEvent():
                return None if self._core.replies.in_progress(event.reply) else StaleKind.REPLY
            case ev.AudioSent() | cmd.Played():
                return (
                    None if self._core.replies.playback.is_playing(event.reply) else StaleKind.REPLY
                )
            case ev.StreamEvent():
                return (
                    None if self._core.transcription.is_current(event.stream) else StaleKind.STREAM
                )
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
                | ev.ReplyCited()
                | ev.ReplyTextEnded()
                | ev.SpeechEnded()
            ):
                self._core.effects += self._core.replies.handle_event(event, self._core.now_ms)
                if isinstance(event, ev.ToolsUsed):
                    self._core.agent.note_tools(event.exchange)
                self._turns.finish_if_spoken()
            case ev.AudioSent() | cmd.Played():
                self._turns.handle_playback(event)
            case ev.Ticked():
                if event.audio_ms is not None:
                    self._note_audio(event.audio_ms)
                self._on_tick()
            case cmd.Command():
                self._on_command(event)
            case ev.AudioStarted():
                self._on_audio()
            case ev.AudioArrived():
                self._note_audio(event.at_ms)
            case ev.Opened() | ev.Restored():
                self._on_connected(event)
            case ev.Transcribed() | ev.RecognitionEnded() | ev.RecognitionFailed():
                self._turns.handle_recognition(event)
            case ev.RecognitionDelayed():
                self._core.transcription.extend_deadline(event.stream, event.by_ms)
            case ev.SpeechStarted() | ev.SpeechStopped() | ev.TurnJudged():
                if isinstance(event, ev.SpeechStarted):
                    self._core.agent.heard_user()
                heard = self._core.turn_detector.handle_event(
                    event, self._core.settings.input, self._core.state, self._core.now_ms
                )
                self._core.effects += heard
            case ev.DetectionDelayed():
                self._core.turn_detector.delay_ms = event.by_ms
            case ev.ReplyFailed():
                self._turns.handle_reply_failed(event)
            case ev.PressureChanged():
                self._core.turn_detector.overloaded = event.short
            case (
                ev.Disconnected()
                | ev.WriteStalled()
                | ev.AccessEnded()
                | ev.Faulted()
                | ev.DrainAnnounced()
                | ev.DrainRequested()
            ):
                self._turns.handle_end(event)
            case _:
                assert_never(event)

    def _on_connected(self, event: ev.Opened | ev.Restored) -> None:
        self._core.idle_timeout.note_message(self._core.now_ms)
        if isinstance(event, ev.Restored):
            self._turns.go_on(event)
            self._core.turn_detector.recall_words(self._core.state, self._core.now_ms)

    # --- the clock --------------------------------------------------------------------

    def deadline_ms(self) -> int | None:
        """See ``Machine.deadline_ms``."""
        core = self._core
        if core.state is State.CLOSED:
            return None
        must_speak = self._must_speak
        heard_ms = (core.replies.playback.heard_ms or 0) if must_speak else 0
        return earliest_ms(
            core.idle_timeout.deadline_ms(must_speak=must_speak, heard_ms=heard_ms),
            self._turns.drain_at_ms,
            self._turns.transcript_due_ms,
            core.replies.deadline_ms(),
            core.turn_detector.deadline_ms(core.state, core.now_ms),
            core.transcription.deadline_ms(core.now_ms),
            self._agent_deadline_ms,
            self._keypad_deadline_ms,
        )

    def _on_tick(self) -> None:
        now_ms, transcript_due_ms = self._core.now_ms, self._turns.transcript_due_ms
        absent = self._core.idle_timeout.expired_reason(
            now_ms, must_speak=self._must_speak, heard_ms=self._core.replies.playback.heard_ms or 0
        )
        if absent:
            self._turns.end_session(Ended(Ending.ABSENT, absent, Fault.TIMEOUT))
        elif self._turns.drain_at_ms is not None and now_ms >= self._turns.drain_at_ms:
            self._turns.end_session(RESTARTS)
        elif transcript_due_ms is not None and now_ms >= transcript_due_ms:
            self._turns.fail_recognition(Fault.ASR_FAILED, "the recogniser did not answer in time")
        else:
            self._core.effects += self._core.replies.tick(now_ms)
            self._turns.finish_if_spoken()

    @property
    def _must_speak(self) -> bool:
        """Whether silence of the user ends the connection: it is their turn, and all of
        the reply was sent.
        """
        if self._core.state is not State.LISTENING or self._core.settings.input.silence_allowed:
            return False
        return (
            self._core.replies.playback.heard_ms is not None and not self._core.agent.minds_silence
        )

    # --- commands of the client -------------------------------------------------------

    def _note_audio(self, at_ms: int) -> None:
        if self._audio_shows_life:
            self._core.idle_timeout.note_message(at_ms)

    def _on_audio(self) -> None:
        self._note_audio(self._core.now_ms)
        if self._core.state is State.OPENED:
            self._core.idle_timeout.note_speech(self._core.now_ms)
        if self._routing.route()[0] is not Route.AWAIT:
            return
        self._core.move(Step.AUDIO)
        if self._core.settings.turn_detection is None:
            self._core.effects += self._core.transcription.open_stream(
                self._core.settings.input, self._core.now_ms
            )

    def _on_command(self, command: cmd.AnyCommand) -> None:
        match command:
            case cmd.Alive():
                self._core.idle_timeout.note_message(self._core.now_ms)
            case cmd.Begin():
                self._core.agent.begin()
                self._core.idle_timeout.note_speech(self._core.now_ms)
            case cmd.Played():
                pass
            case cmd.Configure():
                self._on_configure(command)
            case cmd.CommitTurn():
                self._turns.handle_commit(command)
            case cmd.Respond():
                self._turns.handle_respond(command)
            case cmd.ClearInput():
                self._turns.drop_gathering()
                self._core.notify(Done(command.cause))
            case cmd.ClearHistory():
                self._core.replies.clear_history()
                self._core.notify(Done(command.cause))
            case cmd.AddItem() | cmd.DeleteItem():
                self._change_history(command)
            case cmd.TruncateReply():
                cut = self._core.replies.playback.truncate_reply(command)
                self._core.notify(cut)
                if isinstance(cut, ReplyCut):
                    self._core.notify(Done(command.cause))
            case cmd.Cancel():
                self._turns.handle_cancel(command)
            case cmd.AnswerTool():
                self._core.effects += self._core.replies.client_tools.answer_tool(
                    command, self._core.now_ms
                )
            case cmd.PressKey():
                self._on_key(command)
            case cmd.Finish() | cmd.HangUp() | cmd.Leave():
                self._on_leaving(command)
            case _:
                assert_never(command)

    def _on_leaving(self, command: cmd.Finish | cmd.HangUp | cmd.Leave) -> None:
        match command:
            case cmd.Finish():
                self._turns.leave_when_idle(Ended(Ending.FINISHED))
            case cmd.HangUp():
                self._turns.end_session(Ended(Ending.FINISHED))
            case cmd.Leave(message):
                ended = Ended(Ending.VIOLATION, message, cause=command.cause)
                self._turns.end_session(ended)

    def _on_configure(self, command: cmd.Configure) -> None:
        before, self._core.settings = self._core.settings.turn_detection, command.settings
        detection = command.settings.turn_detection
        if (before is None) != (detection is None):
            self._turns.drop_gathering()  # the audio's way to a recogniser changes
        if before != detection:
            self._core.effects += self._core.turn_detector.reset()
            self._core.turn_detector.configure(detection)
        self._core.notify(Done(command.cause))

    def _change_history(self, command: cmd.AddItem | cmd.DeleteItem) -> None:
        history = self._core.replies.history
        if isinstance(command, cmd.DeleteItem):
            deleted = self._core.replies.delete_item(command.id)
            refused, subject = (None if deleted else Why.NO_ITEM), command.id
        elif command.id in history:
            refused, subject = Why.ITEM_EXISTS, command.id
        elif command.after and command.after not in history:
            refused, subject = Why.NO_ITEM, command.after
        else:
            refused, subject = None, command.id
            history.add(command.message, command.id, command.after)
        if refused is None:
            self._core.notify(Done(command.cause))
        else:
            self._core.reject(command, refused, subject)

    # --- turn detection ---------------------------------------------------------------

    def _settle_turn_taking(self) -> None:
        """Carry out the current decision of turn detection."""
        if not self._core.turn_detector.undecided or self._core.state is State.CLOSED:
            return
        if self._core.turn_detector.uncontested(self._core.state, self._core.now_ms):
            self._core.effects += self._core.turn_detector.accept_sound(self._core.now_ms)
        match self._core.turn_detector.decide(self._core.state, self._core.now_ms):
            case Decision.END_TURN:
                self._end_users_turn()
            case Decision.INTERRUPT:
                self._interrupt()
            case Decision.DISMISS:
                self._core.effects += self._core.turn_detector.dismiss_sound()
            case Decision.BEGIN_PREEMPTIVELY:
                text = self._core.transcription.gathering.likely_text
                self._core.effects += self._core.replies.start_preemptive(
                    text, self._core.settings, self._core.now_ms
                )
            case None:
                pass

    def _end_users_turn(self) -> None:
        sounding = self._core.turn_detector.sounding
        respond = cmd.Respond() if self._core.turn_detector.answers else None
        self._turns.begin_turn(None, respond, detected=True)
        if sounding:
            self._core.effects += self._core.turn_detector.continue_sound(
                self._core.settings.input, self._core.now_ms
            )

    def _interrupt(self) -> None:
        if self._core.state is State.TRANSCRIBING:
            # The turn ended too early: its words are a part of the turn that continues.
            self._core.effects += self._core.transcription.reclaim_awaited()
        self._turns.interrupt_turn(Interrupted())
        self._core.effects += self._core.turn_detector.accept_sound(self._core.now_ms)

    # --- the keypad -------------------------------------------------------------------

    def _on_key(self, command: cmd.PressKey) -> None:
        begins = self._core.keypad.deadline_ms() is None
        if not self._core.keypad.press(command.key, self._core.now_ms):
            return
        self._core.idle_timeout.note_speech(self._core.now_ms)
        self._core.agent.heard_user()
        detection = self._core.settings.turn_detection
        if begins and (detection is None or detection.interrupt_response):
            replies = self._core.replies
            # Words that are being transcribed stay: the entry is a separate turn.
            if self._core.state is State.REPLYING or replies.playback.audible(self._core.now_ms):
                self._turns.interrupt_turn(Interrupted())

    @property
    def _keypad_deadline_ms(self) -> int | None:
        return None if self._core.state in TURN else self._core.keypad.deadline_ms()

    def _settle_keypad(self) -> None:
        """Make a turn of a complete entry, once no other turn is in progress."""
        if self._core.state in TURN or self._core.state is State.CLOSED:
            return
        entered = self._core.keypad.take(self._core.now_ms)
        if entered:
            self._turns.begin_turn(None, self._core.keypad.respond, entered, detected=True)

    # --- the agent --------------------------------------------------------------------

    @property
    def _silent_since_ms(self) -> int | None:
        """When the user's silence in their turn began; None: it is not their turn, or
        they speak.
        """
        waits = self._core.state is State.LISTENING or (
            self._core.state is State.OPENED and self._core.agent.begun
        )
        if (
            not waits
            or self._core.turn_detector.undecided
            or self._core.transcription.gathering.text
        ):
            return None
        heard_ms = self._core.replies.playback.heard_ms
        return None if heard_ms is None else max(heard_ms, self._core.idle_timeout.last_speech_ms)

    @property
    def _agent_deadline_ms(self) -> int | None:
        if self._core.state in TURN:
            return None
        return self._core.agent.deadline_ms(
            self._silent_since_ms, self._core.replies.playback.heard_ms
        )

    def _settle_agent(self) -> None:
        """Speak a greeting, prompt or goodbye that is due, or end the conversation."""
        if self._core.state in TURN or self._core.state is State.CLOSED:
            return
        said = self._core.agent.due(
            self._core.now_ms, self._silent_since_ms, self._core.replies.playback.heard_ms
        )
        if self._core.agent.leaves:
            self._turns.end_session(self._core.agent.ended)
        elif said is not None:
            self._turns.speak_for_agent(said)
