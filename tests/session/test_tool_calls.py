"""Tools in the kernel: what is easier to read as an example than as a property."""

from typing import Any, cast

import pytest

from tests.session.test_turn_detector import Talk
from voicechat.errors import Fault
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.limits import SessionLimits
from voicechat.session.session import Session
from voicechat.session.states import State
from voicechat.session.tool_calls import MOST_CALLS, NOT_TOLD, STOPPED, ToolCallAccumulator
from voicechat.session.types import (
    ChatSettings,
    Message,
    Settings,
    ToolAnswer,
    ToolCall,
    ToolExchange,
    ToolOutcome,
)

ANSWERS = Settings(chat=ChatSettings(answers_tools=True))
EXCHANGE = ToolExchange(
    (ToolCall(0, "own", "clock", "{}"),), (ToolAnswer("noon", ToolOutcome.ANSWERED, 20, "clock"),)
)


def call(
    index: int, call_id: str | None, arguments: str = "{}", name: str | None = "weather"
) -> ToolCall:
    return ToolCall(index, call_id, name, arguments)


def asks(session: Session, text: str, at_ms: int) -> tuple[Message, ...]:
    effects = session.receive(cmd.CommitTurn(text), at_ms)
    return next(effect.messages for effect in effects if isinstance(effect, ef.StartReply))


def roles(messages: tuple[Message, ...]) -> list[tuple[object, object]]:
    return [(message["role"], message["content"]) for message in messages]


def gathered(*pieces: ToolCall) -> tuple[list[ToolCall | None], tuple[ToolCall, ...]]:
    calls = ToolCallAccumulator("made_up")
    return [calls.add_piece(piece) for piece in pieces], calls.finish_calls("tool_calls")


def test_the_pieces_of_calls_that_come_mixed_are_joined() -> None:
    told, whole = gathered(
        call(0, "a", ""),
        call(1, "b", ""),
        call(0, None, '{"x"', None),
        call(1, None, "{}", None),
        call(0, None, ":1}", None),
    )
    assert [piece.index for piece in told if piece] == [0, 1, 0, 1, 0]
    assert whole == (call(0, "a", '{"x":1}'), call(1, "b", "{}"))


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((call(0, "a"), call(0, "b")), id="every call has the index 0"),
        pytest.param((call(1, "a"), call(7, "b")), id="indexes with gaps"),
        pytest.param(
            (call(0, "a", ""), call(0, "a", "{}"), call(1, "b")), id="the id in every piece"
        ),
        pytest.param(
            (call(0, "a", "", None), call(0, None, "{}"), call(1, "b")),
            id="the name in a later piece",
        ),
    ],
)
def test_what_servers_do_differently_comes_out_the_same(pieces: tuple[ToolCall, ...]) -> None:
    told, whole = gathered(*pieces)
    assert whole == (call(0, "a"), call(1, "b"))
    assert [piece.id for piece in told if piece and piece.id] == ["a", "b"]
    assert [piece.name for piece in told if piece and piece.name] == ["weather", "weather"]


def test_a_call_without_an_id_or_with_one_that_is_taken_gets_one_of_its_own() -> None:
    told, whole = gathered(call(0, None), call(1, ""), call(2, "a"), call(3, "a"))
    assert [piece.id for piece in told if piece] == ["made_up_0", "made_up_1", "a", "made_up_3"]
    assert [done.id for done in whole] == ["made_up_0", "made_up_1", "a", "made_up_3"]


def test_too_many_calls_are_passed_over() -> None:
    told, whole = gathered(*(call(number, f"c{number}") for number in range(MOST_CALLS + 3)))
    assert told[MOST_CALLS:] == [None] * 3
    assert len(whole) == MOST_CALLS


