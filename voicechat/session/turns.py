"""The turns of a conversation: how each begins, is transcribed, is answered and ends.

A turn begins when the user has finished, when a client asks for a reply, or when the
agent speaks by itself. It always ends in `Turns.end_turn`, with exactly one
``TurnCompleted``.
"""

from dataclasses import dataclass
from typing import assert_never

from voicechat.errors import Fault
from voicechat.session import commands as cmd
from voicechat.session import events as ev
from voicechat.session.agent_turns import Say
from voicechat.session.effects import RecordMetric
from voicechat.session.notices import (
    Done,
    Failed,
    Interrupted,
    Outcome,
    TurnCommitted,
    TurnCompleted,
    Why,
)
from voicechat.session.session_core import SessionCore
from voicechat.session.snapshot import AwaitedSnapshot
from voicechat.session.states import TURN, State, Step
from voicechat.session.turn_times import TurnTimes
from voicechat.session.types import Message, ReplyOverrides


@dataclass(slots=True)
class _Awaited:
    """A committed turn whose last transcript is awaited."""

    since_ms: int
    item_id: str
    """The reserved place in the history for its words."""
    respond: cmd.Respond | None
    """How to answer it; None: it is only added to the history."""
    insists: bool = False
    """True: a ``Respond`` asked for the reply, so it is made even without recognised
    words.
    """


