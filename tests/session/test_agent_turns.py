"""What an agent says by itself, and how it ends a conversation."""

import pytest

from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.agent import Agent, IdlePrompts
from voicechat.session.agent_turns import END_CONVERSATION
from voicechat.session.limits import SessionLimits
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
)

STAYS = Settings(input=InputSettings(silence_allowed=True))
IDLE = IdlePrompts(prompts=("Are you there?", "Hello?"), after_ms=5_000, times=3)
USED = ToolExchange(
    (ToolCall(0, "1", END_CONVERSATION, "{}"),),
    (ToolAnswer("ok", ToolOutcome.ANSWERED, 1, END_CONVERSATION),),
)
"""A configured tool may have this name, too: only an agent with ``end_conversation``
means the end by it.
"""


def session(agent: Agent) -> Session:
    return Session(STAYS, SessionLimits(idle_ms=60_000), agent=agent)


def spoken(effects: list[ef.Effect]) -> list[str]:
    return [effect.text for effect in effects if isinstance(effect, ef.Speak)]


def asked(effects: list[ef.Effect]) -> ef.StartReply:
    return next(effect for effect in effects if isinstance(effect, ef.StartReply))


def ended(effects: list[ef.Effect]) -> list[nt.Ending]:
    return [effect.ended.ending for effect in effects if isinstance(effect, ef.Close)]


def play(conversation: Session, reply: int, length_ms: int, now_ms: int) -> list[ef.Effect]:
    """The reply that is being spoken is made, sent and, after its length, heard."""
    effects = conversation.receive(ev.SpeechSynthesized(reply, 0, (b"x",), length_ms), now_ms)
    effects += conversation.receive(ev.AudioSent(reply, length_ms), now_ms)
    effects += conversation.receive(ev.SentenceSynthesized(reply, 0), now_ms)
    effects += conversation.receive(ev.SpeechEnded(reply), now_ms)
    assert conversation.state in (State.LISTENING, State.CLOSED)
    return effects


def user_says(conversation: Session, stream: int, text: str, now_ms: int) -> list[ef.Effect]:
    effects = conversation.receive(ev.AudioStarted(), now_ms)
    effects += conversation.receive(ev.Transcribed(stream, Transcript(text, 0, 100)), now_ms)
    effects += conversation.receive(cmd.CommitTurn(), now_ms)
    return effects + conversation.receive(ev.RecognitionEnded(stream), now_ms)


def test_the_greeting_is_spoken_once_the_client_is_ready_and_is_part_of_the_history() -> None:
    conversation = session(Agent(greeting="Good day."))
    assert not spoken(conversation.receive(ev.Ticked(), 0))
    assert spoken(conversation.receive(cmd.Begin(), 0)) == ["Good day."]
    play(conversation, 1, 1_000, 0)
    assert not spoken(conversation.receive(cmd.Begin(), 10)), "once"
    messages = asked(user_says(conversation, 1, "hi", 2_000)).messages
    assert [(m["role"], m["content"]) for m in messages] == [
        ("assistant", "Good day."),
        ("user", "hi"),
    ]


def test_a_greeting_that_is_canceled_stays_as_far_as_it_was_heard() -> None:
    conversation = session(Agent(greeting="One two three four five six seven eight nine ten."))
    conversation.receive(cmd.Begin(), 0)
    conversation.receive(ev.SpeechSynthesized(1, 0, (b"x",), 5_000), 0)
    conversation.receive(ev.AudioSent(1, 5_000), 0)
    conversation.receive(cmd.Cancel(), 2_500)
    assert conversation.state is State.LISTENING
    greeting = str(asked(user_says(conversation, 1, "hi", 3_000)).messages[0]["content"])
    assert greeting.startswith("One two three")
    assert not greeting.endswith("ten.")


def test_a_model_greets_when_it_is_asked_to_and_the_request_is_not_remembered() -> None:
    conversation = session(Agent(greeting_prompt="Greet the caller in Welsh."))
    start = asked(conversation.receive(cmd.Begin(), 0))
    assert [m["content"] for m in start.messages] == ["Greet the caller in Welsh."]
    conversation.receive(ev.ReplyTextArrived(1, "Shwmae. "), 0)
    conversation.receive(ev.ReplyTextEnded(1), 0)
    play(conversation, 1, 1_000, 0)
    messages = asked(user_says(conversation, 1, "hi", 2_000)).messages
    assert [str(m["content"]).strip() for m in messages] == ["Shwmae.", "hi"]


def test_a_user_who_speaks_first_is_not_greeted() -> None:
    conversation = session(Agent(greeting="Good day."))
    start = asked(user_says(conversation, 1, "hi", 0))
    assert [m["content"] for m in start.messages] == ["hi"]
    conversation.receive(ev.ReplyTextEnded(1), 0)
    conversation.receive(ev.SpeechEnded(1), 0)
    assert not spoken(conversation.receive(cmd.Begin(), 10))


