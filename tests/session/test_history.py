import pytest

from voicechat.session.history import History
from voicechat.session.types import Message


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def spoken(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}] if text else []


def said(history: History) -> list[object]:
    return [message["content"] for message in history.messages]


def test_a_reply_is_cut_to_what_was_heard_and_keeps_its_place_and_id() -> None:
    history = History(200)
    history.add(user("hello"))
    history.set_reply(1, spoken("One two three."))
    history.add(user("and?"))
    ids = [item.id for item in history.items]
    history.truncate_reply(1, spoken("One two"))
    assert said(history) == ["hello", "One two", "and?"]
    assert [item.id for item in history.items] == ids


def test_a_reply_of_which_nothing_was_heard_is_not_remembered() -> None:
    history = History(200)
    history.add(user("hello"))
    history.set_reply(1, spoken("One two three."))
    history.truncate_reply(1, spoken(""))
    assert said(history) == ["hello"]


def test_a_reply_that_is_not_remembered_cannot_be_cut() -> None:
    history = History(200)
    history.add(user("hello"))
    history.truncate_reply(1, spoken("One"))
    assert said(history) == ["hello"]


def test_it_is_bounded_and_never_begins_with_an_answer() -> None:
    history = History(5)
    for turn in range(1, 21):
        history.add(user(f"question {turn}"))
        history.set_reply(turn, spoken(f"answer {turn}"))
    assert len(history.messages) <= 6
    assert history.messages[0]["role"] == "user"
    assert history.messages[-1]["content"] == "answer 20"


def test_what_was_just_added_is_never_forgotten() -> None:
    history = History(3)
    for number in range(9):
        history.add({"role": "assistant", "content": str(number)})
    assert said(history) == ["6", "7", "8"]


def test_forgotten_is_forgotten_but_for_the_question_that_is_being_answered() -> None:
    history = History(5)
    question = history.add(user("hello"))
    history.set_reply(1, spoken("One."))
    history.clear(keep=question.id)
    history.truncate_reply(1, spoken("O"))
    assert said(history) == ["hello"]
    history.clear()
    assert history.messages == ()


@pytest.mark.parametrize(
    ("after", "order"),
    [(None, ["a", "b", "new"]), ("", ["new", "a", "b"]), ("one", ["a", "new", "b"])],
)
def test_items_stand_where_they_are_put(after: str | None, order: list[str]) -> None:
    history = History(9)
    history.add(user("a"), "one")
    history.add(user("b"), "two")
    history.add(user("new"), "three", after)
    assert said(history) == order
    assert history.delete("three")
    assert not history.delete("three")
    assert said(history) == ["a", "b"]


def test_made_up_ids_keep_clear_of_those_that_were_given() -> None:
    history = History(9)
    history.add(user("a"), "item_1")
    assert history.add(user("b")).id != "item_1"
