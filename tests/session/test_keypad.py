"""Keys that a user presses: entries, what they silence, what the model reads."""

from typing import TypeVar

import pytest

from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.agent import Agent, Keypad
from voicechat.session.agent_turns import TRANSFER
from voicechat.session.session import Session
from voicechat.session.states import State
from voicechat.session.types import (
    InputSettings,
    Settings,
    ToolAnswer,
    ToolCall,
    ToolExchange,
    ToolOutcome,
    Transcript,
    TurnDetection,
)

N = TypeVar("N")

CALL = Settings(
    input=InputSettings(silence_allowed=True), turn_detection=TurnDetection(), lead_ms=1_000
)


def session(agent: Agent | None = None, settings: Settings = CALL) -> Session:
    made = Session(settings, agent=agent or Agent())
    made.receive(ev.Opened(), 0)
    return made


def press(call: Session, keys: str, now_ms: int, every_ms: int = 100) -> list[ef.Effect]:
    effects: list[ef.Effect] = []
    for number, key in enumerate(keys):
        effects += call.receive(cmd.PressKey(key), now_ms + number * every_ms)
    return effects


def asked(effects: list[ef.Effect]) -> list[str]:
    return [
        str(effect.messages[-1]["content"])
        for effect in effects
        if isinstance(effect, ef.StartReply)
    ]


def told(effects: list[ef.Effect], kind: type[N]) -> list[N]:
    notices = (effect.notice for effect in effects if isinstance(effect, ef.Send))
    return [notice for notice in notices if isinstance(notice, kind)]


def speaking(call: Session, now_ms: int) -> None:
    """A reply of two seconds is being made, and half of it has been sent."""
    call.receive(cmd.CommitTurn("hello"), now_ms)
    call.receive(ev.ReplyTextArrived(1, "One two three four. "), now_ms)
    call.receive(ev.SpeechSynthesized(1, 0, (b"x",), 1_000), now_ms)
    call.receive(ev.AudioSent(1, 1_000), now_ms)


def test_the_terminator_completes_an_entry_and_is_no_part_of_it() -> None:
    call = session()
    assert asked(press(call, "1234", 0)) == []
    assert asked(press(call, "#", 500)) == ["DTMF: 1234"]


def test_a_pause_completes_an_entry() -> None:
    call = session()
    press(call, "42", 0)
    assert call.deadline_ms() == 2_100
    assert asked(call.receive(ev.Ticked(), 2_099)) == []
    effects = call.receive(ev.Ticked(), 2_100)
    assert asked(effects) == ["DTMF: 42"]
    assert len(told(effects, nt.TurnCommitted)) == 1
    assert call.deadline_ms() != 2_100


def test_so_many_keys_complete_an_entry_and_the_next_begins_another() -> None:
    call = session(Agent(keypad=Keypad(most=4, terminator="", timeout_ms=1_000)))
    assert asked(press(call, "12#4", 0)) == ["DTMF: 12#4"]


@pytest.mark.parametrize(
    ("keys", "read"), [("#", "DTMF: #"), ("*7#", "DTMF: *7"), ("A#", "DTMF: A")]
)
def test_a_terminator_alone_is_an_entry(keys: str, read: str) -> None:
    assert asked(press(session(), keys, 0)) == [read]


@pytest.mark.parametrize("key", ["", "12", "x", "\n", "é", "a" * 100_000])
def test_what_is_no_key_changes_nothing(key: str) -> None:
    call = session()
    assert call.receive(cmd.PressKey(key), 10) == []
    press(call, "5", 20)
    call.receive(cmd.PressKey(key), 30)
    assert asked(press(call, "#", 40)) == ["DTMF: 5"]


def test_the_first_key_silences_the_reply_and_only_the_first() -> None:
    call = session()
    speaking(call, 0)
    effects = press(call, "1", 500)
    assert [cut.heard for cut in told(effects, nt.ReplyCut)] == ["One two"]
    assert len(told(effects, nt.Interrupted)) == 1
    assert call.state is State.LISTENING
    assert told(press(call, "2", 600), nt.Interrupted) == []
    assert asked(press(call, "#", 700)) == ["DTMF: 12"]


