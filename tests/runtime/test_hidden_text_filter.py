from collections.abc import AsyncIterator, Sequence

from voicechat.providers.interfaces import (
    ChatRequest,
    Extras,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    ThoughtDelta,
)
from voicechat.runtime.hidden_text_filter import HiddenTextFilter
from voicechat.runtime.services import Services
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import ScriptedModel


class Parts:
    """Says these parts; ``closed`` when it was told to stop."""

    def __init__(self, *parts: ReplyPart) -> None:
        self.parts = parts
        self.closed = False

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        try:
            for part in self.parts:
                yield part
        finally:
            self.closed = True


async def parts_of(model: HiddenTextFilter) -> Sequence[ReplyPart]:
    return [part async for part in model.reply(ChatRequest(messages=()))]


async def test_hidden_text_is_a_sign_of_life_and_nothing_more() -> None:
    texts = ("<thi", "nking>secret", "</thinking>Hi")
    model = HiddenTextFilter(Parts(*map(TextDelta, texts), ReplyFinished()))
    assert await parts_of(model) == [
        ThoughtDelta("<thi"),
        ThoughtDelta("nking>secret"),
        TextDelta("Hi"),
        ReplyFinished(),
    ]


async def test_what_was_undecided_comes_before_the_end_and_before_a_call() -> None:
    call = ToolCall(0, "c", "f", "{}")
    model = HiddenTextFilter(Parts(TextDelta("a <"), call, TextDelta("b <th"), ReplyFinished()))
    texts = [
        TextDelta("a "),
        TextDelta("<"),
        call,
        TextDelta("b "),
        TextDelta("<th"),
        ReplyFinished(),
    ]
    assert await parts_of(model) == texts


async def test_what_stands_beside_the_text_does_not_end_a_thought() -> None:
    model = HiddenTextFilter(
        Parts(TextDelta("<think>a"), Extras(), ThoughtDelta("b"), TextDelta("c</think>Hi"))
    )
    assert await parts_of(model) == [
        ThoughtDelta("<think>a"),
        Extras(),
        ThoughtDelta("b"),
        TextDelta("Hi"),
    ]


async def test_closing_it_closes_the_model() -> None:
    inner = Parts(TextDelta("Hi"), TextDelta("there"))
    reply = HiddenTextFilter(inner).reply(ChatRequest(messages=()))
    assert await anext(reply) == TextDelta("Hi")
    await reply.aclose()
    assert inner.closed


async def test_conversations_hide_the_configured_tags_too() -> None:
    services = Services({}, {}, {}, hidden_tags=("plan",))
    model = services.for_conversation(
        ScriptedModel(replies=["<plan>secret</plan><think>secret</think>Hi"])
    )
    said = [
        part.text
        async for part in model.reply(ChatRequest(messages=()))
        if isinstance(part, TextDelta)
    ]
    assert "".join(said) == "Hi"
