"""The reply side of a session: which reply is being made, which is still heard, and what is remembered of them.

A reply may be begun *early*, while it is not yet certain that the user has finished. Until it is adopted nothing of it
is told, nothing of it is remembered, and dropping it leaves no trace.
"""

from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from voicechat.errors import Status
from voicechat.session import events as ev
from voicechat.session.apology import Apology
from voicechat.session.deadlines import earliest_ms
from voicechat.session.dialogue import Dialogue
from voicechat.session.effects import (
    AdoptReply,
    ContinueReply,
    EarlyReply,
    Effect,
    ErrorReported,
    LatencyMeasured,
    Observe,
    Send,
    StartReply,
    StopReply,
    ToolEnded,
    TurnTimed,
)
from voicechat.session.limits import SessionLimits
from voicechat.session.reply import Reply
from voicechat.session.tool_calls import NO_ANSWER_IN_TIME, STOPPED, options_after_calls
from voicechat.session.turn_times import ReplyTimes, TurnTimes
from voicechat.session.vocabulary import ChatSettings, Settings, ToolOutcome
from voicechat.text.words import bare_words

ReplyEvent: TypeAlias = (
    ev.ReplyTextArrived
    | ev.ToolCalled
    | ev.ToolsUsed
    | ev.ReplyTextEnded
    | ev.SpeechSynthesized
    | ev.SentenceSynthesized
    | ev.SpeechEnded
)


@dataclass(slots=True)
class _Early:
    """A reply that has not been adopted."""

    text: str
    """What the user is supposed to have said."""
    began_ms: int
    withheld: list[Effect] = field(default_factory=list)


