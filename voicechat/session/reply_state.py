"""The reply side of a session: which reply is being made, which is still heard, and
what is remembered.

A reply may be begun *early*, while it is not yet certain that the user has finished.
Until it is adopted nothing of it is told, nothing of it is remembered, and dropping it
leaves no trace. An *out-of-band* reply is no part of the conversation: it is made
beside the current one, and nothing of it is remembered either.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from voicechat.session import events as ev
from voicechat.session.commands import AnswerTool, Played, Respond, TruncateReply
from voicechat.session.effects import (
    AdoptReply,
    ContinueReply,
    Effect,
    PreemptiveReplyEnded,
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
    Outcome,
    Rejected,
    ReplyBegun,
    ReplyCut,
    ReplyEnded,
    UserSaid,
    Why,
)
from voicechat.session.reply import Reply, ReplyMade
from voicechat.session.tool_calls import NO_ANSWER_IN_TIME, STOPPED, options_after_calls
from voicechat.session.turn_times import ReplyTimes, TurnTimes
from voicechat.session.types import (
    ChatSettings,
    Item,
    Message,
    ReplyOverrides,
    Settings,
    ToolOutcome,
    VoiceSettings,
)
from voicechat.text.words import bare_words

REPLIES_KEPT = 8
"""Replies whose timing is kept, so that it can still be said later how much of them was
heard.
"""
MAX_OUT_OF_BAND = 4
"""Out-of-band replies that may be in progress at once."""


@dataclass(slots=True)
class _Uncommitted:
    """A reply that has not been adopted."""

    text: str
    """What the user is supposed to have said."""
    began_ms: int
    withheld: list[Effect] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _ReplyRequest:
    """What the chat model is asked for one reply: the settings with the reply's
    overrides applied.
    """

    chat: ChatSettings
    voice: VoiceSettings
    voiced: bool
    input: tuple[Message, ...] | None
    lead_ms: int | None
    after: str = ""
    """The item behind which the reply stands in the history; empty: it is the first."""

    def messages(self, remembered: tuple[Message, ...]) -> tuple[Message, ...]:
        """Put together what the model reads."""
        instructions = self.chat.instructions
        system: tuple[Message, ...] = ()
        if instructions:
            system = ({"role": "system", "content": instructions},)
        if self.input is not None:
            return (*system, *self.input)
        return (*system, *self.chat.messages, *remembered)


def _request(settings: Settings, overrides: ReplyOverrides) -> _ReplyRequest:
    chat = settings.chat
    if overrides.instructions is not None:
        chat = replace(chat, instructions=overrides.instructions)
    if overrides.options is not None:
        chat = replace(chat, options={**chat.options, **overrides.options})
    if overrides.answers_tools is not None:
        chat = replace(chat, answers_tools=overrides.answers_tools)
    voiced = settings.spoken if overrides.spoken is None else overrides.spoken
    voice = settings.voice if overrides.voice is None else overrides.voice
    return _ReplyRequest(chat, voice, voiced, overrides.input, settings.effective_lead_ms)


class ReplyState:
    """Numbers the replies, and knows what has been heard of them."""

    def __init__(
        self, limits: SessionLimits, fallback_message: FallbackMessage | None = None
    ) -> None:
        """``fallback_message`` is spoken when the chat model fails before any of its
        reply was.
        """
        self.current: Reply | None = None
        """The reply that is being made, or whose paced audio is leaving."""
        self.playing: Reply | None = None
        """The reply whose audio the listener may still be hearing."""
        self.history = History(limits.history_messages)
        self._limits = limits
        self._fallback_message = fallback_message
        self._asked = ""
        self._question = ""
        """The item that the turn answers, so that forgetting the rest leaves it."""
        self._requests: dict[int, _ReplyRequest] = {}
        """Of the replies in progress."""
        self._out_of_band: dict[int, Reply] = {}
        self._told: OrderedDict[int, Reply] = OrderedDict()
        self._replies = 0
        self._forgotten = False
        self._preemptive: _Uncommitted | None = None
        self._wasted = 0

    @property
    def preemptive(self) -> bool:
        """Whether the current reply was begun early and is not adopted."""
        return self._preemptive is not None

    @property
    def wasted(self) -> int:
        """How many more preemptive replies were dropped than adopted."""
        return self._wasted

    def in_progress(self, number: int) -> Reply | None:
        """The reply of that number, if it is being made: the current one, or one
        apart.
        """
        if self.current is not None and self.current.number == number:
            return self.current
        return self._out_of_band.get(number)

    # --- a reply's life ---------------------------------------------------------------

    def begin_turn(self) -> None:
        """A turn begins: what is said in it is remembered, unless it is forgotten
        meanwhile.
        """
        self._forgotten = False
        self._question = ""

    def add_user_message(self, text: str) -> list[Effect]:
        """The user's turn was ``text``: remember it."""
        item = self.history.add({"role": "user", "content": text})
        self._asked, self._question = text, item.id
        return [Send(UserSaid(item))]

    def add_unanswered_message(self, text: str) -> list[Effect]:
        """The user said ``text`` while a reply was made, which goes on: remember it."""
        return [Send(UserSaid(self.history.add({"role": "user", "content": text})))]

    def answer_user(
        self, text: str, settings: Settings, asked: Respond, times: TurnTimes, now_ms: int
    ) -> list[Effect]:
        """Remember what the user said and answer it; a preemptive reply to the same
        words becomes the answer.
        """
        adopts = asked.overrides == ReplyOverrides() and self._begun_for(text)
        dropped = [] if adopts else self.drop_preemptive()
        heard = self.add_user_message(text)
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
        """Ask for the reply to what is remembered."""
        effects = self.drop_preemptive()
        request = _request(settings, asked.overrides)
        reply, started = self._begin(request, now_ms)
        self.current = self.playing = reply
        reply.turn_times = times
        return [*effects, started, Send(ReplyBegun(reply.number, now_ms, asked.cause))]

    def start_out_of_band(self, settings: Settings, asked: Respond, now_ms: int) -> list[Effect]:
        """Ask for a reply that is no part of the conversation."""
        if len(self._out_of_band) >= MAX_OUT_OF_BAND:
            message = f"{MAX_OUT_OF_BAND} out-of-band replies are in progress already"
            return [Send(Rejected(asked.cause, Why.TOO_MANY, message))]
        reply, started = self._begin(_request(settings, asked.overrides), now_ms)
        self._out_of_band[reply.number] = reply
        return [started, Send(ReplyBegun(reply.number, now_ms, asked.cause))]

    def say_text(self, text: str, settings: Settings, now_ms: int) -> list[Effect]:
        """Say ``text``, which nobody was asked for: a greeting, a question after
        silence, a goodbye.
        """
        effects = self.drop_preemptive()
        request = _request(settings, ReplyOverrides(input=()))
        reply, started = self._begin(request, now_ms)
        self.current = self.playing = reply
        scripted = replace(started, scripted=True)
        said = [*reply.add_text(text, now_ms), *reply.finish_text("stop", now_ms)]
        return [*effects, scripted, Send(ReplyBegun(reply.number, now_ms)), *said]

    def start_preemptive(self, text: str, settings: Settings, now_ms: int) -> list[Effect]:
        """Begin a reply to ``text``, in case that was all; the one begun before for
        other words is dropped.
        """
        if self._begun_for(text):
            return []
        effects = self.drop_preemptive()
        question: Message = {"role": "user", "content": text}
        reply, started = self._begin(_request(settings, ReplyOverrides()), now_ms, (question,))
        self.current = reply
        self._preemptive = _Uncommitted(text, now_ms)
        return [*effects, replace(started, preemptive=True)]

    def drop_preemptive(self) -> list[Effect]:
        """The user goes on: forget the preemptive reply, if there is one."""
        if self._preemptive is None or self.current is None:
            return []
        stopped: list[Effect] = [
            StopReply(self.current.number),
            RecordMetric(PreemptiveReplyEnded(used=False, saved_ms=0)),
        ]
        del self._requests[self.current.number]
        self._preemptive = self.current = None
        self._wasted += 1
        return stopped

    def handle_event(self, event: ReplyMade, now_ms: int) -> list[Effect]:
        """Take what the model or the synthesiser made for a reply in progress."""
        reply = self.in_progress(event.reply)
        assert reply is not None
        if isinstance(event, ev.ToolCalled) and reply.tools.rounds >= self._limits.tool_rounds:
            return []
        effects = reply.handle_event(event, now_ms)
        if isinstance(event, ev.ToolsUsed):
            answers = event.exchange.answers
            effects += [
                RecordMetric(ToolEnded(done.tool, done.outcome, done.took_ms)) for done in answers
            ]
        if reply is self.current:
            return self._withhold(effects)
        if reply.spoken:
            effects += self._end_out_of_band(reply, Outcome.SPOKEN)
        return effects

    def release_audio(self, now_ms: int) -> list[Effect]:
        """Let go the paced audio whose time has come."""
        effects: list[Effect] = []
        if self.current is not None and self._preemptive is None:
            effects += self.current.release_audio(now_ms)
        for reply in list(self._out_of_band.values()):
            effects += reply.release_audio(now_ms)
            if reply.spoken:
                effects += self._end_out_of_band(reply, Outcome.SPOKEN)
        return effects

    def deadline_ms(self) -> int | None:
        """When ``tick`` is due."""
        due_ms: list[int | None] = []
        for reply in self._in_progress():
            due_ms.append(reply.cut_unfinished_at_ms(self._limits.speakable_wait_ms))
            if reply is not self.current or self._preemptive is None:
                due_ms += [reply.release_at_ms(), self._answers_due_ms(reply)]
        return earliest_ms(*due_ms)

    def tick(self, now_ms: int) -> list[Effect]:
        """Do what is due: speak text that has waited too long, let paced audio go, wait
        no longer for answers.
        """
        effects: list[Effect] = []
        for reply in list(self._in_progress()):
            hurry_at_ms = reply.cut_unfinished_at_ms(self._limits.speakable_wait_ms)
            if hurry_at_ms is not None and now_ms >= hurry_at_ms:
                hurried = reply.cut_unfinished(now_ms)
                effects += self._withhold(hurried) if reply is self.current else hurried
        effects += self.release_audio(now_ms)
        for reply in list(self._in_progress()):
            due_ms = self._answers_due_ms(reply)
            if due_ms is not None and now_ms >= due_ms and not reply.spoken:
                effects += self._give_up(reply, NO_ANSWER_IN_TIME, ToolOutcome.TIMEOUT, now_ms)
                effects += self._go_on(reply)
        return effects

    def finish_spoken(self) -> list[Effect]:
        """If the current reply has just been spoken to its end, remember it whole; else
        empty.
        """
        if self.current is None or self._preemptive is not None or not self.current.spoken:
            return []
        reply = self.current
        items = self._remember(reply, "" if reply.is_fallback else reply.text)
        outcome = Outcome.FAILED if reply.is_fallback else Outcome.SPOKEN
        return [Send(ReplyEnded(reply.number, outcome, items, reply.usage))]

    def end_turn(self, *, spoken: bool) -> ReplyTimes:
        """The turn is over; say how far its reply came. Only a reply that was spoken is
        still heard.
        """
        ended, self.current = self.current, None
        if ended is not None:
            self._requests.pop(ended.number, None)
        if not spoken:
            self.playing = None
        if (
            self._forgotten
        ):  # the turn went on although the history was cleared: it is not remembered
            self.history.delete(self._question)
        self._question = ""
        return ended.times if ended is not None else ReplyTimes()

    @property
    def speaking_fallback(self) -> bool:
        """Whether the current reply has come to nothing but an apology."""
        return self.current is not None and self.current.is_fallback

    def start_fallback_message(self) -> list[Effect]:
        """The model has failed: say the apology, if nothing has been said. Empty:
        nothing is to be said.
        """
        if self._fallback_message is None or self.current is None or not self.current.may_fall_back:
            return []
        apology = self._fallback_message.to(self._asked)
        return self.current.start_fallback(apology) if apology else []

    def fail_out_of_band(self, event: ev.ReplyFailed, now_ms: int) -> list[Effect]:
        """The model or the synthesiser of an out-of-band reply has failed."""
        return self._break_out_of_band(
            self._out_of_band[event.reply], Outcome.FAILED, now_ms, event
        )

    def stop_out_of_band(self, now_ms: int, number: int | None = None) -> list[Effect]:
        """Stop the out-of-band reply of that number; None: all of them."""
        stopped = [reply for reply in self._out_of_band.values() if number in (None, reply.number)]
        effects: list[Effect] = []
        for reply in stopped:
            effects += self._break_out_of_band(reply, Outcome.CANCELED, now_ms)
        return effects

    # --- the client's tools -----------------------------------------------------------

    def _awaited_calls(self, reply: Reply) -> tuple[str, ...]:
        """The ids of the tool calls that the client has been told and has not
        answered.
        """
        return () if reply is self.current and self._preemptive is not None else reply.tools.awaited

    def _answers_due_ms(self, reply: Reply) -> int | None:
        """When the client must have answered."""
        asked_ms = reply.tools.asked_ms
        if asked_ms is None or not self._awaited_calls(reply):
            return None
        return asked_ms + self._limits.tool_answer_ms

    def answer_tool(self, command: AnswerTool, now_ms: int) -> list[Effect]:
        """The client carried out a call; after the last awaited one the model is asked
        how the reply goes on.
        """
        waiting = [reply for reply in self._in_progress() if self._awaited_calls(reply)]
        for reply in waiting:
            asked_ms = reply.tools.asked_ms
            if asked_ms is None or command.call_id not in self._awaited_calls(reply):
                continue
            reply.tools.answer_call(command.call_id, command.content)
            ended = RecordMetric(ToolEnded("", ToolOutcome.ANSWERED, now_ms - asked_ms))
            return [ended, *self._go_on(reply)]
        why = Why.OTHER_CALL if waiting else Why.NO_CALL
        return [Send(Rejected(command.cause, why, f"{command.call_id!r}: {why.value}"))]

    def _give_up(self, reply: Reply, why: str, outcome: ToolOutcome, now_ms: int) -> list[Effect]:
        since_ms = reply.tools.asked_ms
        if since_ms is None:
            return []
        return [
            RecordMetric(ToolEnded("", outcome, now_ms - since_ms))
        ] * reply.tools.abandon_calls(why)

    def _go_on(self, reply: Reply) -> list[Effect]:
        if reply.tools.awaited:
            return []
        reply.tools.asked_ms = None
        request = self._requests[reply.number]
        messages = (*request.messages(self.history.messages), *reply.tools.messages(reply.text))
        may_call = reply.tools.rounds < self._limits.tool_rounds
        options = options_after_calls(request.chat.options, may_call=may_call)
        return [ContinueReply(reply.number, messages, options)]

    # --- playback ---------------------------------------------------------------------

    def is_playing(self, number: int) -> bool:
        """Whether the listener may be hearing the reply of that number."""
        playing = self.playing is not None and self.playing.number == number
        return playing or number in self._out_of_band

    def handle_playback(self, event: ev.AudioSent | Played, now_ms: int) -> list[Effect]:
        """Audio left, or was played: let go what may leave now, and tell how long the
        first of it took.
        """
        playing = self._out_of_band.get(event.reply, self.playing)
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

    # --- stopping, and what was heard -------------------------------------------------

    def stop_current(self, now_ms: int, failed: ev.ReplyFailed | None = None) -> list[Effect]:
        """Stop the current reply; remember what was heard of it. ``failed``: why,
        unless it was canceled.
        """
        if self._preemptive is not None:
            return self.drop_preemptive()
        if self.current is None:
            return []
        reply = self.current
        given_up = self._give_up(reply, STOPPED, ToolOutcome.CANCELED, now_ms)
        heard = "" if reply.is_fallback else reply.heard_text(now_ms)
        items = self._remember(reply, heard)
        outcome = Outcome.CANCELED if failed is None else Outcome.FAILED
        fault, message = (None, "") if failed is None else (failed.fault, failed.message)
        ended = ReplyEnded(reply.number, outcome, items, reply.usage, fault, message)
        stopped = StopReply(reply.number)
        return [stopped, *given_up, Send(ReplyCut(reply.number, heard, items)), Send(ended)]

    def stop_playback(self, now_ms: int) -> list[Effect]:
        """Stop what is still heard of a reply that was made to its end; of it too,
        remember what was heard.
        """
        playing, self.playing = self.playing, None
        if playing is None or not playing.audible(now_ms):
            return []
        heard = "" if playing.is_fallback else playing.heard_text(now_ms)
        items = self.history.truncate_reply(playing.number, playing.tools.messages(heard))
        return [StopReply(playing.number), Send(ReplyCut(playing.number, heard, items))]

    def truncate_reply(self, command: TruncateReply) -> ReplyCut | Rejected:
        """Remember of a reply only what was heard by ``heard_ms`` of its audio; say why
        that cannot be.
        """
        reply = self._told.get(command.reply)
        if reply is None or not reply.voiced or not self.history.holds_reply(reply.number):
            return Rejected(command.cause, Why.NO_REPLY, Why.NO_REPLY.value)
        if command.heard_ms > reply.made_ms:
            message = f"it is {reply.made_ms} ms long, not {command.heard_ms}"
            return Rejected(command.cause, Why.TOO_LONG, message)
        heard = reply.heard_text_until(command.heard_ms)
        items = self.history.truncate_reply(reply.number, reply.tools.messages(heard))
        return ReplyCut(reply.number, heard, items)

    def clear_history(self) -> None:
        """Forget the conversation, the running turn included."""
        self.history.clear(keep=self._question if self._answering else "")
        self._forgotten = True

    @property
    def _answering(self) -> bool:
        return self.current is not None and self._preemptive is None

    def audible(self, now_ms: int) -> bool:
        """Whether the last reply is still heard."""
        return self.playing is not None and self.playing.audible(now_ms)

    @property
    def heard_ms(self) -> int | None:
        """When the last reply has been, or will have been, heard, by the clock; None:
        not all of it was sent.
        """
        return self.playing.silent_at_ms if self.playing is not None else 0

    def silent_at_ms(self, now_ms: int) -> int | None:
        """When the last reply will have been heard, by the clock; None: it has been, or
        not all of it was sent.
        """
        playing = self.playing
        return playing.silent_at_ms if playing is not None and playing.audible(now_ms) else None

    # --- within -----------------------------------------------------------------------

    def _in_progress(self) -> Iterator[Reply]:
        if self.current is not None:
            yield self.current
        yield from self._out_of_band.values()

    def _begin(
        self, request: _ReplyRequest, now_ms: int, unsaid: tuple[Message, ...] = ()
    ) -> tuple[Reply, StartReply]:
        self._replies += 1
        number = self._replies
        reply = Reply(
            number,
            now_ms,
            request.lead_ms,
            answers_tools=request.chat.answers_tools,
            voiced=request.voiced,
        )
        self._requests[number] = replace(request, after=self.history.last_id)
        self._told[number] = reply
        while len(self._told) > REPLIES_KEPT:
            self._told.popitem(last=False)
        messages = request.messages((*self.history.messages, *unsaid))
        started = StartReply(number, messages, request.chat, request.voice, voiced=request.voiced)
        return reply, started

    def _remember(self, reply: Reply, text: str) -> tuple[Item, ...]:
        """Remember ``text`` of the current reply, and its tools, where the reply
        began.
        """
        if self._forgotten:
            return ()
        messages = reply.tools.messages(text)
        return self.history.set_reply(reply.number, messages, self._requests[reply.number].after)

    def _begun_for(self, text: str) -> bool:
        """Whether there is a preemptive reply to these words."""
        return self._preemptive is not None and bare_words(self._preemptive.text) == bare_words(
            text
        )

    def _adopt(self, now_ms: int) -> list[Effect]:
        assert self._preemptive is not None
        assert self.current is not None
        uncommitted, self._preemptive = self._preemptive, None
        request = self._requests[self.current.number]
        self._requests[self.current.number] = replace(request, after=self.history.last_id)
        if self.current.tools.asked_ms is not None:
            self.current.tools.asked_ms = now_ms  # only now the client learns of it
        self.playing = self.current
        self._wasted -= 1
        used = RecordMetric(PreemptiveReplyEnded(used=True, saved_ms=now_ms - uncommitted.began_ms))
        begun = Send(ReplyBegun(self.current.number, self.current.begun_ms))
        return [AdoptReply(self.current.number), used, begun, *uncommitted.withheld]

    def _withhold(self, effects: list[Effect]) -> list[Effect]:
        """Keep back what a preemptive reply would tell; what it needs to be made goes
        on.
        """
        if self._preemptive is None:
            return effects
        self._preemptive.withheld += [effect for effect in effects if isinstance(effect, Send)]
        return [effect for effect in effects if not isinstance(effect, Send)]

    def _break_out_of_band(
        self, reply: Reply, outcome: Outcome, now_ms: int, failed: ev.ReplyFailed | None = None
    ) -> list[Effect]:
        given_up = self._give_up(reply, STOPPED, ToolOutcome.CANCELED, now_ms)
        return [StopReply(reply.number), *given_up, *self._end_out_of_band(reply, outcome, failed)]

    def _end_out_of_band(
        self, reply: Reply, outcome: Outcome, failed: ev.ReplyFailed | None = None
    ) -> list[Effect]:
        del self._out_of_band[reply.number]
        del self._requests[reply.number]
        fault, message = (None, "") if failed is None else (failed.fault, failed.message)
        return [Send(ReplyEnded(reply.number, outcome, (), reply.usage, fault, message))]
