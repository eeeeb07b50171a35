"""The reply side of a session: which reply is being made, which is still heard, and what is remembered of them.

A reply may be begun *early*, while it is not yet certain that the user has finished. Until it is adopted nothing of it
is told, nothing of it is remembered, and dropping it leaves no trace.
"""

from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from voicechat.session import events as ev
from voicechat.session.dialogue import Dialogue
from voicechat.session.effects import EarlyReply, Effect, Observe, Send, StartReply, StopReply
from voicechat.session.reply import Reply
from voicechat.session.vocabulary import Settings
from voicechat.text.words import bare_words

ReplyEvent: TypeAlias = (
    ev.ReplyTextArrived
    | ev.ToolCalled
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

    def __init__(self, history_messages: int) -> None:
        self.current: Reply | None = None
        """The reply that is being made, or whose paced audio is leaving."""
        self.playing: Reply | None = None
        """The reply whose audio the listener may still be hearing."""
        self._dialogue = Dialogue(history_messages)
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

    def start(self, text: str, settings: Settings, now_ms: int) -> list[Effect]:
        """Ask for the reply to ``text``; an early reply to the same words is adopted instead."""
        if self._early is not None and bare_words(self._early.text) == bare_words(text):
            return self._adopt(text, now_ms)
        effects = self.drop_early()
        self._dialogue.hear_user(text)
        return [*effects, self._begin(settings, now_ms, ())]

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
                effects = reply.call_tool(event.call, now_ms)
            case ev.SentenceSynthesized():
                reply.finish_sentence(event.sentence)
                effects = []
            case ev.ReplyTextEnded():
                effects = reply.finish_text(event.finish_reason, now_ms)
            case ev.SpeechEnded():
                effects = reply.finish_audio(now_ms)
            case _:
                assert_never(event)
        return self._withhold(effects)

    def hurry(self, now_ms: int) -> list[Effect]:
        """Speak text that has waited too long."""
        return [] if self.current is None else self._withhold(self.current.hurry(now_ms))

    def release(self, now_ms: int) -> list[Effect]:
        """Let go the paced audio whose time has come."""
        return [] if self.current is None else self._withhold(self.current.release(now_ms))

    def finish(self) -> bool:
        """Whether the current reply has just been spoken to its end; then it is remembered whole."""
        if self.current is None or self._early is not None or not self.current.spoken:
            return False
        self._dialogue.say(self.current.number, "" if self.current.apologises else self.current.text)
        return True

    def end_turn(self, *, spoken: bool) -> Reply | None:
        """The turn is over; give its reply, if there was one. Only a reply that was spoken is still heard."""
        ended, self.current = self.current, None
        if not spoken:
            self.playing = None
        if self._forgotten:  # conversation.clear during the turn: the turn went on and is not remembered
            self._dialogue.forget()
        return ended

    @property
    def apologising(self) -> bool:
        """Whether the current reply has come to nothing but an apology."""
        return self.current is not None and self.current.apologises

    def apologise(self, apology: str) -> list[Effect]:
        """The model has failed: say ``apology``, if nothing has been said. Empty: nothing is to be said."""
        if not apology or self.current is None or self.current.begun_speaking:
            return []
        return self.current.apologise(apology)

    # --- stopping, and what was heard --------------------------------------------------------------------------

    def stop(self, now_ms: int) -> list[Effect]:
        """Stop the current reply; remember what was heard of it."""
        if self._early is not None:
            return self.drop_early()
        if self.current is None:
            return []
        self._dialogue.say(self.current.number, self.current.heard(now_ms))
        return [StopReply(self.current.number)]

    def silence(self, now_ms: int) -> list[Effect]:
        """Stop what is still heard of a reply that was made to its end; of it too, remember what was heard."""
        effects: list[Effect] = []
        if self.playing is not None and self.playing.audible(now_ms):
            effects.append(StopReply(self.playing.number))
            self._dialogue.cut(self.playing.number, self.playing.heard(now_ms))
        self.playing = None
        return effects

    def forget(self) -> None:
        """Forget the conversation, the running turn included."""
        self._dialogue.forget()
        self._forgotten = True

    def audible_until_ms(self, now_ms: int) -> int | None:
        """Until when the last reply is heard, by the clock; None when it is not."""
        return self.playing.audible_until_ms if self.playing is not None and self.playing.audible(now_ms) else None

    # --- within ------------------------------------------------------------------------------------------------

    def _begin(self, settings: Settings, now_ms: int, unsaid: tuple[dict[str, object], ...]) -> StartReply:
        self._replies += 1
        self.current = Reply(self._replies, now_ms, settings.effective_lead_ms)
        if not unsaid:
            self.playing = self.current
        messages = (*settings.chat.messages, *self._dialogue.messages, *unsaid)
        return StartReply(self._replies, messages, settings.chat, settings.voice)

    def _adopt(self, text: str, now_ms: int) -> list[Effect]:
        assert self._early is not None
        early, self._early = self._early, None
        self._dialogue.hear_user(text)
        self.playing = self.current
        self._wasted -= 1
        return [Observe(EarlyReply(used=True, saved_ms=now_ms - early.began_ms)), *early.withheld]

    def _withhold(self, effects: list[Effect]) -> list[Effect]:
        """Keep back what an early reply would tell; what it needs to be made goes on."""
        if self._early is None:
            return effects
        self._early.withheld += [effect for effect in effects if isinstance(effect, Send)]
        return [effect for effect in effects if not isinstance(effect, Send)]
