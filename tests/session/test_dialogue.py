from voicechat.session.dialogue import Dialogue
from voicechat.session.vocabulary import Message


def said(dialogue: Dialogue) -> list[tuple[object, object]]:
    return [(message["role"], message["content"]) for message in dialogue.messages]


def spoken(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}] if text else []


def test_a_reply_is_cut_to_what_was_heard() -> None:
    dialogue = Dialogue(200)
    dialogue.hear_user("hello")
    dialogue.say(1, spoken("One two three."))
    dialogue.cut(1, spoken("One two"))
    assert said(dialogue) == [("user", "hello"), ("assistant", "One two")]


def test_a_reply_of_which_nothing_was_heard_is_not_remembered() -> None:
    dialogue = Dialogue(200)
    dialogue.hear_user("hello")
    dialogue.say(1, spoken("One two three."))
    dialogue.cut(1, spoken(""))
    assert said(dialogue) == [("user", "hello")]


def test_only_the_last_reply_can_be_cut() -> None:
    dialogue = Dialogue(200)
    dialogue.hear_user("hello")
    dialogue.say(1, spoken("One."))
    dialogue.hear_user("and?")
    dialogue.cut(1, spoken(""))
    dialogue.cut(2, spoken(""))
    assert said(dialogue) == [("user", "hello"), ("assistant", "One."), ("user", "and?")]


def test_it_is_bounded_and_never_begins_with_an_answer() -> None:
    dialogue = Dialogue(5)
    for turn in range(20):
        dialogue.hear_user(f"question {turn}")
        dialogue.say(turn, spoken(f"answer {turn}"))
    assert len(dialogue.messages) <= 6
    assert dialogue.messages[0]["role"] == "user"
    assert dialogue.messages[-1]["content"] == "answer 19"


def test_forgotten_is_forgotten() -> None:
    dialogue = Dialogue(5)
    dialogue.hear_user("hello")
    dialogue.say(1, spoken("One."))
    dialogue.forget()
    dialogue.cut(1, spoken("O"))
    assert dialogue.messages == ()
