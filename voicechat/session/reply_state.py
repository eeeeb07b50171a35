"""The replies of a session: how each begins, what is made for it, and how it ends.

A *preemptive* reply is started early, while it is not certain that the user has
finished. Until it is adopted, the client and the history get nothing of it, and it can
be dropped without a trace. An *out-of-band* reply is no part of the conversation: it is
made beside the current one, and the history gets nothing of it either.
"""

from dataclasses import replace

from voicechat.session import events as ev
from voicechat.session.client_tools import ClientTools
from voicechat.session.commands import Played, Respond
from voicechat.session.effects import (
    AdoptReply,
    Effect,
    PreemptiveReplyEnded,
    PrepareReply,
    RecordMetric,
    Send,
    StartReply,
    StopReply,
    ToolEnded,
    TurnTimed,
)
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.history import History
from voicechat.session.limits import SessionLimits, earliest_ms
from voicechat.session.notices import (
    LatencyMeasured,
    NothingSaid,
    Outcome,
    Rejected,
    ReplyBegun,
    ReplyCut,
    ReplyEnded,
    UserSaid,
    Why,
)
from voicechat.session.reply import Reply, ReplyMade
from voicechat.session.reply_playback import ReplyPlayback
from voicechat.session.reply_registry import (
    ReplyRegistry,
    ReplyRequest,
    Uncommitted,
    build_request,
    continue_prompt,
)
from voicechat.session.snapshot import ExchangeSnapshot, RepliesSnapshot
from voicechat.session.tool_calls import NO_ANSWER_IN_TIME, STOPPED
from voicechat.session.turn_times import ReplyTimes, TurnTimes
from voicechat.session.types import (
    Message,
    ReplyOverrides,
    Settings,
    ToolOutcome,
)

MAX_OUT_OF_BAND = 4
"""The most out-of-band replies in progress at once."""


