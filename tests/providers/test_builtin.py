from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.errors import ConfigError
from voicechat.providers import question_list
from voicechat.providers.builtin import (
    MAX_READ_CHARACTERS,
    SHIPPED_QUESTIONS,
    BuiltinChatModel,
    open_chat_model,
)
from voicechat.providers.interfaces import ChatRequest, ReplyFinished, ReplyPart, TextDelta
from voicechat.providers.question_list import read_question_file
from voicechat.session.types import Message

HEADER = '[fallback]\nen = "no: {heard}"\nzh = "不：{heard}"\n[silence]\nen = "mute"\nzh = "无声"\n'


async def parts_of(model: BuiltinChatModel, *messages: Message) -> list[ReplyPart]:
    return [part async for part in model.reply(ChatRequest(messages=messages))]


async def answer(model: BuiltinChatModel, *messages: Message) -> str:
    return "".join(
        [part.text for part in await parts_of(model, *messages) if isinstance(part, TextDelta)]
    )


def user(content: object) -> Message:
    return {"role": "user", "content": content}


@pytest.fixture
def small(tmp_path: Path) -> BuiltinChatModel:
    path = tmp_path / "qa.toml"
    path.write_text(
        HEADER + '[[entry]]\nquestions = ["Are you there?"]\nanswer = "Yes, I am."\n',
        encoding="utf-8",
    )
    return open_chat_model(qa=path)


@pytest.mark.parametrize(
    "asked",
    ["Are you there?", "are you THERE", "ａｒｅ you there!!", "there you are", "are you here"],
)
async def test_a_question_is_known_by_its_words(small: BuiltinChatModel, asked: str) -> None:
    assert await answer(small, user(asked)) == (
        "Yes, I am." if asked != "are you here" else "no: are you here"
    )


async def test_what_is_unknown_is_repeated_in_the_users_language(small: BuiltinChatModel) -> None:
    assert await answer(small, user("who is {heard} {0}")) == "no: who is {heard} {0}"
    assert await answer(small, user("北京在哪里")) == "不：北京在哪里"


@pytest.mark.parametrize(
    "content", ["你好" * 1_000_000, [{"type": "text", "text": "hi there " * 1000}] * 1000]
)
async def test_of_a_message_without_end_only_the_beginning_is_compared(
    content: object, small: BuiltinChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def tokens(text: str) -> Counter[str]:
        compared.append(len(text))
        return Counter()

    monkeypatch.setattr(question_list, "tokens", tokens)
    assert await answer(small, user(content))
    assert max(compared) <= MAX_READ_CHARACTERS


async def test_silence_is_answered_in_the_conversations_language(small: BuiltinChatModel) -> None:
    assert await answer(small) == "mute"
    assert await answer(small, {"role": "system", "content": "你是一个助手"}) == "无声"


async def test_the_answer_comes_word_by_word_and_ends_once(small: BuiltinChatModel) -> None:
    assert await parts_of(small, user("are you there")) == [
        TextDelta("Yes,"), TextDelta(" I"), TextDelta(" am."), ReplyFinished(),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said", "reason"),
    [
        ({"max_tokens": 2}, "Yes, I", "length"),
        ({"max_completion_tokens": 1, "max_tokens": 9}, "Yes,", "length"),
        ({"max_tokens": 3}, "Yes, I am.", "stop"),
        ({"stop": " am"}, "Yes, I", "stop"),
        ({"stop": ["zzz", " I", "am"]}, "Yes,", "stop"),
        ({"response_format": {"type": "json_object"}}, '{"answer": "Yes, I am."}', "stop"),
        (
            {"response_format": {"type": "text"}, "max_tokens": None, "stop": 7},
            "Yes, I am.",
            "stop",
        ),
    ],
)
async def test_the_parameters_of_a_reply_hold(
    small: BuiltinChatModel, options: dict[str, object], said: str, reason: str
) -> None:
    request = ChatRequest(messages=(user("are you there"),), options=options)
    *texts, finished = [part async for part in small.reply(request)]
    assert "".join(part.text for part in texts if isinstance(part, TextDelta)) == said
    assert finished == ReplyFinished(reason)


async def test_the_last_user_message_counts(small: BuiltinChatModel) -> None:
    said = (
        user("x"),
        user([{"type": "image_url"}, {"type": "text", "text": "are you there"}]),
        {"role": "tool"},
    )
    assert await answer(small, *said) == "Yes, I am."


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "type", "role"]), inner)
    ),
    max_leaves=6,
)
messages = st.lists(
    st.fixed_dictionaries(
        {}, optional={"role": st.sampled_from(["user", "system", "assistant", "tool"]) | json_values,
                      "content": json_values}
    ),
    max_size=4,
)  # fmt: skip
SHIPPED = open_chat_model()


@settings(deadline=None)
@given(messages)
async def test_any_message_list_is_answered(said: list[Message]) -> None:
    parts = await parts_of(SHIPPED, *said)
    assert isinstance(parts[-1], ReplyFinished)
    assert any(isinstance(part, TextDelta) and part.text.strip() for part in parts)


async def test_every_shipped_question_gets_its_own_answer() -> None:
    content = read_question_file(SHIPPED_QUESTIONS)
    for entry in content.entry:
        for question in entry.questions:
            assert await answer(SHIPPED, user(question)) == entry.answer


@pytest.mark.parametrize(
    "heard", ["go forward ten meters", "go forward ten years", "go somewhere and do something"]
)
async def test_what_the_embedded_recogniser_hears_has_an_answer(heard: str) -> None:
    assert "language model" not in await answer(SHIPPED, user(heard))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "fallback: Field required"),
        ("[fallback]\nen = x\n", "line 2, column 6"),
        (HEADER + "[[entry]]\nquestions = []\nanswer = 'x'", r"entry\.0\.questions"),
        (HEADER + "[[entry]]\nquestions = ['x']\nanswer = 3", r"entry\.0\.answer"),
        (HEADER + "[[entry]]\nquestions = ['x']\nanswer = 'x'\nwhat = 1", r"entry\.0\.what"),
        (b"\xff", "UTF-8"),
    ],
)
def test_a_bad_file_is_named_with_its_line_or_key(
    tmp_path: Path, content: str | bytes, complaint: str
) -> None:
    path = tmp_path / "qa.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=complaint) as caught:
        open_chat_model(qa=path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        open_chat_model(qa=tmp_path / "none.toml")