class Speaking:
    """Numbers the replies, and knows what has been heard of them."""

    def __init__(self, limits: SessionLimits, apology: Apology | None = None) -> None:
        """``apology`` is said aloud when the chat model fails before anything was said."""
        self.current: Reply | None = None
        """The reply that is being made, or whose paced audio is leaving."""
        self.playing: Reply | None = None
        """The reply whose audio the listener may still be hearing."""
        self._limits = limits
        self._apology = apology
        self._asked = ""
        self._chat = ChatSettings()
        self._dialogue = Dialogue(limits.history_messages)
        self._replies = 0
        self._forgotten = False
        self._early: _Early | None = None
        self._wasted = 0

    @property
    def early(self) -> bool:
        """Whether the current reply was begun early and is not adopted."""
        return self._early is not None

    @property
    def wasted(self) -> int:
        """How many more early replies were dropped than adopted."""
        return self._wasted

    # --- a reply's life ----------------------------------------------------------------------------------------

    def begin_turn(self) -> None:
        """A turn begins: what is said in it is remembered, unless it is forgotten meanwhile."""
        self._forgotten = False

    def start(self, text: str, settings: Settings, times: TurnTimes, now_ms: int) -> list[Effect]:
        """Ask for the reply to ``text``; an early reply to the same words is adopted instead."""
        self._asked = text
        if self._early is not None and bare_words(self._early.text) == bare_words(text):
            effects = self._adopt(text, now_ms)
        else:
            effects = self.drop_early()
            self._dialogue.hear_user(text)
            effects.append(self._begin(settings, now_ms, ()))
        if self.current is not None:
            self.current.turn_times = times
        return effects

    def remember_user(self, text: str) -> None:
        """The user said ``text``, and nobody is to answer it now: what is said next is understood after it."""
        self._dialogue.hear_user(text)

    def start_early(self, text: str, settings: Settings, now_ms: int) -> list[Effect]:
        """Begin a reply to ``text``, in case that was all; the one begun before for other words is dropped."""
        if self._early is not None and bare_words(self._early.text) == bare_words(text):
            return []
        effects = self.drop_early()
        started = self._begin(settings, now_ms, ({"role": "user", "content": text},))
        self._early = _Early(text, now_ms)
        return [*effects, started]

    def drop_early(self) -> list[Effect]:
        """The user goes on: forget the early reply, if there is one."""
        if self._early is None or self.current is None:
            return []
        stopped: list[Effect] = [StopReply(self.current.number), Observe(EarlyReply(used=False, saved_ms=0))]
        self._early = self.current = None
        self._wasted += 1
        return stopped

    def take(self, event: ReplyEvent, now_ms: int) -> list[Effect]:
        """Take what the model or the synthesiser made."""
        reply = self.current
        assert reply is not None
        match event:
            case ev.SpeechSynthesized():
                effects = reply.add_audio(event, now_ms)
            case ev.ReplyTextArrived():
                effects = reply.add_text(event.text, now_ms)
            case ev.ToolCalled():
                may_call = reply.tools.rounds < self._limits.tool_rounds
                effects = reply.call_tool(event.call, now_ms) if may_call else []
            case ev.ToolsUsed():
                answers = event.exchange.answers
                effects = reply.use_tools(event.exchange, now_ms)
                effects += [Observe(ToolEnded(done.tool, done.outcome, done.took_ms)) for done in answers]
            case ev.SentenceSynthesized():
                reply.finish_sentence(event.sentence)
                effects = []
            case ev.ReplyTextEnded():
                effects = reply.pause_text(event.finish_reason, now_ms)
            case ev.SpeechEnded():
                effects = reply.finish_audio(now_ms)
            case _:
                assert_never(event)
        return self._withhold(effects)

    def release(self, now_ms: int) -> list[Effect]:
        """Let go the paced audio whose time has come."""
        return [] if self.current is None else self._withhold(self.current.release(now_ms))

    def deadline_ms(self) -> int | None:
        """When ``tick`` is due."""
        reply = self.current
        if reply is None:
            return None
        hurry_at_ms = reply.hurry_at_ms(self._limits.speakable_wait_ms)
        if self._early is not None:
            return hurry_at_ms
        return earliest_ms(hurry_at_ms, reply.release_at_ms(), self._answers_due_ms)

    def tick(self, now_ms: int) -> list[Effect]:
        """Do what is due: speak text that has waited too long, let paced audio go, wait no longer for answers."""
        reply = self.current
        if reply is None:
            return []
        effects: list[Effect] = []
        hurry_at_ms = reply.hurry_at_ms(self._limits.speakable_wait_ms)
        if hurry_at_ms is not None and now_ms >= hurry_at_ms:
            effects += self._withhold(reply.hurry(now_ms))
        if self._early is None:
            effects += self.release(now_ms)
        due_ms = self._answers_due_ms
        if due_ms is not None and now_ms >= due_ms and not reply.spoken:
            effects += [*self._give_up(reply, NO_ANSWER_IN_TIME, ToolOutcome.TIMEOUT, now_ms), *self._go_on(reply)]
        return effects

    def finish(self) -> bool:
        """Whether the current reply has just been spoken to its end; then it is remembered whole."""
        if self.current is None or self._early is not None or not self.current.spoken:
            return False
        reply = self.current
        self._dialogue.say(reply.number, reply.tools.messages("" if reply.apologises else reply.text))
        return True

    def end_turn(self, *, spoken: bool) -> ReplyTimes:
        """The turn is over; say how far its reply came. Only a reply that was spoken is still heard."""
        ended, self.current = self.current, None
        if not spoken:
            self.playing = None
        if self._forgotten:  # conversation.clear during the turn: the turn went on and is not remembered
            self._dialogue.forget()
        return ended.times if ended is not None else ReplyTimes()

    @property
    def apologising(self) -> bool:
        """Whether the current reply has come to nothing but an apology."""
        return self.current is not None and self.current.apologises

    def apologise(self) -> list[Effect]:
        """The model has failed: say the apology, if nothing has been said. Empty: nothing is to be said."""
        if self._apology is None or self.current is None or not self.current.may_apologise:
            return []
        apology = self._apology.to(self._asked)
        return self.current.apologise(apology) if apology else []

    # --- the client's tools ------------------------------------------------------------------------------------

    @property
    def _awaited_calls(self) -> tuple[str, ...]:
        """The ids of the tool calls that the client has been told and has not answered."""
        return () if self.current is None or self._early is not None else self.current.tools.awaited

    @property
    def _answers_due_ms(self) -> int | None:
        """When the client must have answered."""
        asked_ms = self.current.tools.asked_ms if self.current is not None else None
        return asked_ms + self._limits.tool_answer_ms if asked_ms is not None and self._awaited_calls else None

    def answer_tool(self, event: ev.ToolAnswered, now_ms: int) -> list[Effect]:
        """The client carried out a call; after the last awaited one the model is asked how the reply goes on."""
        awaited, reply = self._awaited_calls, self.current
        if not awaited or reply is None or reply.tools.asked_ms is None:
            message = f"tool_call_id: {event.call_id!r}: no call awaits an answer"
            return [Send(ErrorReported(Status.NOT_ALLOWED_NOW, message))]
        if event.call_id not in awaited:
            message = f"tool_call_id: {event.call_id!r} is not one of the calls that await an answer"
            return [Send(ErrorReported(Status.INVALID_PARAMETER, message))]
        reply.tools.answer(event.call_id, event.content)
        ended = Observe(ToolEnded("", ToolOutcome.ANSWERED, now_ms - reply.tools.asked_ms))
        return [ended, *self._go_on(reply)]

    def _give_up(self, reply: Reply, why: str, outcome: ToolOutcome, now_ms: int) -> list[Effect]:
        since_ms = reply.tools.asked_ms
        if since_ms is None:
            return []
        return [Observe(ToolEnded("", outcome, now_ms - since_ms))] * reply.tools.give_up(why)

    def _go_on(self, reply: Reply) -> list[Effect]:
        if reply.tools.awaited:
            return []
        reply.tools.asked_ms = None
        messages = (*self._chat.messages, *self._dialogue.messages, *reply.tools.messages(reply.text))
        options = options_after_calls(self._chat.options, may_call=reply.tools.rounds < self._limits.tool_rounds)
        return [ContinueReply(reply.number, messages, options)]

    # --- playback ----------------------------------------------------------------------------------------------

    def play(self, event: ev.AudioSent | ev.PlaybackReported, now_ms: int, *, report_latency: bool) -> list[Effect]:
        """Audio left, or was played: let go what may leave now, and tell how long the first of it took."""
        playing = self.playing
        assert playing is not None
        effects: list[Effect] = []
        if isinstance(event, ev.AudioSent):
            waterfall = playing.audio_sent(event.end_ms, now_ms)
            if waterfall is not None:
                effects.append(Observe(TurnTimed(waterfall)))
            if waterfall is not None and report_latency:
                effects.append(Send(LatencyMeasured(playing.number, waterfall)))
        else:
            playing.clock.played(event.played_ms, now_ms)
        return effects + self.release(now_ms)

    # --- stopping, and what was heard --------------------------------------------------------------------------

    def stop(self, now_ms: int) -> list[Effect]:
        """Stop the current reply; remember what was heard of it."""
        if self._early is not None:
            return self.drop_early()
        if self.current is None:
            return []
        reply = self.current
        given_up = self._give_up(reply, STOPPED, ToolOutcome.CANCELED, now_ms)
        self._dialogue.say(reply.number, reply.tools.messages(reply.heard(now_ms)))
        return [StopReply(reply.number), *given_up]

    def silence(self, now_ms: int) -> list[Effect]:
        """Stop what is still heard of a reply that was made to its end; of it too, remember what was heard."""
        effects: list[Effect] = []
        if self.playing is not None and self.playing.audible(now_ms):
            effects.append(StopReply(self.playing.number))
            self._dialogue.cut(self.playing.number, self.playing.tools.messages(self.playing.heard(now_ms)))
        self.playing = None
        return effects

    def forget(self) -> None:
        """Forget the conversation, the running turn included."""
        self._dialogue.forget(keep_question=self.current is not None and self._early is None)
        self._forgotten = True

    def audible(self, now_ms: int) -> bool:
        """Whether the last reply is still heard."""
        return self.playing is not None and self.playing.audible(now_ms)

    @property
    def heard_ms(self) -> int | None:
        """When the last reply has been, or will have been, heard, by the clock; None: not all of it was sent."""
        return self.playing.silent_at_ms if self.playing is not None else 0

    def silent_at_ms(self, now_ms: int) -> int | None:
        """When the last reply will have been heard, by the clock; None: it has been, or not all of it was sent."""
        return self.playing.silent_at_ms if self.playing is not None and self.playing.audible(now_ms) else None

    # --- within ------------------------------------------------------------------------------------------------

    def _begin(self, settings: Settings, now_ms: int, unsaid: tuple[dict[str, object], ...]) -> StartReply:
        self._replies += 1
        self._chat = settings.chat
        self.current = Reply(
            self._replies, now_ms, settings.effective_lead_ms, answers_tools=settings.chat.answers_tools
        )
        if not unsaid:
            self.playing = self.current
        messages = (*settings.chat.messages, *self._dialogue.messages, *unsaid)
        return StartReply(self._replies, messages, settings.chat, settings.voice, early=bool(unsaid))

    def _adopt(self, text: str, now_ms: int) -> list[Effect]:
        assert self._early is not None
        assert self.current is not None
        early, self._early = self._early, None
        if self.current.tools.asked_ms is not None:
            self.current.tools.asked_ms = now_ms  # only now the client learns of it
        self._dialogue.hear_user(text)
        self.playing = self.current
        self._wasted -= 1
        used = Observe(EarlyReply(used=True, saved_ms=now_ms - early.began_ms))
        return [AdoptReply(self.current.number), used, *early.withheld]

    def _withhold(self, effects: list[Effect]) -> list[Effect]:
        """Keep back what an early reply would tell; what it needs to be made goes on."""
        if self._early is None:
            return effects
        self._early.withheld += [effect for effect in effects if isinstance(effect, Send)]
        return [effect for effect in effects if not isinstance(effect, Send)]
