"""What a chat model's server is shown of a conversation: in an order that it takes, and
no longer than it reads.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.errors import CONTEXT_TOO_LONG, FailureKind, ProviderError, RequestRefusedError
from voicechat.providers.interfaces import ChatModel, ChatRequest, ReplyPart, TextDelta
from voicechat.runtime.context_window import (
    ACKNOWLEDGED,
    ATTEMPTS,
    GO_ON,
    OPENING,
    ContextWindow,
    acceptable,
)
from voicechat.runtime.conversation import SessionProviders
from voicechat.runtime.services import Services
from voicechat.session.commands import Cancel, CommitTurn
from voicechat.session.notices import Done, Failed, ReplyTextFinished, TurnCompleted
from voicechat.session.types import ChatSettings, Message, Settings, ToolCall
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.scripted import ScriptedModel

SYSTEM: Message = {"role": "system", "content": "Be brief."}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING: Message = {"role": "assistant", "content": "", "tool_calls": [CALL]}
ANSWER: Message = {"role": "tool", "tool_call_id": "c", "content": "20"}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def complaint(messages: Sequence[Message]) -> str:
    """What a server with a strict template says of a history; empty: it takes it."""
    expected: tuple[str, ...] = ("user",)
    open_calls: list[object] = []
    used: set[object] = set()
    for index, message in enumerate(messages):
        role, calls = str(message["role"]), message.get("tool_calls")
        if role == "system":
            if index:
                return f"System message must be at the beginning, not at {index}"
            continue
        if role not in expected:
            return f"unexpected role {role} at {index}, not one of {expected}"
        if role == "tool":
            if message["tool_call_id"] not in open_calls:
                return f"no call for the answer at {index}"
            open_calls.remove(message["tool_call_id"])
            expected = ("tool",) if open_calls else ("assistant",)
        elif role == "assistant":
            if not (calls or message["content"]):
                return f"an empty message at {index}"
            assert isinstance(calls, list | None)
            open_calls = [call["id"] for call in calls or []]
            if used.intersection(open_calls):
                return f"a call at {index} has an id that another one has"
            used.update(open_calls)
            expected = ("tool",) if calls else ("user",)
        else:
            expected = ("assistant",)
    spoken = [message["role"] for message in messages if message["role"] != "system"]
    return (
        ""
        if spoken and spoken[-1] != "assistant" and not open_calls
        else "no last word of the user"
    )


@pytest.mark.parametrize(
    "messages",
    [
        [user("a")],
        [SYSTEM, user("a"), assistant("b"), user("c")],
        [SYSTEM, user("a"), CALLING, ANSWER, assistant("b"), user("c")],
        [user("a"), CALLING, ANSWER],
        [
            user("a"),
            CALLING,
            ANSWER,
            {**CALLING, "tool_calls": [{**CALL, "id": "d"}]},
            {**ANSWER, "tool_call_id": "d"},
        ],
    ],
)
def test_a_history_in_order_is_unchanged(messages: list[Message]) -> None:
    assert acceptable(messages) == tuple(messages)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_are_one_message_in_front(role: str) -> None:
    late: Message = {"role": role, "content": "In French."}
    joined = {"role": "system", "content": "Be brief.\nIn French."}
    for messages in (
        [SYSTEM, late, user("a")],
        [SYSTEM, user("a"), late],
        [SYSTEM, user(" "), late, user("a")],
    ):
        assert acceptable(messages) == (joined, user("a"))
    assert acceptable([late, user("a")]) == ({"role": "system", "content": "In French."}, user("a"))


@pytest.mark.parametrize(
    ("messages", "shown"),
    [
        ([user("a"), user("b")], [user("a\nb")]),
        ([user("a"), SYSTEM, user("b")], [SYSTEM, user("a\nb")]),
        (
            [user("a"), CALLING, ANSWER, user("b")],
            [user("a"), CALLING, ANSWER, assistant(ACKNOWLEDGED), user("b")],
        ),
        ([user("a"), assistant(""), user("b")], [user("a\nb")]),
        (
            [user("a"), assistant("b"), assistant("c"), user("d")],
            [user("a"), assistant("b\nc"), user("d")],
        ),
        (
            [user("a"), assistant("b"), CALLING, ANSWER],
            [user("a"), {**CALLING, "content": "b"}, ANSWER],
        ),
        ([SYSTEM, assistant("Hi"), user("a")], [SYSTEM, user(OPENING), assistant("Hi"), user("a")]),
        ([SYSTEM], [SYSTEM, user(OPENING)]),
        ([], [user(OPENING)]),
        ([user("a"), assistant("b")], [user("a"), assistant("b"), user(GO_ON)]),
        ([user("a"), CALLING, user("b")], [user("a\nb")]),
        (
            [user("a"), {**CALLING, "content": "b"}, user("c")],
            [user("a"), assistant("b"), user("c")],
        ),
        ([user("a"), ANSWER, user("b")], [user("a\nb")]),
        (
            [user("a"), CALLING, user("b"), ANSWER],
            [user("a"), CALLING, ANSWER, assistant(ACKNOWLEDGED), user("b")],
        ),
    ],
)
def test_what_a_strict_template_refuses_is_put_in_order(
    messages: list[Message], shown: list[Message]
) -> None:
    assert acceptable(messages) == tuple(shown)
    assert not complaint(shown)


def test_calls_of_two_turns_have_different_ids() -> None:
    turn = [user("a"), CALLING, ANSWER, assistant("b")]
    shown = acceptable([*turn, *turn, *turn, user("c")])
    assert [message["tool_call_id"] for message in shown if message["role"] == "tool"] == [
        "c",
        "c_2",
        "c_3",
    ]
    assert not complaint(shown)
    assert acceptable(shown) == shown


def test_parts_of_neighbours_are_joined() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:x"}}
    assert acceptable([user("a"), {"role": "user", "content": [image]}]) == (
        {"role": "user", "content": [{"type": "text", "text": "a"}, image]},
    )


def _calling(ids: list[str]) -> Message:
    return {**CALLING, "tool_calls": [{**CALL, "id": call_id} for call_id in ids]}


IDS = st.sampled_from("abc")
MESSAGES = st.one_of(
    st.just(SYSTEM),
    st.sampled_from(["", "x", "y"]).map(user),
    st.sampled_from(["", "x", "y"]).map(assistant),
    st.lists(IDS, min_size=1, unique=True).map(_calling),
    IDS.map(lambda call_id: {**ANSWER, "tool_call_id": call_id}),
)


@given(st.lists(MESSAGES, max_size=12))
def test_whatever_the_order_was_a_strict_server_takes_it(messages: list[Message]) -> None:
    shown = acceptable(messages)
    assert not complaint(shown), shown
    assert acceptable(shown) == shown


# --- too long -------------------------------------------------------------------------


@dataclass
class Narrow:
    """Reads so many characters of JSON, and answers with 400."""

    most_characters: int
    asked: list[tuple[Message, ...]] = field(default_factory=list)
    refused: int = 0

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        self.asked.append(request.messages)
        if len(json.dumps(request.messages)) > self.most_characters:
            self.refused += 1
            raise RequestRefusedError("narrow", "too long", code=CONTEXT_TOO_LONG)
        yield TextDelta("x" * 400)


async def answered(model: ChatModel, messages: Sequence[Message]) -> str:
    parts = model.reply(ChatRequest(messages=tuple(messages)))
    return "".join([part.text async for part in parts if isinstance(part, TextDelta)])


async def test_a_long_conversation_goes_on_without_its_oldest_turns() -> None:
    narrow = Narrow(8_000)
    model, history = ContextWindow(narrow), [SYSTEM]
    for number in range(60):
        history.append(user(f"question {number}"))
        history.append(assistant(await answered(model, history)))
    assert narrow.refused == 1, "one refusal teaches it for all turns that follow"
    for asked in narrow.asked:
        assert asked[0] == SYSTEM
        assert asked[1]["role"] == "user"
    firsts = [asked[1] for asked in narrow.asked]
    assert len({str(first) for first in firsts}) < 12, (
        "what the server has read already stays the same for many turns"
    )


async def test_a_model_with_a_much_smaller_window_is_asked_several_times() -> None:
    history = [
        message for number in range(40) for message in (user(f"q{number}"), assistant("x" * 400))
    ]
    narrow = Narrow(4_000)
    assert await answered(ContextWindow(narrow), [*history, user("last")])
    assert narrow.refused == ATTEMPTS - 1
    assert narrow.asked[-1][-1] == user("last")


async def test_one_turn_that_is_too_long_by_itself_is_refused_and_the_next_is_not() -> None:
    model = ContextWindow(Narrow(1_000))
    with pytest.raises(RequestRefusedError):
        await answered(model, [SYSTEM, user("x" * 2_000)])
    assert await answered(model, [SYSTEM, user("x" * 2_000), user("short")][::2])


async def test_a_conversation_that_was_cleared_is_shown_whole() -> None:
    narrow = Narrow(2_000)
    model = ContextWindow(narrow)
    long = [
        message for number in range(9) for message in (user(f"q{number}"), assistant("x" * 400))
    ]
    await answered(model, [*long, user("last")])
    await answered(model, [user("a"), assistant("b"), user("c")])
    assert narrow.asked[-1] == (user("a"), assistant("b"), user("c"))


@pytest.mark.parametrize(
    "error",
    [
        RequestRefusedError("x", "no"),
        ProviderError("x", FailureKind.REJECTED, "no", code=CONTEXT_TOO_LONG),
    ],
)
async def test_other_refusals_are_told_at_once(error: ProviderError) -> None:
    class Refusing:
        asked = 0

        async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
            Refusing.asked += 1
            raise error
            yield

    with pytest.raises(ProviderError):
        await answered(ContextWindow(Refusing()), [user("a"), assistant("b"), user("c")])
    assert Refusing.asked == 1


# --- in a conversation ----------------------------------------------------------------


@dataclass(kw_only=True)
class StrictHarness(ScriptedHarness):
    """A conversation with a server whose template is strict."""

    asked: list[tuple[Message, ...]] = field(default_factory=list)
    fails: int = 0

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        self.asked.append(request.messages)
        if found := complaint(request.messages):
            raise RequestRefusedError("strict", found)
        if self.fails:
            self.fails -= 1
            raise ProviderError("strict", FailureKind.CONNECTIVITY, "as told")
        async for part in self.model.reply(request):
            yield part

    def providers(self) -> SessionProviders:
        models = Services({}, {"default": self}, {}).conversation_models(self)
        return replace(super().providers(), models=models)

    async def turn(self, text: str, number: int) -> None:
        self.send(CommitTurn(text))
        await self.notice(TurnCompleted, number)


async def test_a_turn_that_was_cancelled_before_a_word_does_not_spoil_the_next() -> None:
    stage = StrictHarness(model=ScriptedModel(first_ms=2_000))
    async with stage:
        stage.send(CommitTurn("one"))
        await asyncio.sleep(0.5)
        stage.send(Cancel())
        await stage.notice(Done)
        await stage.turn("two", 2)
        await stage.turn("three", 3)
    assert not stage.of(Failed)
    assert stage.asked[1] == (user("one\ntwo"),)


@pytest.mark.parametrize(
    "replies", [(("Hello.",),), ((), ("Hello.",), ("Hello.",))], ids=["failed", "empty"]
)
async def test_a_turn_that_failed_does_not_spoil_the_next(replies: Sequence[Sequence[str]]) -> None:
    stage = StrictHarness(model=ScriptedModel(replies=replies), fails=len(replies) == 1)
    async with stage:
        await stage.turn("one", 1)
        assert len(stage.of(Failed)) == 1, "an empty answer is a failure, too"
        await stage.turn("two", 2)
        await stage.turn("three", 3)
    assert len(stage.of(Failed)) == 1
    assert stage.asked[1] == (user("one\ntwo"),)


async def test_a_reply_that_was_stopped_while_a_tool_worked_does_not_spoil_the_next() -> None:
    clients_tools = Settings(chat=ChatSettings(answers_tools=True))
    calling = (ToolCall(0, "c", "f", "{}"),)
    stage = StrictHarness(
        model=ScriptedModel(replies=(calling, ("Hello.",))), settings=clients_tools
    )
    async with stage:
        stage.send(CommitTurn("one"))
        await stage.notice(ReplyTextFinished)
        stage.send(Cancel())
        await stage.notice(Done)
        await stage.turn("two", 2)
    assert not stage.of(Failed)
    assert [message["role"] for message in stage.asked[1]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]


async def test_a_conversation_keeps_what_it_learned_of_each_of_its_models() -> None:
    one, two = Narrow(1_000), Narrow(1_000)
    models = Services({}, {"default": one, "two": two}, {}).conversation_models(one)
    history = [
        message for number in range(4) for message in (user(f"q{number}"), assistant("x" * 400))
    ]
    for name in ("", "default", "two", "two"):
        await answered(models(name), [*history, user("last")])
    assert (one.refused, two.refused) == (1, 1)