def test_where_replies_may_not_be_interrupted_an_entry_waits_for_the_end() -> None:
    settings = Settings(
        input=InputSettings(silence_allowed=True),
        turn_detection=TurnDetection(interrupt_response=False),
    )
    call = session(settings=settings)
    speaking(call, 0)
    assert told(press(call, "1#", 500), nt.Interrupted) == []
    call.receive(ev.ReplyTextEnded(1), 700)
    call.receive(ev.SentenceSynthesized(1, 0), 700)
    effects = call.receive(ev.SpeechEnded(1), 800)
    assert asked(effects) == ["DTMF: 1"]


def test_words_that_are_being_transcribed_are_answered_before_the_entry() -> None:
    call = session(settings=Settings(input=InputSettings(silence_allowed=True)))
    call.receive(ev.AudioStarted(), 0)
    call.receive(cmd.CommitTurn(), 100)
    assert call.state is State.TRANSCRIBING
    press(call, "7#", 150)
    call.receive(ev.Transcribed(1, Transcript("my number is", 0, 100)), 200)
    effects = call.receive(ev.RecognitionEnded(1), 210)
    assert asked(effects) == ["my number is"]


def test_a_key_stops_the_greeting_that_is_due() -> None:
    call = session(Agent(greeting="Welcome to a long menu."))
    press(call, "1", 0)
    assert not any(isinstance(e, ef.Speak) for e in call.receive(cmd.Begin(), 10))


def test_an_entry_may_go_to_a_tool_first() -> None:
    effects = press(session(Agent(keypad=Keypad(tool="account"))), "12#", 0)
    (start,) = (effect for effect in effects if isinstance(effect, ef.StartReply))
    assert start.chat.options["tool_choice"] == {
        "type": "function",
        "function": {"name": "account"},
    }


def transferred(arguments: str, outcome: ToolOutcome = ToolOutcome.ANSWERED) -> ToolExchange:
    return ToolExchange(
        (ToolCall(0, "1", TRANSFER, arguments),), (ToolAnswer("ok", outcome, 1, TRANSFER),)
    )


DESK = Agent(transfers={"desk": "+49301234"}, goodbye="Goodbye.")


def test_a_call_is_passed_on_once_the_last_words_have_been_heard() -> None:
    call = session(DESK)
    speaking(call, 0)
    call.receive(ev.ToolsUsed(1, transferred('{"to": "desk"}')), 100)
    call.receive(ev.ReplyTextEnded(1), 100)
    call.receive(ev.SentenceSynthesized(1, 0), 100)
    assert told(call.receive(ev.SpeechEnded(1), 200), nt.Ended) == []
    effects = call.receive(ev.Ticked(), 1_000)
    (ended,) = told(effects, nt.Ended)
    assert ended == nt.Ended(
        nt.Ending.TRANSFERRED, "transferred to +49301234", transfer_to="+49301234"
    )
    assert not any(isinstance(effect, ef.Speak) for effect in effects), "no goodbye"


@pytest.mark.parametrize(
    "exchange",
    [
        transferred('{"to": "+490900"}'),
        transferred("no JSON"),
        transferred("[" * 100_000),
        transferred('{"to": "desk"}', ToolOutcome.FAILED),
    ],
)
def test_only_the_agents_own_numbers_can_be_reached(exchange: ToolExchange) -> None:
    call = session(DESK)
    speaking(call, 0)
    call.receive(ev.ToolsUsed(1, exchange), 100)
    call.receive(ev.ReplyTextEnded(1), 100)
    call.receive(ev.SentenceSynthesized(1, 0), 100)
    call.receive(ev.SpeechEnded(1), 200)
    assert told(call.receive(ev.Ticked(), 1_000), nt.Ended) == []


@pytest.mark.parametrize("now_ms", [0, 100, 500])
def test_hanging_up_ends_everything_at_once(now_ms: int) -> None:
    call = session()
    speaking(call, 0)
    effects = call.receive(cmd.HangUp(), now_ms)
    assert any(isinstance(effect, ef.StopReply) for effect in effects)
    assert [notice.ending for notice in told(effects, nt.Ended)] == [nt.Ending.FINISHED]
    assert call.state is State.CLOSED
