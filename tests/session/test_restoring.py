"""A session that is restored from its snapshot: it behaves like the one that was lost,
and says the rest of a reply that was interrupted.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from voicechat.runtime.session_state import UnreadableStateError, read_snapshot, write_snapshot
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.agent import Agent, IdlePrompts
from voicechat.session.limits import SessionLimits
from voicechat.session.session import Session
from voicechat.session.snapshot import VERSION, is_boundary
from voicechat.session.states import TURN, State
from voicechat.session.types import (
    ChatSettings,
    Item,
    Settings,
    ToolCall,
    Transcript,
    TurnDetection,
)

STORY = "The first sentence is here. The second sentence is here. The third one ends it."
TOOLS = Settings(chat=ChatSettings(answers_tools=True), lead_ms=500)
LIMITS = SessionLimits()
GREETER = Agent(
    greeting="Welcome to the shop.",
    idle_prompts=IdlePrompts(prompts=("Hello?", "Still there?"), times=2),
    goodbye="Bye.",
    max_duration_ms=600_000,
)


N = TypeVar("N")


class Play:
    """Plays everybody around a session: the model says ``story`` piece by piece, the
    voice takes 50 ms a character, the recogniser hears "good day".
    """

    def __init__(self, session: Session, *, story: str = STORY) -> None:
        self.session = session
        self.twin: Session | None = None
        self.now = 0
        self.story = story
        self.pieces = 3
        self.told: list[nt.Notice] = []
        self.asked: list[ef.StartReply | ef.ContinueReply] = []
        self.to_come: list[Callable[[], ev.Event]] = []
        """What the services do next, in order."""
        self.made_ms: dict[int, int] = {}

    def feed(self, event: ev.Event) -> list[ef.Effect]:
        effects = self.session.receive(event, self.now)
        if self.twin is not None:
            assert behaviour(self.twin.receive(event, self.now)) == behaviour(effects), event
            assert self.twin.state is self.session.state
        for effect in effects:
            self._perform(effect)
        return effects

    def _perform(self, effect: ef.Effect) -> None:
        match effect:
            case ef.Send(nt.ReplyAudio(reply, _, end_ms) as notice):
                self.told.append(notice)
                self.to_come.insert(0, lambda: ev.AudioSent(reply, end_ms))
            case ef.Send(notice):
                self.told.append(notice)
            case ef.StartReply(reply, awaits_tools=waits):
                self.asked.append(effect)
                if not (effect.scripted or waits):
                    self._answer(reply)
            case ef.ContinueReply(reply):
                self.asked.append(effect)
                self._answer(reply)
            case ef.Speak(reply, sentence, text):
                end_ms = self.made_ms[reply] = self.made_ms.get(reply, 0) + 50 * len(text)
                self.to_come += [
                    lambda: ev.SpeechSynthesized(reply, sentence, (b"audio",), end_ms),
                    lambda: ev.SentenceSynthesized(reply, sentence),
                ]
            case ef.FinishSpeech(reply):
                self.to_come.append(lambda: ev.SpeechEnded(reply))
            case ef.FinishRecognition(stream):
                words = Transcript("good day", 0, 100)
                self.to_come += [
                    lambda: ev.Transcribed(stream, words),
                    lambda: ev.RecognitionEnded(stream),
                ]
            case ef.StopReply(reply):
                pass  # what comes after it is stale
            case _:
                pass

    def _answer(self, reply: int) -> None:
        size = -(-len(self.story) // self.pieces)
        for start in range(0, len(self.story), size):
            text = self.story[start : start + size]
            self.to_come.append(lambda text=text: ev.ReplyTextArrived(reply, text))  # type: ignore[misc]
        self.to_come.append(lambda: ev.ReplyTextEnded(reply))

    def step(self) -> bool:
        """Let a service do the next thing; False: there is none."""
        if not self.to_come:
            return False
        self.now += 10
        self.feed(self.to_come.pop(0)())
        return True

    def run(self, steps: int = 1_000) -> None:
        """Let the services do everything, and the clock what is due within the turn."""
        for _ in range(steps):
            if self.step():
                continue
            due_ms = self.session.deadline_ms()
            if due_ms is None or self.session.state not in TURN:
                return
            self.now = max(self.now, due_ms)
            self.feed(ev.Ticked())

    def of(self, kind: type[N]) -> list[N]:
        return [notice for notice in self.told if isinstance(notice, kind)]

    @property
    def said(self) -> str:
        """All text of replies, as the client reads it."""
        return "".join(notice.text for notice in self.told if isinstance(notice, nt.ReplyText))

    def lose_process(self, *, agent: Agent | None = None) -> None:
        """Continue with a session that was restored from the snapshot of this one."""
        self.session = restored(self.session, self.now, agent)
        self.to_come.clear()
        self.made_ms.clear()


def restored(session: Session, now_ms: int, agent: Agent | None = None) -> Session:
    """A session that continues from the other one's snapshot, written and read."""
    snapshot = session.snapshot(now_ms)
    kept = read_snapshot(write_snapshot(snapshot))
    assert kept == snapshot, "nothing is lost in the JSON"
    copy = Session(kept.settings, LIMITS, agent=agent)
    copy.restore(kept)
    return copy