@pytest.mark.parametrize("arguments", ["", '{"city": ', "[]", '"Paris"', "[" * 100_000])
def test_arguments_that_are_no_json_object_are_not_shown_to_the_model_again(arguments: str) -> None:
    session = Session(ANSWERS)
    asks(session, "Is it warm?", 0)
    session.receive(ev.ToolCalled(1, call(0, "a", arguments)), 10)
    session.receive(ev.ReplyTextEnded(1, "tool_calls"), 10)
    effects = session.receive(cmd.AnswerTool("a", "what?"), 20)
    (asked,) = (effect for effect in effects if isinstance(effect, ef.ContinueReply))
    assert cast("Any", asked.messages[1]["tool_calls"])[0]["function"]["arguments"] == "{}"


def test_a_call_that_the_server_ends_with_stop_is_a_call_all_the_same() -> None:
    session = Session(ANSWERS)
    asks(session, "Is it warm?", 0)
    session.receive(ev.ToolCalled(1, call(0, "a")), 10)
    effects = session.receive(ev.ReplyTextEnded(1, "stop"), 10)
    told = [effect.notice for effect in effects if isinstance(effect, ef.Send)]
    assert [m.finish_reason for m in told if isinstance(m, nt.ReplyTextFinished)] == ["tool_calls"]
    assert session.state is State.REPLYING


def test_what_was_said_before_a_call_is_spoken_at_once() -> None:
    session = Session(ANSWERS)
    asks(session, "Is it warm?", 0)
    session.receive(ev.ReplyTextArrived(1, "Let me look"), 10)
    session.receive(ev.ToolCalled(1, call(0, "a")), 10)
    effects = session.receive(ev.ReplyTextEnded(1, "tool_calls"), 10)
    assert [effect.text for effect in effects if isinstance(effect, ef.Speak)] == ["Let me look"]
    assert not any(isinstance(effect, ef.FinishSpeech) for effect in effects), "the reply goes on"


@pytest.mark.parametrize("whose", ["the client's", "the server's"])
def test_code_that_a_call_broke_off_does_not_swallow_what_is_said_after_it(whose: str) -> None:
    session = Session(ANSWERS)
    asks(session, "Show me the time.", 0)
    session.receive(ev.ReplyTextArrived(1, "```\nprint("), 10)
    if whose == "the server's":
        session.receive(ev.ToolsUsed(1, EXCHANGE), 20)
    else:
        session.receive(ev.ToolCalled(1, call(0, "a")), 20)
        session.receive(ev.ReplyTextEnded(1, "tool_calls"), 20)
        session.receive(cmd.AnswerTool("a", "noon"), 20)
    effects = session.receive(ev.ReplyTextArrived(1, "It is noon. "), 30)
    effects += session.receive(ev.ReplyTextEnded(1), 30)
    assert [effect.text for effect in effects if isinstance(effect, ef.Speak)] == ["It is noon."]


def spoken(session: Session, sentence: int, from_ms: int, to_ms: int, at_ms: int) -> None:
    for end_ms in range(from_ms + 100, to_ms + 1, 100):
        session.receive(ev.SpeechSynthesized(1, sentence, (b"x",), end_ms), at_ms)
        session.receive(ev.AudioSent(1, end_ms), at_ms)
    session.receive(ev.SentenceSynthesized(1, sentence), at_ms)


def a_reply_around_a_tool() -> Session:
    """One second before the tool's answer and four after it, all of it sent at 100
    ms.
    """
    session = Session(ANSWERS)
    asks(session, "What time is it?", 0)
    session.receive(ev.ReplyTextArrived(1, "Let me look.\n"), 100)
    spoken(session, 0, 0, 1_000, 100)
    session.receive(ev.ToolsUsed(1, EXCHANGE), 100)
    session.receive(ev.ReplyTextArrived(1, "It is noon and the sun stands high in the sky."), 100)
    session.receive(ev.ReplyTextEnded(1), 100)
    spoken(session, 1, 1_000, 5_000, 100)
    return session


def test_an_interrupted_reply_keeps_its_tools_and_of_its_text_what_was_heard() -> None:
    session = a_reply_around_a_tool()
    session.receive(cmd.Cancel(), 3_100)
    said = roles(asks(session, "Thanks.", 4_000))
    assert said[:3] == [
        ("user", "What time is it?"),
        ("assistant", "Let me look."),
        ("tool", "noon"),
    ]
    assert said[4] == ("user", "Thanks.")
    heard = str(said[3][1])
    assert "It is noon and the sun stands high in the sky.".startswith(heard)
    assert 15 <= len(heard) <= 35, "half of it"


