"""A conversation as a value machine: events in, effects out, time as an argument.

Nothing a client or a provider does can make it raise. The state table is in ``states``; what a turn gathers in
``hearing``; what a reply is in ``reply``; what is remembered in ``dialogue``.
"""

from typing import assert_never

from voicechat.errors import Status
from voicechat.session import events as ev
from voicechat.session.dialogue import Dialogue
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
    Send,
    SessionClosed,
    SkipAudio,
    StartReply,
    StopReply,
    TurnCompleted,
    TurnEnded,
)
from voicechat.session.hearing import Hearing
from voicechat.session.limits import SessionLimits
from voicechat.session.reply import Reply
from voicechat.session.states import MOVES, TURN, State, Step
from voicechat.session.vocabulary import AsrMode, Settings

_FROM_CLIENT = (
    ev.Opened,
    ev.AudioReceived,
    ev.UpdateRequested,
    ev.CompleteRequested,
    ev.ClearRequested,
    ev.ForgetRequested,
    ev.CancelRequested,
    ev.MessageCreated,
    ev.PlaybackReported,
    ev.PingReceived,
    ev.PongReceived,
    ev.MalformedReceived,
    ev.IgnorableReceived,
    ev.FinishRequested,
)
_OF_REPLY = (
    ev.ReplyTextArrived,
    ev.ToolCalled,
    ev.ReplyTextEnded,
    ev.SpeechSynthesized,
    ev.SentenceSynthesized,
    ev.SpeechEnded,
    ev.ReplyFailed,
)
_OF_PLAYBACK = (ev.AudioSent, ev.PlaybackReported)
_OF_STREAM = (ev.Transcribed, ev.RecognitionEnded, ev.RecognitionFailed)

_NAMES = {
    Step.UPDATE: "chat.update is only allowed before the first audio",
    Step.CLEAR: "input_audio_buffer.clear: no audio has been sent yet",
    Step.COMPLETE: "input_audio_buffer.complete: no audio has been sent yet, or a turn is still in progress",
    Step.MESSAGE: "conversation.message.create: a turn is still in progress",
}