def behaviour(effects: list[ef.Effect]) -> list[ef.Effect]:
    """What a session does. A new connection routes its audio anew."""
    return [effect for effect in effects if not isinstance(effect, ef.RouteAudio)]


def items_of(play: Play) -> tuple[Item, ...]:
    return play.session._core.replies.history.items


def random_deed(chance: random.Random, play: Play) -> list[ev.Event]:
    """Something that a client does between two turns, or in one."""
    items = [item.id for item in items_of(play)]
    last = play.session._core.replies._registry._count
    call_id = f"call_{last}"
    deeds: list[list[ev.Event]] = [
        [cmd.CommitTurn(text="What is new?")],
        [cmd.CommitTurn(text="Only so you know", respond=False)],
        [ev.AudioStarted(), cmd.CommitTurn()],
        [cmd.Respond()],
        [cmd.Cancel()],
        [cmd.AddItem({"role": "user", "content": "by hand"}, after="")],
        [cmd.DeleteItem(chance.choice(items or ["none"]))],
        [cmd.ClearHistory()],
        [cmd.TruncateReply(last, chance.randrange(3_000))],
        [cmd.Played(last, chance.randrange(3_000))],
        [cmd.Configure(replace(play.session.settings, lead_ms=chance.choice([None, 300])))],
        [ev.ToolCalled(last, ToolCall(0, call_id, "look", "{}")), ev.ReplyTextEnded(last)],
        [cmd.AnswerTool(call_id, "42")],
        [ev.ReplyTextEnded(last), ev.SpeechEnded(last)],
    ]
    return chance.choice(deeds)


def stray(chance: random.Random, play: Play, deeds: int) -> None:
    for _ in range(deeds):
        for event in random_deed(chance, play):
            play.now += chance.choice([0, 5, 400, 3_000])
            play.feed(event)
        for _ in range(chance.choice([0, 1, 4, 30])):
            play.step()


@pytest.mark.parametrize("settings", [Settings(), TOOLS, Settings(spoken=False)])
def test_a_restored_session_does_what_the_original_does(settings: Settings) -> None:
    for number in range(60):
        chance = random.Random(number)
        play = Play(Session(settings, LIMITS))
        play.feed(ev.Opened())
        stray(chance, play, 6)
        play.feed(cmd.Cancel())
        play.to_come.clear()
        if chance.random() < 0.5:  # the last reply is still being heard
            play.feed(cmd.CommitTurn(text="Go on."))
            play.run()
        play.feed(cmd.ClearInput())
        play.feed(cmd.Alive())
        assert play.session.state not in TURN
        play.twin = restored(play.session, play.now)
        stray(chance, play, 8)


def test_after_a_loss_at_any_moment_a_turn_ends_once_and_no_number_comes_twice() -> None:
    lost_in: set[State] = set()
    for number in range(200):
        chance = random.Random(number)
        play = Play(Session(chance.choice([Settings(), TOOLS]), LIMITS))
        play.feed(ev.Opened())
        stray(chance, play, chance.randrange(1, 7))
        committed, completed = len(play.of(nt.TurnCommitted)), len(play.of(nt.TurnCompleted))
        numbers = {notice.reply for notice in play.of(nt.ReplyBegun)}
        in_turn = play.session.state in TURN
        lost_in.add(play.session.state)
        question = play.session.snapshot(
            play.now
        ).replies.question  # goes if the history was cleared
        said_by_others = [
            item
            for item in items_of(play)
            if item.message and not item.reply and item.id != question
        ]
        play.lose_process()
        play.feed(ev.Restored(chance.random() < 0.7, chance.choice([None, 0, 1_000, 10**6])))
        assert [item for item in items_of(play) if item in said_by_others] == said_by_others
        play.run()
        if play.session.state in TURN:
            play.feed(cmd.Cancel())
        new = [n.reply for n in play.of(nt.ReplyBegun) if n.reply not in numbers]
        assert len(play.of(nt.ReplyBegun)) == len(numbers) + len(new)
        assert not numbers or all(reply > max(numbers) for reply in new)
        if in_turn:
            assert len(play.of(nt.TurnCompleted)) == completed + 1
        assert len(play.of(nt.TurnCommitted)) == committed
        assert all(item.message for item in items_of(play))
    assert lost_in == {State.OPENED, State.LISTENING, State.TRANSCRIBING, State.REPLYING}


