"""Prompts that a chat model processes while the user speaks."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import pytest

from tests.chained import ChainedHarness
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import ChatRequest, Provider, ReplyPart, TextDelta
from voicechat.providers.wrapping import as_provider
from voicechat.runtime.context_window import OPENING, ContextWindow
from voicechat.runtime.fallback.chat import ChatChain
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.policy import StageTimeouts
from voicechat.runtime.hidden_text_filter import HiddenTextFilter
from voicechat.runtime.prompt_preparation import PREPARE_S
from voicechat.runtime.tool_calling import ToolCallingModel
from voicechat.runtime.toolbox import Toolbox
from voicechat.session.commands import CommitTurn
from voicechat.session.notices import ReplyText, TurnCompleted
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer


@dataclass
class PreparingModel(Provider):
    """Answers "Yes."; writes down what it is asked, in order."""

    takes_s: float = 0.0
    failure: ProviderError | None = None
    log: list[str] = field(default_factory=list)
    prepared: list[ChatRequest] = field(default_factory=list)

    async def prepare(self, request: ChatRequest) -> None:
        said = request.messages[-1]["content"]
        self.prepared.append(request)
        self.log.append(f"prepare {said}")
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.log.append("given up")
            raise
        if self.failure is not None:
            raise self.failure
        self.log.append(f"prepared {said}")

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        self.log.append(f"answer {request.messages[-1]['content']}")
        yield TextDelta("Yes.")


async def answered(model: PreparingModel, text: str = "one two three four") -> None:
    """Have a turn of that many words, 300 ms each, answered."""
    recognizer = ScriptedRecognizer([text])
    async with ChainedHarness(recognizer=recognizer, model=model) as stage:  # type: ignore[arg-type]
        for _ in range(len(text.split()) * 3):
            stage.send_audio(bytes(100 * 32))
            await asyncio.sleep(0.1)
        stage.send(CommitTurn())
        await stage.notice(TurnCompleted)
        assert any(isinstance(notice, ReplyText) for notice in stage.notices)


async def test_each_partial_result_is_prepared() -> None:
    model = PreparingModel()
    await answered(model)
    *before, last = model.log
    assert last == "answer one two three four"
    assert before[:4] == ["prepare one", "prepared one", "prepare one two", "prepared one two"]


async def test_one_prompt_is_processed_at_a_time_and_the_reply_waits_for_that() -> None:
    model = PreparingModel(takes_s=0.5)
    await answered(model)
    assert model.log == [
        *("prepare one", "prepared one"),
        *("prepare one two three", "prepared one two three"),
        "answer one two three four",
    ]


async def test_what_fails_or_hangs_does_not_keep_the_reply_from_coming() -> None:
    failing = PreparingModel(failure=ProviderError("model", FailureKind.BROKEN, "as told"))
    await answered(failing)
    assert failing.log[-1] == "answer one two three four"
    hanging = PreparingModel(takes_s=10 * PREPARE_S)
    await answered(hanging)
    assert hanging.log[-2:] == ["given up", "answer one two three four"]


def timeouts() -> StageTimeouts:
    return StageTimeouts(first_s=1.0, between_s=1.0, thinking_s=1.0)


def wrappers() -> dict[str, Callable[[PreparingModel], object]]:
    return {
        "hidden text": HiddenTextFilter,
        "context window": ContextWindow,
        "tools": lambda model: ToolCallingModel(model, Toolbox({})),
        "chain": lambda model: ChatChain([ChainLink("default", model)], timeouts()),
    }


@pytest.mark.parametrize("name", wrappers())
async def test_what_is_around_a_model_passes_prompts_on(name: str) -> None:
    model = PreparingModel()
    wrapper = as_provider(wrappers()[name](model))
    assert wrapper.can_prepare
    await wrapper.prepare(ChatRequest(messages=({"role": "user", "content": "Hello"},)))
    assert model.log == ["prepare Hello", "prepared Hello"]
    assert not as_provider(wrappers()[name](ScriptedModel())).can_prepare  # type: ignore[arg-type]


async def test_the_prompt_that_is_prepared_is_the_one_that_is_sent() -> None:
    model = PreparingModel()
    greeted = ({"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Hi."})
    await ContextWindow(model).prepare(ChatRequest(messages=greeted))
    assert [message["content"] for message in model.prepared[0].messages] == [
        OPENING,
        "Hello.",
        "Hi.",
    ]