def test_a_tool_whose_reply_was_not_heard_at_all_is_remembered() -> None:
    session = a_reply_around_a_tool()
    session.receive(cmd.Cancel(), 150)
    said = roles(asks(session, "Thanks.", 4_000))
    assert said == [
        ("user", "What time is it?"),
        ("assistant", ""),
        ("tool", "noon"),
        ("user", "Thanks."),
    ]


def test_a_reply_cut_after_its_end_keeps_its_tools() -> None:
    session = a_reply_around_a_tool()
    session.receive(ev.SpeechEnded(1), 200)
    assert session.state is State.LISTENING
    session.receive(cmd.Cancel(), 600)
    said = roles(asks(session, "Thanks.", 4_000))
    assert [role for role, _ in said] == ["user", "assistant", "tool", "user"]


def test_a_forced_call_is_forced_once_and_the_last_round_forbids_calls() -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    chat = ChatSettings(
        options={"tools": tools, "tool_choice": "required", "temperature": 0.5}, answers_tools=True
    )
    session = Session(Settings(chat=chat), SessionLimits(tool_rounds=2))
    asks(session, "Is it warm?", 0)
    options = []
    for number in range(2):
        session.receive(ev.ToolCalled(1, call(0, f"a{number}")), 10)
        session.receive(ev.ReplyTextEnded(1, "tool_calls"), 10)
        effects = session.receive(cmd.AnswerTool(f"a{number}", "20"), 20)
        options += [effect.options for effect in effects if isinstance(effect, ef.ContinueReply)]
    assert options == [
        {"tools": tools, "temperature": 0.5},
        {"tools": tools, "temperature": 0.5, "tool_choice": "none"},
    ]
    session.receive(ev.ToolCalled(1, call(0, "a2")), 30)
    effects = session.receive(ev.ReplyTextEnded(1, "tool_calls"), 30)
    told = [effect.notice for effect in effects if isinstance(effect, ef.Send)]
    assert [m.finish_reason for m in told if isinstance(m, nt.ReplyTextFinished)] == ["stop"]


def test_a_call_that_the_client_does_not_answer_ends_the_reply_and_is_remembered_with_an_answer() -> (
    None
):
    session = Session()
    asks(session, "Is it warm in Paris?", 0)
    session.receive(ev.ReplyTextArrived(1, "Let me look."), 10)
    session.receive(ev.ToolCalled(1, call(0, "a")), 10)
    effects = session.receive(ev.ReplyTextEnded(1, "tool_calls"), 10)
    told = [effect.notice for effect in effects if isinstance(effect, ef.Send)]
    assert [m.finish_reason for m in told if isinstance(m, nt.ReplyTextFinished)] == ["tool_calls"]
    assert any(isinstance(effect, ef.FinishSpeech) for effect in effects)
    spoken(session, 0, 0, 500, 20)
    session.receive(ev.SpeechEnded(1), 20)
    assert session.state is State.LISTENING
    asked = asks(session, "And in Rome?", 5_000)
    assert roles(asked)[1:] == [
        ("assistant", "Let me look."),
        ("tool", NOT_TOLD),
        ("user", "And in Rome?"),
    ]


def test_waiting_for_tools_hands_free_is_the_assistants_turn() -> None:
    """Silence does not end a turn of the user, and does not close the connection; a
    word interrupts.
    """
    talk = Talk(chat=ANSWERS.chat)
    talk.says("is it warm in Paris")
    talk.wait(800)
    talk.finishes("is it warm in Paris")
    talk.post(ev.ToolCalled(1, call(0, "a")))
    talk.post(ev.ReplyTextEnded(1, "tool_calls"))
    talk.wait(25_000)
    assert talk.is_in(State.REPLYING)
    assert len(talk.commits) == 1
    talk.says("never mind that now")
    talk.wait(300)
    assert len(talk.interruptions) == 1
    talk.wait(2_000)
    talk.finishes("never mind that now")
    assert [(m["role"], m["content"]) for m in talk.asked[-1]][1:3] == [
        ("assistant", ""),
        ("tool", STOPPED),
    ]