def test_a_silent_user_is_asked_then_told_goodbye_and_hung_up_on() -> None:
    conversation = session(Agent(greeting="Hi.", goodbye="Bye.", idle_prompts=IDLE))
    conversation.receive(cmd.Begin(), 0)
    play(conversation, 1, 1_000, 0)
    now_ms, said = 0, []
    for reply in range(2, 6):
        due_ms = conversation.deadline_ms()
        assert due_ms == now_ms + 1_000 + 5_000, (
            "silence counts from where the last words were heard"
        )
        now_ms = due_ms
        said += spoken(conversation.receive(ev.Ticked(), now_ms))
        assert not ended(play(conversation, reply, 1_000, now_ms))
    assert said == ["Are you there?", "Hello?", "Hello?", "Bye."]
    assert conversation.deadline_ms() == now_ms + 1_000, "the goodbye is heard to its end"
    assert ended(conversation.receive(ev.Ticked(), now_ms + 1_000)) == [nt.Ending.GOODBYE]


def test_a_word_of_the_user_begins_the_prompts_anew_and_takes_an_idle_goodbye_back() -> None:
    conversation = session(
        Agent(goodbye="Bye.", idle_prompts=IdlePrompts(prompts=("Hello?",), after_ms=5_000))
    )
    conversation.receive(cmd.Begin(), 0)
    assert spoken(conversation.receive(ev.Ticked(), 5_000)) == ["Hello?"]
    play(conversation, 1, 1_000, 5_000)
    assert spoken(conversation.receive(ev.Ticked(), 11_000)) == ["Bye."]
    play(conversation, 2, 1_000, 11_000)
    user_says(conversation, 1, "wait", 11_500)
    conversation.receive(ev.ReplyTextArrived(3, "Of course. "), 11_500)
    conversation.receive(ev.ReplyTextEnded(3), 11_500)
    play(conversation, 3, 1_000, 11_500)
    assert not ended(conversation.receive(ev.Ticked(), 12_500))
    assert spoken(conversation.receive(ev.Ticked(), 17_500)) == ["Hello?"]


def test_idle_prompts_stand_in_place_of_the_limit_for_silent_users() -> None:
    limits = SessionLimits(idle_ms=60_000, speech_idle_ms=4_000)
    conversation = Session(Settings(), limits, agent=Agent(idle_prompts=IDLE))
    conversation.receive(cmd.Begin(), 0)
    conversation.receive(ev.AudioStarted(), 0)
    assert conversation.deadline_ms() == 5_000


def test_after_its_longest_duration_a_conversation_ends_with_the_goodbye() -> None:
    conversation = session(Agent(goodbye="Bye.", max_duration_ms=10_000))
    user_says(conversation, 1, "hi", 9_000)
    conversation.receive(ev.ReplyTextArrived(1, "Let me explain. "), 9_000)
    conversation.receive(ev.ReplyTextEnded(1), 9_000)
    assert not spoken(conversation.receive(ev.Ticked(), 10_000)), "a reply in progress is not cut"
    play(conversation, 1, 2_000, 10_500)
    assert conversation.deadline_ms() == 12_500
    assert spoken(conversation.receive(ev.Ticked(), 12_500)) == ["Bye."]
    play(conversation, 2, 500, 12_500)
    user_says(conversation, 2, "wait", 12_600)
    assert ended(conversation.receive(cmd.Cancel(), 12_600)) == [nt.Ending.GOODBYE], (
        "this goodbye is final"
    )


@pytest.mark.parametrize("goodbye", ["", "Bye."])
def test_a_model_ends_the_conversation_after_its_last_words(goodbye: str) -> None:
    conversation = session(Agent(goodbye=goodbye, end_conversation=True))
    user_says(conversation, 1, "that is all", 0)
    conversation.receive(ev.ToolsUsed(1, USED), 0)
    conversation.receive(ev.ReplyTextArrived(1, "My pleasure. "), 0)
    conversation.receive(ev.ReplyTextEnded(1), 0)
    assert not ended(play(conversation, 1, 1_000, 0)), "the words are heard first"
    effects = conversation.receive(ev.Ticked(), 1_000)
    if goodbye:
        assert spoken(effects) == ["Bye."]
        play(conversation, 2, 500, 1_000)
        effects = conversation.receive(ev.Ticked(), 1_500)
    assert ended(effects) == [nt.Ending.GOODBYE]


def test_the_default_agent_says_and_ends_nothing() -> None:
    conversation = session(Agent())
    assert not spoken(conversation.receive(cmd.Begin(), 0))
    user_says(conversation, 1, "hi", 0)
    conversation.receive(ev.ToolsUsed(1, USED), 0)
    conversation.receive(ev.ReplyTextEnded(1), 0)
    conversation.receive(ev.SpeechEnded(1), 0)
    assert conversation.state is State.LISTENING