class Session:
    """One conversation: see ``Machine``."""

    def __init__(
        self, settings: Settings | None = None, limits: SessionLimits | None = None, *, strict_ping: bool = False
    ) -> None:
        """``settings`` are the defaults of the connection; ``strict_ping``: only ``ping`` keeps it alive."""
        self.state = State.CONFIGURING
        self.settings = settings or Settings()
        self._limits = limits or SessionLimits()
        self._strict_ping = strict_ping
        self._now_ms = 0
        self._effects: list[Effect] = []
        self._dialogue = Dialogue(self._limits.history_messages)
        self._hearing = Hearing()
        self._replies = 0
        self._reply: Reply | None = None
        self._playing: Reply | None = None
        self._forgotten = False
        self._turn_began_ms = 0
        self._understood_ms: int | None = None
        self._last_message_ms = 0
        self._last_speech_ms = 0
        self._errors_in_a_row = 0
        self._drain_at_ms: int | None = None

    # --- the machine -----------------------------------------------------------------------------------------

    def receive(self, event: ev.Event, now_ms: int) -> list[Effect]:
        """See ``Machine.receive``."""
        if self.state is State.CLOSED:
            return []
        self._now_ms = max(self._now_ms, now_ms)
        self._effects = []
        if isinstance(event, _FROM_CLIENT):
            self._note_alive(event)
        late = self._late(event)
        if late is None:
            self._take(event)
        else:
            self._effects.append(Observe(LateDropped(late)))
        return self._effects

    def deadline_ms(self) -> int | None:
        """See ``Machine.deadline_ms``."""
        if self.state is State.CLOSED:
            return None
        deadlines = [self._last_message_ms + self._limits.idle_ms, self._drain_at_ms]
        if self.state is State.LISTENING and not self.settings.input.heartbeat:
            deadlines.append(self._last_speech_ms + self._limits.speech_idle_ms)
        if self.state is State.TRANSCRIBING:
            deadlines.append(self._turn_began_ms + self._limits.transcript_ms)
        if self._reply is not None:
            deadlines.append(self._reply.hurry_at_ms(self._limits.speakable_wait_ms))
            deadlines.append(self._reply.release_at_ms())
        return min(deadline for deadline in deadlines if deadline is not None)

    @property
    def held_ms(self) -> int:
        """How much audio of the running reply pacing holds back: the synthesiser need not hurry."""
        return self._reply.held_ms if self._reply is not None else 0

    def _late(self, event: ev.Event) -> LateKind | None:
        """The only place where numbers of replies and streams are compared: what is late is dropped and counted."""
        if isinstance(event, _OF_REPLY):
            return None if self._reply is not None and event.reply == self._reply.number else LateKind.REPLY
        if isinstance(event, _OF_PLAYBACK):
            return None if self._playing is not None and event.reply == self._playing.number else LateKind.REPLY
        if isinstance(event, _OF_STREAM):
            return None if self._hearing.is_current(event.stream) else LateKind.STREAM
        return None

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.AudioReceived():
                self._on_audio(event)
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
            case ev.Transcribed() | ev.RecognitionEnded() | ev.RecognitionFailed():
                self._on_recognition(event)
            case (
                ev.ReplyTextArrived()
                | ev.ToolCalled()
                | ev.ReplyTextEnded()
                | ev.SpeechSynthesized()
                | ev.SentenceSynthesized()
                | ev.SpeechEnded()
                | ev.ReplyFailed()
            ):
                self._on_reply(event)
            case ev.AudioSent() | ev.PlaybackReported():
                self._on_playback(event)
            case ev.MalformedReceived():
                self._on_malformed(event)
            case ev.PongReceived() | ev.IgnorableReceived() | ev.FinishRequested():
                pass
            case ev.Disconnected():
                self._stop()
                self._effects += self._hearing.drop_gathering()
                self.state = State.CLOSED
            case ev.WriteStalled():
                self._close(1013, Status.TIMEOUT, event.message)
            case ev.Faulted():
                self._close(1011, Status.INTERNAL, "internal error; this session ends")
            case ev.DrainRequested():
                self._drain_at_ms = max(self._now_ms, event.deadline_ms)
                self._drain_if_free()
            case ev.Ticked():
                self._on_tick()
            case _:
                assert_never(event)

    # --- requests of the client ------------------------------------------------------------------------------

    def _on_audio(self, event: ev.AudioReceived) -> None:
        if self.state is State.CONFIGURING:
            self._last_speech_ms = self._now_ms
        elif self.state in TURN and self.settings.asr_mode is AsrMode.REFRESH:
            self._effects.append(SkipAudio(event.payload))
            return
        self._move(Step.AUDIO)
        self._effects += self._hearing.feed(event.payload, self.settings.input, self._now_ms)

    def _on_request(
        self,
        event: ev.Opened
        | ev.UpdateRequested
        | ev.CompleteRequested
        | ev.ClearRequested
        | ev.ForgetRequested
        | ev.CancelRequested
        | ev.PingReceived,
    ) -> None:
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
                    self._effects += self._hearing.drop_gathering()
                    self._answer(Request.CLEAR)
            case ev.ForgetRequested():
                self._dialogue.forget()
                self._forgotten = True
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
        self._answer(Request.UPDATE, message=event.note)

    def _on_cancel(self) -> None:
        if self.state in TURN:
            self._stop()
            self._answer(Request.CANCEL)
            self._end_turn(Outcome.CANCELED)
            return
        if self._playing is not None and self._playing.audible(self._now_ms):
            self._effects.append(StopReply(self._playing.number))
            self._dialogue.cut(self._playing.number, self._playing.heard(self._now_ms))
        self._playing = None
        self._answer(Request.CANCEL)

    def _on_message(self, event: ev.MessageCreated) -> None:
        if Step.MESSAGE not in MOVES[self.state]:
            self._report(Status.NOT_ALLOWED_NOW, _NAMES[Step.MESSAGE])
            return
        self._move(Step.MESSAGE)
        self._note_turn()
        self._understood_ms = self._now_ms
        self._start_reply(event.content)

    def _on_malformed(self, event: ev.MalformedReceived) -> None:
        self._errors_in_a_row += 1
        if self._errors_in_a_row >= self._limits.protocol_errors:
            self._close(1008, event.status, event.message)
        else:
            self._report(event.status, event.message)

    def _note_alive(self, event: ev.Event) -> None:
        if not self._strict_ping or isinstance(event, ev.PingReceived):
            self._last_message_ms = self._now_ms
        if not isinstance(event, ev.MalformedReceived | ev.PongReceived):
            self._errors_in_a_row = 0

    # --- recognition -----------------------------------------------------------------------------------------

    def _begin_turn(self) -> None:
        self._move(Step.COMPLETE)
        self._note_turn()
        finish = self._hearing.finish()
        self._effects += finish
        if not finish:
            self._understand()

    def _note_turn(self) -> None:
        self._turn_began_ms = self._now_ms
        self._understood_ms = None
        self._forgotten = False

    def _on_recognition(self, event: ev.Transcribed | ev.RecognitionEnded | ev.RecognitionFailed) -> None:
        awaited = self._hearing.is_awaited(event.stream)
        match event:
            case ev.Transcribed():
                if event.transcript.text.strip():
                    self._last_speech_ms = self._now_ms
                hold = self.state in TURN
                self._effects += self._hearing.take(event.stream, event.transcript, hold=hold)
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
            self._effects += self._hearing.drop_gathering()
        else:
            self._effects += self._hearing.replace_gathering(event, self.settings.input, self._now_ms)

    def _understand(self) -> None:
        """The recogniser has said everything about the turn: answer it, if there is anything to answer."""
        text = self._hearing.settle()
        self._understood_ms = self._now_ms
        if text:
            self._move(Step.UNDERSTOOD)
            self._start_reply(text)
        else:
            self._end_turn(Outcome.EMPTY)

    # --- the reply -------------------------------------------------------------------------------------------

    def _start_reply(self, text: str) -> None:
        self._dialogue.hear_user(text)
        self._replies += 1
        self._reply = self._playing = Reply(self._replies, self._now_ms, self.settings.lead_ms)
        messages = (*self.settings.chat.messages, *self._dialogue.messages)
        self._effects.append(StartReply(self._replies, messages, self.settings.chat, self.settings.voice))

    def _on_reply(
        self,
        event: ev.ReplyTextArrived
        | ev.ToolCalled
        | ev.ReplyTextEnded
        | ev.SpeechSynthesized
        | ev.SentenceSynthesized
        | ev.SpeechEnded
        | ev.ReplyFailed,
    ) -> None:
        reply = self._reply
        assert reply is not None
        match event:
            case ev.SpeechSynthesized():
                self._effects += reply.add_audio(event, self._now_ms)
            case ev.ReplyTextArrived():
                self._effects += reply.add_text(event.text, self._now_ms)
            case ev.ToolCalled():
                self._effects += reply.call_tool(event.call, self._now_ms)
            case ev.SentenceSynthesized():
                reply.finish_sentence(event.sentence)
            case ev.ReplyTextEnded():
                self._effects += reply.finish_text(event.finish_reason, self._now_ms)
            case ev.SpeechEnded():
                self._effects += reply.finish_audio(self._now_ms)
            case ev.ReplyFailed():
                self._fail_turn(event.status, event.message)
            case _:
                assert_never(event)
        self._finish_if_spoken()

    def _on_playback(self, event: ev.AudioSent | ev.PlaybackReported) -> None:
        assert self._playing is not None
        if isinstance(event, ev.AudioSent):
            self._playing.clock.sent(event.end_ms, self._now_ms)
        else:
            self._playing.clock.played(event.played_ms, self._now_ms)
        self._release()

    def _release(self) -> None:
        if self._reply is not None:
            self._effects += self._reply.release(self._now_ms)
            self._finish_if_spoken()

    def _finish_if_spoken(self) -> None:
        reply = self._reply
        if reply is None or not reply.spoken:
            return
        self._dialogue.say(reply.number, reply.text)
        self._end_turn(Outcome.SPOKEN)

    # --- the end of a turn, and of the session ---------------------------------------------------------------

    def _fail_turn(self, status: Status, message: str) -> None:
        self._stop()
        self._report(status, message)
        self._end_turn(Outcome.FAILED)

    def _stop(self) -> None:
        """Stop whatever the turn is doing; of its reply, remember what was heard."""
        self._effects += self._hearing.drop_awaited()
        if self._reply is not None:
            self._effects.append(StopReply(self._reply.number))
            self._dialogue.say(self._reply.number, self._reply.heard(self._now_ms))

    def _end_turn(self, outcome: Outcome) -> None:
        """The one place where a turn ends: exactly one ``TurnCompleted`` for each that began."""
        reply, self._reply = self._reply, None
        if outcome is not Outcome.SPOKEN:
            self._playing = None
        if self._forgotten:  # conversation.clear during the turn: the turn went on and is not remembered
            self._dialogue.forget()
        self._effects.append(Send(TurnCompleted()))
        self._effects.append(Observe(self._summary(outcome, reply)))
        self._move(Step.CANCEL if outcome is Outcome.CANCELED else Step.TURN_OVER)
        self._last_speech_ms = self._now_ms
        self._effects += self._hearing.release()
        self._drain_if_free()

    def _summary(self, outcome: Outcome, reply: Reply | None) -> TurnEnded:
        def since_turn_began(at_ms: int | None) -> int | None:
            return None if at_ms is None else at_ms - self._turn_began_ms

        return TurnEnded(
            outcome,
            since_turn_began(self._understood_ms),
            since_turn_began(reply.first_text_ms if reply else None),
            since_turn_began(reply.first_audio_ms if reply else None),
        )

    def _drain_if_free(self) -> None:
        if self._drain_at_ms is not None and self.state not in TURN:
            self._close(1012, Status.AT_CAPACITY, "the server restarts; connect again")

    def _close(self, code: int, status: Status, message: str) -> None:
        if self.state in TURN:
            self._drain_at_ms = None
            self._stop()
            self._end_turn(Outcome.FAILED)
        self._effects += self._hearing.drop_gathering()
        self._report(status, message)
        self._effects += [Close(code, message), Observe(SessionClosed(code))]
        self.state = State.CLOSED

    def _on_tick(self) -> None:
        limits, now_ms = self._limits, self._now_ms
        listening = self.state is State.LISTENING and not self.settings.input.heartbeat
        if now_ms >= self._last_message_ms + limits.idle_ms:
            self._close(1000, Status.TIMEOUT, f"no message for {limits.idle_ms // 1000} s")
        elif self._drain_at_ms is not None and now_ms >= self._drain_at_ms:
            self._close(1012, Status.AT_CAPACITY, "the server restarts; connect again")
        elif listening and now_ms >= self._last_speech_ms + limits.speech_idle_ms:
            self._close(1000, Status.TIMEOUT, f"no speech for {limits.speech_idle_ms // 1000} s")
        elif self.state is State.TRANSCRIBING and now_ms >= self._turn_began_ms + limits.transcript_ms:
            self._fail_turn(Status.ASR_FAILED, "the recogniser did not answer in time")
        elif self._reply is not None:
            hurry_at_ms = self._reply.hurry_at_ms(limits.speakable_wait_ms)
            if hurry_at_ms is not None and now_ms >= hurry_at_ms:
                self._effects += self._reply.hurry(now_ms)
            self._release()

    # --- small words -----------------------------------------------------------------------------------------

    def _move(self, step: Step) -> None:
        self.state = MOVES[self.state][step]

    def _granted(self, request: Request, step: Step) -> bool:
        if step in MOVES[self.state]:
            return True
        self._answer(request, Status.NOT_ALLOWED_NOW, _NAMES[step])
        return False

    def _answer(self, request: Request, status: Status = Status.OK, message: str = "") -> None:
        self._effects.append(Send(Answered(request, status, message)))

    def _report(self, status: Status, message: str) -> None:
        self._effects.append(Send(ErrorReported(status, message)))