def test_the_tools_of_a_reply_begun_early_are_asked_for_once_it_is_adopted() -> None:
    talk = Talk(chat=ANSWERS.chat)
    talk.says("is it warm in Paris")
    talk.wait(260)
    assert [effect.preemptive for effect in talk.effects if isinstance(effect, ef.StartReply)] == [
        True
    ]
    talk.post(ev.ToolCalled(1, call(0, "a")))
    talk.post(ev.ReplyTextEnded(1, "tool_calls"))
    assert not any(isinstance(message, nt.ReplyToolCall) for message in talk.told)
    refused = talk.post(cmd.AnswerTool("a", "20"))
    assert any(isinstance(e, ef.Send) and isinstance(e.notice, nt.Rejected) for e in refused)
    talk.wait(600)
    talk.finishes("is it warm in Paris")
    adopted = [type(effect) for effect in talk.effects].index(ef.AdoptReply)
    told = next(
        n
        for n, e in enumerate(talk.effects)
        if isinstance(e, ef.Send) and isinstance(e.notice, nt.ReplyToolCall)
    )
    assert adopted < told
    asked_again = talk.post(cmd.AnswerTool("a", "20"))
    assert any(isinstance(effect, ef.ContinueReply) for effect in asked_again)


def test_tools_that_worked_before_the_model_failed_are_remembered_beside_an_apology() -> None:
    session = Session(fallback_message=FallbackMessage(en="Sorry.", zh="抱歉。"))
    asks(session, "What time is it?", 0)
    session.receive(ev.ToolsUsed(1, EXCHANGE), 10)
    effects = session.receive(ev.ReplyFailed(1, Fault.LLM_FAILED, "the chat model failed"), 20)
    assert [effect.text for effect in effects if isinstance(effect, ef.Speak)] == ["Sorry."]
    spoken(session, 0, 0, 300, 30)
    session.receive(ev.SpeechEnded(1), 40)
    assert session.state is State.LISTENING
    said = roles(asks(session, "And now?", 1_000))
    assert said == [
        ("user", "What time is it?"),
        ("assistant", ""),
        ("tool", "noon"),
        ("user", "And now?"),
    ]


def joined(*pieces: ToolCall) -> list[tuple[str | None, str]]:
    calls = ToolCallAccumulator("c")
    for piece in pieces:
        calls.add_piece(piece)
    return [(call.name, call.arguments) for call in calls.finish_calls("tool_calls")]


def test_a_new_name_begins_a_call_although_index_and_id_are_the_same() -> None:
    for call_id in ("", None, "same"):
        one, two = ToolCall(0, call_id, "f", '{"a":1}'), ToolCall(0, call_id, "g", '{"b":2}')
        assert joined(one, two) == [("f", '{"a":1}'), ("g", '{"b":2}')]


def test_a_piece_without_a_name_goes_on_whatever_its_id() -> None:
    pieces = [
        ToolCall(0, "x1", "f", '{"a"'),
        ToolCall(0, "x2", None, ":"),
        ToolCall(0, "x3", "", "1}"),
    ]
    assert joined(*pieces) == [("f", '{"a":1}')]


def test_the_same_function_called_twice_without_ids() -> None:
    assert joined(ToolCall(0, "", "f", '{"a":1}'), ToolCall(0, "", "f", '{"a":2}')) == [
        ("f", '{"a":1}'),
        ("f", '{"a":2}'),
    ]


def test_a_name_that_comes_with_each_piece_is_one_call() -> None:
    assert joined(
        ToolCall(0, None, "f", ""), ToolCall(0, None, "f", '{"a":'), ToolCall(0, None, "f", "1}")
    ) == [("f", '{"a":1}')]


def test_a_name_may_come_late() -> None:
    assert joined(ToolCall(0, "a", None, ""), ToolCall(0, "b", "f", "{}")) == [("f", "{}")]