def replying(after_steps: int, settings: Settings = TOOLS) -> Play:
    play = Play(Session(settings, LIMITS))
    play.feed(ev.Opened())
    play.feed(cmd.CommitTurn(text="Tell me a story."))
    for _ in range(after_steps):
        play.step()
    return play


def heard_and_said_on(play: Play) -> tuple[str, str]:
    """What was heard of the lost reply, and the text of all later ones."""
    cut = play.of(nt.ReplyCut)[0]
    assert isinstance(cut, nt.ReplyCut)
    later = [n.text for n in play.told if isinstance(n, nt.ReplyText) and n.reply > cut.reply]
    return cut.heard, "".join(later)


def test_a_reply_is_spoken_on_from_where_it_was_heard() -> None:
    play = replying(60)
    play.lose_process()
    play.feed(ev.Restored(True, heard_ms=1_400))
    play.run()
    heard, rest = heard_and_said_on(play)
    assert heard == "The first sentence is here. "[: len(heard)]
    assert heard.endswith("here.") or heard.endswith("is")
    assert (heard + rest).replace(" ", "") == STORY.replace(" ", "")
    assert [m["content"] for m in play.session.messages] == ["Tell me a story.", heard, rest]
    assert [type(n).__name__ for n in play.told].count("TurnCompleted") == 1
    assert len(play.asked) == 2, "the model was not asked again"


def test_a_client_that_has_all_audio_is_not_told_anything_twice() -> None:
    play = Play(Session(Settings(), LIMITS))
    play.feed(cmd.CommitTurn(text="Tell me a story."))
    play.run()
    assert play.session.state is State.LISTENING
    said = play.said
    play.lose_process()
    play.feed(ev.Restored(True, has_all=True))
    play.run()
    assert play.said == said == STORY


def test_a_reply_whose_turn_is_over_is_spoken_on_too() -> None:
    play = Play(Session(Settings(), LIMITS))
    play.feed(cmd.CommitTurn(text="Tell me a story."))
    play.run()
    play.lose_process()
    play.feed(ev.Restored(True, heard_ms=1_400))
    play.run()
    heard, rest = heard_and_said_on(play)
    assert (heard + rest).replace(" ", "") == STORY.replace(" ", "")


def test_a_reply_is_dropped_if_the_client_wants_so() -> None:
    play = replying(60)
    play.lose_process()
    effects = play.feed(ev.Restored(False, heard_ms=1_400))
    assert [
        e.notice.outcome
        for e in effects
        if isinstance(e, ef.Send) and isinstance(e.notice, nt.TurnCompleted)
    ] == [nt.Outcome.CANCELED]
    heard, rest = heard_and_said_on(play)
    assert not rest
    assert [m["content"] for m in play.session.messages] == ["Tell me a story.", heard]


def test_the_model_is_asked_to_go_on_when_its_text_was_not_complete() -> None:
    play = replying(1)  # a third of the text has come
    begun = play.said
    play.lose_process()
    play.story = "and so on."
    play.feed(ev.Restored(True))
    play.run()
    asked = play.asked[-1].messages
    assert [m["role"] for m in asked] == ["user", "assistant", "user"]
    assert asked[1]["content"] == begun
    assert "Continue where it stopped" in str(asked[2]["content"])
    assert play.session.messages[-1]["content"] == begun + "and so on."
    assert "Continue where" not in str(play.session.messages)


def test_a_question_whose_answer_has_not_begun_is_simply_asked_again() -> None:
    play = replying(0)
    play.lose_process()
    play.feed(ev.Restored(True))
    play.run()
    assert play.asked[-1].messages == ({"role": "user", "content": "Tell me a story."},)
    assert play.said == STORY


def test_the_words_of_a_committed_turn_are_answered() -> None:
    play = Play(Session(Settings(), LIMITS))
    play.feed(ev.AudioStarted())
    play.feed(ev.Transcribed(1, Transcript("good day to you", 0)))
    play.feed(cmd.CommitTurn())
    assert play.session.state is State.TRANSCRIBING
    play.lose_process()
    play.feed(ev.Restored(True))
    play.run()
    assert play.session.messages[0]["content"] == "good day to you"
    assert play.said == STORY