class ReplyState:
    """The replies, with the client's tools and the playback of the last reply."""

    def __init__(
        self, limits: SessionLimits, fallback_message: FallbackMessage | None = None
    ) -> None:
        """``fallback_message`` is spoken when the chat model fails before any of its
        reply was spoken.
        """
        self._limits = limits
        self._fallback_message = fallback_message
        self._registry = ReplyRegistry(limits.history_messages)
        self.playback = ReplyPlayback(self._registry)
        self.client_tools = ClientTools(self._registry, limits)
        self._asked = ""
        self._question = ""
        """The item that the turn answers. Clearing the history keeps it until the turn
        ends.
        """
        self._prepared: PrepareReply | None = None
        self._wasted = 0

    @property
    def current(self) -> Reply | None:
        """The reply that is being made, or whose paced audio is being sent."""
        return self._registry.current

    @property
    def history(self) -> History:
        """The conversation so far."""
        return self._registry.history

    def in_progress(self, number: int) -> Reply | None:
        """Return the reply of that number if it is in progress; else None."""
        return self._registry.in_progress(number)

    @property
    def preemptive(self) -> bool:
        """Whether the current reply is preemptive and not adopted."""
        return self._registry.uncommitted is not None

    @property
    def wasted(self) -> int:
        """How many more preemptive replies were dropped than adopted."""
        return self._wasted

    # --- a reply's life ---------------------------------------------------------------

    def begin_turn(self) -> None:
        """Begin a turn. The history gets its messages, unless it is cleared
        meanwhile.
        """
        self._registry.history_cleared = False
        self._question = ""

    def add_user_message(self, text: str, item_id: str) -> list[Effect]:
        """Store ``text`` of the user's turn in its reserved place ``item_id``, unless
        that was deleted.
        """
        self._asked, self._question = text, item_id
        return self.add_unanswered_message(text, item_id)

    def add_unanswered_message(self, text: str, item_id: str) -> list[Effect]:
        """Store ``text``, which the user said during a reply; the reply continues."""
        item = self.history.fill(item_id, {"role": "user", "content": text}) if text else None
        if item is None:
            return self.give_up_place(item_id)
        return [Send(UserSaid(item))]

    def give_up_place(self, item_id: str, message: str = "") -> list[Effect]:
        """Delete the place of a turn without words. ``message``: why recognition
        failed.
        """
        self.history.delete(item_id)
        return [Send(NothingSaid(item_id, message))]

    def answer_user(
        self,
        text: str,
        item_id: str,
        settings: Settings,
        asked: Respond,
        times: TurnTimes,
        now_ms: int,
    ) -> list[Effect]:
        """Store the user's words and answer them. A preemptive reply to the same words
        becomes the answer.
        """
        adopts = asked.overrides == ReplyOverrides() and self.begun_for(text)
        dropped = [] if adopts else self.drop_preemptive()
        heard = self.add_user_message(text, item_id)
        if adopts:
            effects = [*heard, *self._adopt(now_ms)]
        else:
            effects = [*dropped, *heard, *self.start_reply(settings, asked, times, now_ms)]
        if self.current is not None:
            self.current.turn_times = times
        return effects

    def start_reply(
        self, settings: Settings, asked: Respond, times: TurnTimes | None, now_ms: int
    ) -> list[Effect]:
        """Start a reply to the history."""
        effects = self.drop_preemptive()
        request = build_request(settings, asked.overrides)
        reply, started = self._registry.begin(request, now_ms)
        self._registry.current = self.playback.playing = reply
        reply.turn_times = times
        return [*effects, started, Send(ReplyBegun(reply.number, now_ms, asked.cause))]

    def start_out_of_band(self, settings: Settings, asked: Respond, now_ms: int) -> list[Effect]:
        """Start a reply that is no part of the conversation."""
        if len(self._registry.out_of_band) >= MAX_OUT_OF_BAND:
            message = f"{MAX_OUT_OF_BAND} out-of-band replies are in progress already"
            return [Send(Rejected(asked.cause, Why.TOO_MANY, message))]
        reply, started = self._registry.begin(build_request(settings, asked.overrides), now_ms)
        self._registry.out_of_band[reply.number] = reply
        return [started, Send(ReplyBegun(reply.number, now_ms, asked.cause))]

    def say_text(self, text: str, settings: Settings, now_ms: int) -> list[Effect]:
        """Speak ``text`` without a model: a greeting, a prompt during silence, a
        goodbye.
        """
        effects = self.drop_preemptive()
        request = build_request(settings, ReplyOverrides(input=()))
        reply, started = self._registry.begin(request, now_ms)
        self._registry.current = self.playback.playing = reply
        scripted = replace(started, scripted=True)
        said = [*reply.add_text(text, now_ms), *reply.finish_text("stop", now_ms)]
        return [*effects, scripted, Send(ReplyBegun(reply.number, now_ms)), *said]

    def start_preemptive(self, text: str, settings: Settings, now_ms: int) -> list[Effect]:
        """Start a reply to ``text``, in case the user has finished. A reply to other
        words is dropped.
        """
        if self.begun_for(text):
            return []
        effects = self.drop_preemptive()
        question: Message = {"role": "user", "content": text}
        reply, started = self._registry.begin(
            build_request(settings, ReplyOverrides()), now_ms, (question,)
        )
        self._registry.current = reply
        self._registry.uncommitted = Uncommitted(text, now_ms)
        return [*effects, replace(started, preemptive=True)]

    def prepare(self, text: str, settings: Settings) -> list[Effect]:
        """Have the model process the prompt of a reply to ``text``, which the user has
        said so far; no effects if it was asked for that already.
        """
        request = build_request(settings, ReplyOverrides())
        question: Message = {"role": "user", "content": text}
        asked = PrepareReply(request.messages((*self.history.messages, question)), request.chat)
        if asked == self._prepared:
            return []
        self._prepared = asked
        return [asked]

    def begun_for(self, text: str) -> bool:
        """Whether a preemptive reply to these words is in progress."""
        uncommitted = self._registry.uncommitted
        return uncommitted is not None and uncommitted.answers(text)

    def drop_preemptive(self) -> list[Effect]:
        """Drop the preemptive reply, if there is one."""
        if self._registry.uncommitted is None or self.current is None:
            return []
        stopped: list[Effect] = [
            StopReply(self.current.number),
            RecordMetric(PreemptiveReplyEnded(used=False, saved_ms=0)),
        ]
        del self._registry.requests[self.current.number]
        self.current.discard_held_audio()
        self._registry.uncommitted = self._registry.current = None
        self._wasted += 1
        return stopped

    def handle_event(self, event: ReplyMade, now_ms: int) -> list[Effect]:
        """Handle a result of the model or the synthesiser for a reply in progress."""
        reply = self._registry.in_progress(event.reply)
        assert reply is not None
        if isinstance(event, ev.ToolCalled) and reply.tools.rounds >= self._limits.tool_rounds:
            return []
        effects = reply.handle_event(event, now_ms)
        if isinstance(event, ev.ToolsUsed):
            answers = event.exchange.answers
            effects += [
                RecordMetric(ToolEnded(done.tool, done.outcome, done.took_ms)) for done in answers
            ]
        if reply is self._registry.current:
            return self._withhold(effects)
        if reply.spoken:
            effects += self._end_out_of_band(reply, Outcome.SPOKEN)
        return effects

    def release_audio(self, now_ms: int) -> list[Effect]:
        """Release the paced audio that may be sent now."""
        effects: list[Effect] = []
        current = self._registry.current
        if current is not None and self._registry.uncommitted is None:
            effects += current.release_audio(now_ms)
        for reply in list(self._registry.out_of_band.values()):
            effects += reply.release_audio(now_ms)
            if reply.spoken:
                effects += self._end_out_of_band(reply, Outcome.SPOKEN)
        return effects

    def deadline_ms(self) -> int | None:
        """Return when to call ``tick``; None: never."""
        due_ms: list[int | None] = []
        withheld = self._registry.current if self._registry.uncommitted is not None else None
        for reply in self._registry.replies_in_progress():
            due_ms.append(reply.cut_unfinished_at_ms(self._limits.speakable_wait_ms))
            if reply is not withheld:
                due_ms += (reply.release_at_ms(), self.client_tools.answers_due_ms(reply))
                due_ms.append(self.client_tools.filler_due_ms(reply))
        return earliest_ms(*due_ms)

    def tick(self, now_ms: int) -> list[Effect]:
        """Do what is due: speak text that has waited too long, release paced audio,
        speak a filler, give up waiting for answers.
        """
        effects: list[Effect] = []
        for reply in self._registry.replies_in_progress():
            hurry_at_ms = reply.cut_unfinished_at_ms(self._limits.speakable_wait_ms)
            if hurry_at_ms is not None and now_ms >= hurry_at_ms:
                hurried = reply.cut_unfinished(now_ms)
                effects += self._withhold(hurried) if reply is self.current else hurried
        effects += self.release_audio(now_ms)
        for reply in self._registry.replies_in_progress():
            filler_ms = self.client_tools.filler_due_ms(reply)
            if filler_ms is not None and now_ms >= filler_ms:
                effects += self.client_tools.say_filler(reply, now_ms)
            due_ms = self.client_tools.answers_due_ms(reply)
            if due_ms is not None and now_ms >= due_ms and not reply.spoken:
                effects += self.client_tools.abandon_calls(
                    reply, NO_ANSWER_IN_TIME, ToolOutcome.TIMEOUT, now_ms
                )
                effects += self.client_tools.continue_reply(reply)
        return effects

    def finish_spoken(self) -> list[Effect]:
        """If the current reply has just been completed, store it whole in the history
        and return its end; else return nothing.
        """
        reply = self._registry.current
        if reply is None or self._registry.uncommitted is not None or not reply.spoken:
            return []
        items = self._registry.remember(reply, "" if reply.is_fallback else reply.text)
        outcome = Outcome.FAILED if reply.is_fallback else Outcome.SPOKEN
        return [Send(ReplyEnded(reply.number, outcome, items, reply.usage))]

    def end_turn(self, *, spoken: bool) -> ReplyTimes:
        """End the turn; return the times of its reply. Only a reply that was completed
        continues to play.
        """
        ended, self._registry.current = self.current, None
        if ended is not None:
            self._registry.requests.pop(ended.number, None)
        if not spoken:
            self.playback.playing = None
        # If the history was cleared during the turn, its question is deleted, too.
        if self._registry.history_cleared:
            self.history.delete(self._question)
        self._question = ""
        return ended.times if ended is not None else ReplyTimes()

    @property
    def speaking_fallback(self) -> bool:
        """Whether the current reply is only an apology."""
        return self.current is not None and self.current.is_fallback

    def start_fallback_message(self) -> list[Effect]:
        """Speak the apology because the model has failed, if nothing of the reply was
        spoken. Return no effects otherwise.
        """
        if self._fallback_message is None or self.current is None or not self.current.may_fall_back:
            return []
        apology = self._fallback_message.to(self._asked)
        return self.current.start_fallback(apology) if apology else []

    def fail_out_of_band(self, event: ev.ReplyFailed, now_ms: int) -> list[Effect]:
        """The model or the synthesiser of an out-of-band reply has failed."""
        return self._break_out_of_band(
            self._registry.out_of_band[event.reply], Outcome.FAILED, now_ms, event
        )

    def stop_out_of_band(self, now_ms: int, number: int | None = None) -> list[Effect]:
        """Stop the out-of-band reply of that number; None: all out-of-band replies."""
        stopped = [
            reply for reply in self._registry.out_of_band.values() if number in (None, reply.number)
        ]
        effects: list[Effect] = []
        for reply in stopped:
            effects += self._break_out_of_band(reply, Outcome.CANCELED, now_ms)
        return effects

    # --- after a lost connection ------------------------------------------------------

    def snapshot(self, now_ms: int) -> RepliesSnapshot:
        """Return the replies and the history as they are now."""
        return self._registry.snapshot(self.playback.playing, self._asked, self._question, now_ms)

    def restore(self, kept: RepliesSnapshot, now_ms: int) -> None:
        """Continue from a snapshot. Nobody makes the reply in progress any more:
        ``speak_on`` or ``stop_current`` must follow.
        """
        self.playback.playing = self._registry.restore(kept, now_ms)
        self._asked, self._question = kept.asked, kept.question

    def note_heard(self, heard_ms: int | None, *, has_all: bool, now_ms: int) -> None:
        """The client of an interrupted reply has played ``heard_ms`` of it; None: it
        does not say. ``has_all``: it has received all audio that was sent.
        """
        reply = self.current or self.playback.playing
        if reply is None:
            return
        if heard_ms is not None:
            reply.clock.restore(max(heard_ms, reply.clock.sent_ms), heard_ms, now_ms)
        elif has_all:
            reply.clock.restore(reply.clock.sent_ms, reply.clock.sent_ms, now_ms)

    def speak_on(self, settings: Settings, now_ms: int) -> list[Effect]:
        """Cut the interrupted reply to what was heard, and begin another one that says
        the rest. No other one begins if nothing is left to say.
        """
        old = self.current or self.playback.playing
        assert old is not None
        request = self._registry.requests.get(old.number)
        if request is None:
            request = build_request(settings, ReplyOverrides())
        awaited = old.tools.split_unanswered() if old.tools.awaited else ()
        heard = "" if old.is_fallback else old.heard_text(now_ms)
        if self.current is not None:
            items = self._registry.remember(old, heard)
            ended = ReplyEnded(old.number, Outcome.CANCELED, items, old.usage)
            told = [Send(ReplyCut(old.number, heard, items)), Send(ended)]
            del self._registry.requests[old.number]
        else:
            told = [Send(ReplyCut(old.number, heard, self._registry.truncate(old, heard)))]
        self._registry.current = self.playback.playing = None
        return [*told, *self._say_rest(old, heard, request, awaited, now_ms)]

    def _say_rest(
        self,
        old: Reply,
        heard: str,
        request: ReplyRequest,
        awaited: tuple[ExchangeSnapshot, ...],
        now_ms: int,
    ) -> list[Effect]:
        rest = old.text[len(heard) :]
        if awaited:
            reply, started = self._begin_rest(request, now_ms)
            reply.tools.restore(awaited, old.tools.rounds)
            reply.tools.await_answers(now_ms)
            return [replace(started, awaits_tools=True), Send(ReplyBegun(reply.number, now_ms))]
        if old.is_fallback or (old.text_finished and not rest.strip()):
            return []
        if old.text_finished:
            reply, started = self._begin_rest(request, now_ms)
            said = [*reply.add_text(rest, now_ms), *reply.finish_text("stop", now_ms)]
            begun = Send(ReplyBegun(reply.number, now_ms))
            return [replace(started, scripted=True), begun, *said]
        reads_history = request.input is None and not self._registry.history_cleared
        unsaid: list[Message] = [] if reads_history else old.tools.messages(heard)
        if rest.strip():
            unsaid.append({"role": "assistant", "content": rest})
        if unsaid or old.tools.messages(heard):
            unsaid.append({"role": "user", "content": continue_prompt(old.text)})
        reply, started = self._begin_rest(request, now_ms, tuple(unsaid))
        said = reply.add_text(rest, now_ms) if rest.strip() else []
        return [started, Send(ReplyBegun(reply.number, now_ms)), *said]

    def _begin_rest(
        self, request: ReplyRequest, now_ms: int, unsaid: tuple[Message, ...] = ()
    ) -> tuple[Reply, StartReply]:
        reply, started = self._registry.begin(request, now_ms, unsaid)
        self._registry.current = self.playback.playing = reply
        return reply, started

    # --- playback and stopping --------------------------------------------------------

    def handle_playback(self, event: ev.AudioSent | Played, now_ms: int) -> list[Effect]:
        """Audio was sent, or played: release audio that may be sent now, and report the
        latency of the first audio.
        """
        playing = self._registry.out_of_band.get(event.reply, self.playback.playing)
        assert playing is not None
        effects: list[Effect] = []
        if isinstance(event, ev.AudioSent):
            breakdown = playing.audio_sent(event.end_ms, now_ms)
            if breakdown is not None:
                effects.append(RecordMetric(TurnTimed(breakdown)))
                effects.append(Send(LatencyMeasured(playing.number, breakdown)))
        else:
            playing.clock.note_played(event.played_ms, now_ms)
        return effects + self.release_audio(now_ms)

    def stop_current(self, now_ms: int, failed: ev.ReplyFailed | None = None) -> list[Effect]:
        """Stop the current reply; the history keeps what was heard of it. ``failed``:
        the failure, unless the reply was canceled.
        """
        if self._registry.uncommitted is not None:
            return self.drop_preemptive()
        if self.current is None:
            return []
        reply = self.current
        given_up = self.client_tools.abandon_calls(reply, STOPPED, ToolOutcome.CANCELED, now_ms)
        heard = "" if reply.is_fallback else reply.heard_text(now_ms)
        items = self._registry.remember(reply, heard)
        outcome = Outcome.CANCELED if failed is None else Outcome.FAILED
        fault, message = (None, "") if failed is None else (failed.fault, failed.message)
        ended = ReplyEnded(reply.number, outcome, items, reply.usage, fault, message)
        reply.discard_held_audio()
        stopped = StopReply(reply.number)
        return [stopped, *given_up, Send(ReplyCut(reply.number, heard, items)), Send(ended)]

    def delete_item(self, item_id: str) -> bool:
        """Delete an item of the history; return False if no item has this id."""
        return self._registry.delete_item(item_id)

    def clear_history(self) -> None:
        """Clear the history, including the turn in progress."""
        self.history.clear(keep=self._question if self._answering else "")
        self._registry.history_cleared = True

    @property
    def _answering(self) -> bool:
        return self.current is not None and self._registry.uncommitted is None

    # --- internals --------------------------------------------------------------------

    def _adopt(self, now_ms: int) -> list[Effect]:
        reply, uncommitted = self.current, self._registry.uncommitted
        assert reply is not None
        assert uncommitted is not None
        self._registry.uncommitted = None
        request = self._registry.requests[reply.number]
        self._registry.requests[reply.number] = replace(request, after=self.history.last_id)
        if reply.tools.asked_ms is not None:
            reply.tools.asked_ms = now_ms  # the client gets the call only now
        self.playback.playing = reply
        self._wasted -= 1
        used = RecordMetric(PreemptiveReplyEnded(used=True, saved_ms=now_ms - uncommitted.began_ms))
        begun = Send(ReplyBegun(reply.number, reply.begun_ms))
        return [AdoptReply(reply.number), used, begun, *uncommitted.withheld]

    def _withhold(self, effects: list[Effect]) -> list[Effect]:
        """Keep the notices of a preemptive reply until it is adopted; return the other
        effects.
        """
        if self._registry.uncommitted is None:
            return effects
        self._registry.uncommitted.withheld += [
            effect for effect in effects if isinstance(effect, Send)
        ]
        return [effect for effect in effects if not isinstance(effect, Send)]

    def _break_out_of_band(
        self, reply: Reply, outcome: Outcome, now_ms: int, failed: ev.ReplyFailed | None = None
    ) -> list[Effect]:
        given_up = self.client_tools.abandon_calls(reply, STOPPED, ToolOutcome.CANCELED, now_ms)
        reply.discard_held_audio()
        return [StopReply(reply.number), *given_up, *self._end_out_of_band(reply, outcome, failed)]

    def _end_out_of_band(
        self, reply: Reply, outcome: Outcome, failed: ev.ReplyFailed | None = None
    ) -> list[Effect]:
        del self._registry.out_of_band[reply.number]
        del self._registry.requests[reply.number]
        fault, message = (None, "") if failed is None else (failed.fault, failed.message)
        return [Send(ReplyEnded(reply.number, outcome, (), reply.usage, fault, message))]