class Turns:
    """The turn in progress, if there is one."""

    def __init__(self, core: SessionCore) -> None:
        self._core = core
        self._times = TurnTimes(0, 0)
        self._awaited: _Awaited | None = None

    @property
    def transcript_due_ms(self) -> int | None:
        """When the awaited last transcript of a turn is due; None: none is awaited."""
        if self._awaited is None:
            return None
        return (
            self._awaited.since_ms
            + self._core.limits.transcript_ms
            + self._core.transcription.grace_ms
        )

    def handle_cancel(self, command: cmd.Cancel) -> None:
        """Stop the reply that the command names; without a number, the turn."""
        number, replies = command.reply, self._core.replies
        current = None if replies.preemptive else replies.current
        if number is None or (current is not None and current.number == number):
            self.interrupt_turn(Done(command.cause))
            return
        stopped = replies.stop_out_of_band(self._core.now_ms, number)
        self._core.effects += stopped
        if stopped:
            self._core.notify(Done(command.cause))
        else:
            self._core.reject(command, Why.NO_REPLY, str(number))

    def snapshot(self) -> AwaitedSnapshot | None:
        """Return the committed turn whose last transcript is awaited."""
        awaited, heard = self._awaited, self._core.transcription.awaited
        if awaited is None:
            return None
        respond = awaited.respond
        return AwaitedSnapshot(
            item_id=awaited.item_id,
            words=heard.text if heard is not None else "",
            respond=respond.overrides if respond is not None else None,
            insists=awaited.insists,
        )

    def restore(self, kept: AwaitedSnapshot | None) -> None:
        """Continue from a snapshot."""
        if kept is not None:
            respond = cmd.Respond(kept.respond) if kept.respond is not None else None
            self._awaited = _Awaited(self._core.now_ms, kept.item_id, respond, kept.insists)

    def go_on(self, event: ev.Restored) -> None:
        """Continue the turn that was in progress when the process was lost: with the
        words that had been recognised, or with the rest of its reply.
        """
        core, replies = self._core, self._core.replies
        replies.note_heard(event.heard_ms, has_all=event.has_all, now_ms=core.now_ms)
        if core.state is State.TRANSCRIBING:
            self._on_last_words()
            return
        self._remember_aside()
        if core.state is State.REPLYING:
            self._times = TurnTimes(core.now_ms, core.now_ms, core.now_ms)
            if event.speak_on:
                core.effects += replies.speak_on(core.settings, core.now_ms)
            if replies.current is None:
                self.end_turn(Outcome.SPOKEN, spoken=True)
            elif not event.speak_on:
                self.stop_turn()
                self.end_turn(Outcome.CANCELED)
        elif not replies.playback.audible(core.now_ms):
            pass
        elif event.speak_on:
            core.move(Step.RESPOND)
            self._note_turn(core.now_ms)
            self._times.understood_ms = core.now_ms
            core.effects += replies.speak_on(core.settings, core.now_ms)
            if replies.current is None:
                self.end_turn(Outcome.SPOKEN, spoken=True)
        else:
            core.effects += replies.playback.stop(core.now_ms)

    def interrupt_turn(self, notice: Done | Interrupted) -> None:
        """Stop the turn in progress and the last reply's playback; send ``notice``."""
        if self._core.state in TURN:
            self.stop_turn()
            self._core.notify(notice)
            self.end_turn(Outcome.CANCELED)
            return
        silenced = self._core.replies.playback.stop(self._core.now_ms)
        if silenced:
            # The user's turn begins when the reply is stopped.
            self._core.idle_timeout.note_speech(self._core.now_ms)
        self._core.effects += silenced
        self._core.notify(notice)

    def handle_commit(self, command: cmd.CommitTurn) -> None:
        """End the user's turn by a command. During a reply the words can only be added
        to the history.
        """
        respond = cmd.Respond(cause=command.cause) if command.respond else None
        if self._core.state not in TURN:
            self.begin_turn(command.cause, respond, command.text)
        elif self._core.state is State.REPLYING and respond is None and command.text is None:
            self._note_aside(command.cause)
        else:
            self._core.reject(command, Why.BUSY)

    def handle_respond(self, command: cmd.Respond) -> None:
        """Start the reply that the client asks for, in the conversation or out of
        band.
        """
        if command.overrides.out_of_band:
            self._core.effects += self._core.replies.start_out_of_band(
                self._core.settings, command, self._core.now_ms
            )
        elif self._awaited is not None and self._awaited.respond is None:
            # The transcript that the reply must answer is still awaited.
            if self._core.state is State.REPLYING:
                self._core.reject(command, Why.BUSY)
                return
            if self._core.state is not State.TRANSCRIBING:
                self._core.move(Step.COMMIT)
                self._note_turn(self._core.now_ms)
            self._awaited.respond, self._awaited.insists = command, True
        elif self._core.state in TURN:
            self._core.reject(command, Why.BUSY)
        else:
            self._core.move(Step.RESPOND)
            self._note_turn(self._core.now_ms)
            self._times.understood_ms = self._core.now_ms
            self._core.effects += self._core.replies.start_reply(
                self._core.settings, command, self._times, self._core.now_ms
            )
            self.finish_if_spoken()

    def begin_turn(
        self,
        cause: object,
        respond: cmd.Respond | None,
        text: str | None = None,
        *,
        detected: bool = False,
    ) -> None:
        """Begin a turn with the recognised words, or with ``text``. ``respond`` None:
        its words are added to the history and not answered.

        ``cause`` is the command's; ``detected``: silence ended the turn.
        """
        if text is not None:
            self._core.agent.heard_user()
        self._settle_aside()
        item_id = self._core.replies.history.reserve()
        self._core.notify(TurnCommitted(cause, detected, item_id))
        silent_since_ms = self._core.turn_detector.silent_since_ms if text is None else None
        self._core.move(Step.COMMIT)
        self._note_turn(self._core.now_ms if silent_since_ms is None else silent_since_ms)
        if text is not None:
            self._understand(text, item_id, respond)
            return
        self._core.turn_detector.end_turn()
        finish = self._core.transcription.finish_utterance()
        self._core.effects += finish
        if finish:
            self._awaited = _Awaited(self._core.now_ms, item_id, respond)
        else:
            self._understand(self._core.transcription.take_awaited_text(), item_id, respond)

    def _note_turn(self, spoken_ms: int) -> None:
        self._times = TurnTimes(spoken_ms, self._core.now_ms)
        self._core.replies.begin_turn()

    def _understand(
        self, text: str, item_id: str, respond: cmd.Respond | None, *, insists: bool = False
    ) -> None:
        """The turn's transcript is complete: answer it. Without words, or without
        ``respond``, end the turn.
        """
        self._awaited = None
        self._times.understood_ms = self._core.now_ms
        if respond is not None and (text or insists):
            self._core.move(Step.UNDERSTOOD)
            replies, times, now_ms = self._core.replies, self._times, self._core.now_ms
            if text:
                self._core.effects += replies.answer_user(
                    text, item_id, self._core.settings, respond, times, now_ms
                )
            else:
                self._core.effects += replies.give_up_place(item_id)
                self._core.effects += replies.start_reply(
                    self._core.settings, respond, times, now_ms
                )
            self.finish_if_spoken()
            return
        self._core.effects += self._core.replies.drop_preemptive()
        self._core.effects += self._core.replies.add_user_message(text, item_id)
        self.end_turn(Outcome.UNANSWERED if text else Outcome.EMPTY)

    def _note_aside(self, cause: object) -> None:
        """Add the user's words, which were committed during a reply, to the history
        without answering them.
        """
        self._settle_aside()
        item_id = self._core.replies.history.reserve()
        self._core.notify(TurnCommitted(cause, item_id=item_id))
        finish = self._core.transcription.finish_utterance()
        self._core.effects += finish
        self._awaited = _Awaited(self._core.now_ms, item_id, None)
        if not finish:
            self._remember_aside()

    def _settle_aside(self) -> None:
        """Stop awaiting the words of an earlier unanswered turn, and keep the words so
        far.
        """
        if self._core.state is not State.TRANSCRIBING:
            self._remember_aside()

    def _remember_aside(self, failure: str = "") -> None:
        aside, self._awaited = self._awaited, None
        if aside is None:
            return
        awaited = self._core.transcription.awaited
        text = awaited.text if awaited is not None else ""
        self._core.effects += self._core.transcription.drop_awaited()
        if text:
            self._core.effects += self._core.replies.add_unanswered_message(text, aside.item_id)
        else:
            self._core.effects += self._core.replies.give_up_place(aside.item_id, failure)

    def handle_recognition(
        self, event: ev.Transcribed | ev.RecognitionEnded | ev.RecognitionFailed
    ) -> None:
        """Handle a result, the end or the failure of a recogniser stream that is still
        used.
        """
        awaited = self._core.transcription.is_awaited(event.stream)
        match event:
            case ev.Transcribed():
                if event.transcript.text.strip():
                    self._core.idle_timeout.note_speech(self._core.now_ms)
                    self._core.agent.heard_user()
                hold = self._core.state in TURN or self._core.turn_detector.contested
                self._core.effects += self._core.transcription.add_result(
                    event.stream, event.transcript, hold=hold
                )
                if not awaited:
                    self._core.effects += self._core.turn_detector.note_transcript(
                        self._core.now_ms
                    )
            case ev.RecognitionEnded():
                self._core.transcription.end_stream(event.stream)
                if awaited:
                    self._on_last_words()
            case ev.RecognitionFailed():
                self._on_recognition_failed(event, awaited=awaited)
            case _:
                assert_never(event)

    def _on_last_words(self) -> None:
        """The last transcript of a committed turn has come."""
        if self._awaited is None or self._core.state is not State.TRANSCRIBING:
            self._remember_aside()
            return
        awaited, text = self._awaited, self._core.transcription.take_awaited_text()
        self._understand(text, awaited.item_id, awaited.respond, insists=awaited.insists)

    def _on_recognition_failed(self, event: ev.RecognitionFailed, *, awaited: bool) -> None:
        if awaited:
            again = self._core.transcription.replace_awaited(event, self._core.settings.input)
            self._core.effects += again
            if not again:
                self.fail_recognition(event.fault, event.message)
            return
        self._core.notify(Failed(event.fault, event.message))
        if event.fault is Fault.TOO_LARGE:
            self.drop_gathering()
        else:
            self._core.effects += self._core.transcription.replace_gathering(
                event, self._core.settings.input, self._core.now_ms
            )

    def fail_recognition(self, fault: Fault, message: str) -> None:
        """The last transcript of a committed turn will not come."""
        if self._core.state is State.TRANSCRIBING:
            self._give_up_words(message)
            self.stop_turn()
            self._core.notify(Failed(fault, message))
            self.end_turn(Outcome.FAILED)
        else:
            self._core.notify(Failed(fault, message))
            self._remember_aside(message)

    def drop_gathering(self) -> None:
        """Discard the audio and the words of the next turn."""
        self._core.effects += self._core.transcription.drop_gathering()
        self._core.effects += self._core.turn_detector.reset()

    def handle_reply_failed(self, event: ev.ReplyFailed) -> None:
        """Handle a failure of the model or the synthesiser. If the model failed before
        anything was spoken, speak the fallback message; otherwise the turn fails.
        """
        current = self._core.replies.current
        if current is None or current.number != event.reply:
            self._core.effects += self._core.replies.fail_out_of_band(event, self._core.now_ms)
        elif self._core.replies.preemptive:
            self._core.effects += self._core.replies.drop_preemptive()
        elif self._core.replies.speaking_fallback:  # the model's error was reported already
            self.stop_turn(event)
            self.end_turn(Outcome.FAILED)
        elif event.fault is Fault.LLM_FAILED and (
            apologising := self._core.replies.start_fallback_message()
        ):
            self._core.notify(Failed(event.fault, event.message))
            self._core.effects += apologising
        else:
            self.stop_turn(event)
            self._core.notify(Failed(event.fault, event.message))
            self.end_turn(Outcome.FAILED)

    def handle_playback(self, event: ev.AudioSent | cmd.Played) -> None:
        """Audio of a reply was handed to the socket, or played by the client."""
        if isinstance(event, ev.AudioSent):
            self._core.turn_detector.note_reply_audible()
        self._core.effects += self._core.replies.handle_playback(event, self._core.now_ms)
        self.finish_if_spoken()

    def finish_if_spoken(self) -> None:
        """End the turn if its reply has been spoken to its end."""
        if finished := self._core.replies.finish_spoken():
            self._core.effects += finished
            failed = self._core.replies.speaking_fallback
            self.end_turn(Outcome.FAILED if failed else Outcome.SPOKEN, spoken=True)

    def stop_turn(self, failed: ev.ReplyFailed | None = None) -> None:
        """Stop the turn's recognition and reply; the history keeps what was heard."""
        if self._core.state is State.TRANSCRIBING:
            self._core.effects += self._core.transcription.drop_awaited()
            self._give_up_words()
        self._core.effects += self._core.replies.stop_current(self._core.now_ms, failed)

    def _give_up_words(self, failure: str = "") -> None:
        """Stop awaiting the words of the committed turn."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            self._core.effects += self._core.replies.give_up_place(awaited.item_id, failure)

    def end_turn(self, outcome: Outcome, *, spoken: bool = False) -> None:
        """End the turn. All turns end here, with exactly one ``TurnCompleted`` each."""
        reply_times = self._core.replies.end_turn(spoken=spoken)
        self._core.notify(TurnCompleted(outcome))
        self._core.effects.append(RecordMetric(self._times.ended(outcome, reply_times)))
        self._core.move(Step.CANCEL if outcome is Outcome.CANCELED else Step.TURN_OVER)
        self._core.idle_timeout.note_speech(self._core.now_ms)
        if not self._core.turn_detector.contested:
            self._core.effects += self._core.transcription.release_held()
        self._after_turn()

    def _after_turn(self) -> None:
        """Called at the end of each turn: `EndableTurns` may end the session here.

        This is a method and not a callback, because a callback would make the session
        refer to itself, and only the garbage collector could free it.
        """

    def speak_for_agent(self, said: Say) -> None:
        """Begin a turn in which the agent speaks without a question of the user."""
        self._settle_aside()
        self._core.move(Step.RESPOND)
        self._note_turn(self._core.now_ms)
        self._times.understood_ms = self._core.now_ms
        if said.prompt:
            asked: Message = {"role": "user", "content": said.prompt}
            overrides = ReplyOverrides(input=(*self._core.settings.chat.messages, asked))
            self._core.effects += self._core.replies.start_reply(
                self._core.settings, cmd.Respond(overrides), self._times, self._core.now_ms
            )
        else:
            self._core.effects += self._core.replies.say_text(
                said.text, self._core.settings, self._core.now_ms
            )
        self.finish_if_spoken()