@pytest.mark.parametrize("detection", [None, TurnDetection()])
def test_the_words_of_an_unfinished_turn_are_not_lost(detection: TurnDetection | None) -> None:
    play = Play(Session(Settings(turn_detection=detection), LIMITS))
    play.feed(ev.AudioStarted())
    if detection is not None:
        play.feed(ev.SpeechStarted(0, 0))
    play.feed(ev.Transcribed(1, Transcript("go to the", 0, 900)))
    play.lose_process()
    play.feed(ev.Restored(True))
    if detection is None:
        play.feed(cmd.CommitTurn())
    else:
        while play.session.state is State.LISTENING:
            due_ms = play.session.deadline_ms()
            assert due_ms is not None
            play.now = due_ms
            play.feed(ev.Ticked())
    play.run()
    assert play.session.messages[0]["content"] == "go to the"


def test_tools_of_the_client_are_still_awaited() -> None:
    play = replying(0)
    play.to_come.clear()
    play.feed(ev.ReplyTextArrived(1, "Let me see. "))
    play.feed(ev.ToolCalled(1, ToolCall(0, "call_a", "look", '{"at": 1}')))
    play.feed(ev.ToolCalled(1, ToolCall(1, "call_b", "look", '{"at": 2}')))
    play.feed(ev.ReplyTextEnded(1, "tool_calls"))
    play.feed(cmd.AnswerTool("call_b", "two"))
    play.lose_process()
    play.feed(ev.Restored(True))
    assert play.session.state is State.REPLYING
    while play.step():
        pass
    play.feed(cmd.AnswerTool("call_a", "one"))
    play.run()
    roles = [m["role"] for m in play.session.messages]
    assert roles == ["user", "assistant", "tool", "tool", "assistant"]
    answers = [m["content"] for m in play.session.messages if m["role"] == "tool"]
    assert answers == ["one", "two"]
    assert STORY in play.said


def test_nobody_is_greeted_twice_and_the_prompts_and_the_longest_time_count_on() -> None:
    play = Play(Session(Settings(), LIMITS, agent=GREETER))
    play.feed(ev.Opened())
    play.feed(cmd.Begin())
    for _ in range(3):
        play.step()
    assert play.said == GREETER.greeting
    play.lose_process(agent=GREETER)
    play.feed(ev.Restored(True, heard_ms=10**6))
    play.feed(cmd.Begin())
    play.run()
    assert play.said == GREETER.greeting
    play.now = play.session.deadline_ms() or 0
    play.feed(ev.Ticked())
    assert play.said == GREETER.greeting + "Hello?"
    play.lose_process(agent=GREETER)
    play.feed(ev.Restored(True, heard_ms=10**6))
    play.now = play.session.deadline_ms() or 0
    play.feed(ev.Ticked())
    assert play.said.endswith("Hello?Still there?"), "prompts are counted over the loss"
    play.run()
    play.lose_process(agent=GREETER)
    play.now = 600_000
    play.feed(ev.Restored(True, heard_ms=10**6))
    play.run()
    assert play.said.endswith("Bye.")


def test_an_incomplete_entry_of_keys_is_kept() -> None:
    play = Play(Session(Settings(), LIMITS))
    for key in "12":
        play.feed(cmd.PressKey(key))
    play.lose_process()
    play.feed(ev.Restored(True))
    play.feed(cmd.PressKey("3"))
    play.feed(cmd.PressKey("#"))
    assert play.session.messages[0]["content"] == "DTMF: 123"


def test_a_state_that_cannot_be_read_is_refused() -> None:
    written = write_snapshot(Session().snapshot(0))
    assert read_snapshot(written).version == VERSION
    for damaged in (b"", b"{}", written[:-2], written.replace(b'"version":1', b'"version":99')):
        with pytest.raises(UnreadableStateError):
            read_snapshot(damaged)


def test_everything_that_must_not_be_lost_is_a_boundary() -> None:
    """No notice changes the snapshot's history, settings or agent without being a
    boundary.
    """
    for number in range(30):
        play = Play(Session(TOOLS, LIMITS))
        chance = random.Random(number)
        saved = play.session.snapshot(0)
        for _ in range(40):
            seen = len(play.told)
            for event in random_deed(chance, play):
                play.feed(event)
            play.step()
            kept = play.session.snapshot(play.now)
            if any(is_boundary(notice) for notice in play.told[seen:]):
                saved = kept
            assert kept.replies.items == saved.replies.items
            assert kept.settings == saved.settings
            assert kept.agent.greeting_due == saved.agent.greeting_due
            assert kept.replies.current == saved.replies.current
