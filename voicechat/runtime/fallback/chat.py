"""A chat model with fallbacks."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import (
    ChatModel,
    ChatRequest,
    Extras,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    ThoughtDelta,
    ToolsStarted,
)
from voicechat.providers.wrapping import as_provider
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.plan import AttemptPlan
from voicechat.runtime.fallback.policy import StageTimeouts
from voicechat.runtime.fallback.relay import IGNORED, Chain, ChainRequest, ItemVerdict, relay
from voicechat.session.types import SourcesCited, ToolCall, ToolExchange

UNFINISHED = ("length", "content_filter")
"""Finish reasons that explain an empty answer: the tokens went into thoughts, or the
answer was withheld.
"""


class ChatChain(Chain[ChatModel]):
    """A ``ChatModel`` that asks the next model only while no text has been passed on,
    because text that was shown cannot be withdrawn.
    """

    def __init__(self, links: Sequence[ChainLink[ChatModel]], timeouts: StageTimeouts) -> None:
        """``timeouts``: to the first text, and between two pieces of it."""
        super().__init__(links)
        self._timeouts = timeouts

    def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Stream the reply. Raises the last failure when no model answers. An empty
        answer is a failure.
        """
        until_s = asyncio.get_running_loop().time() + self._timeouts.first_s
        plan = AttemptPlan(self.links, until_s)
        return relay(self, plan, _ChatChainRequest(request, self._timeouts))

    async def prepare(self, request: ChatRequest) -> None:
        """Have the service itself process the prompt, unless it is suspended. Raises
        its ``ProviderError``, which does not count as a failure of the service: the
        reply shows whether it works.
        """
        link = self.links[0]
        if link.breaker.allows(asyncio.get_running_loop().time()):
            await as_provider(link.provider).prepare(request)

    @property
    def can_prepare(self) -> bool:
        """Whether the service itself can prepare."""
        return as_provider(self.links[0].provider).can_prepare


class _ChatChainRequest(ChainRequest[ChatModel, ReplyPart]):
    def __init__(self, request: ChatRequest, timeouts: StageTimeouts) -> None:
        self._request = request
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._answer = ItemVerdict(passes=True, answers=True, within_s=timeouts.between_s)
        self._aside = ItemVerdict(passes=True, answers=False, within_s=None)
        self._thinks_until_s = math.inf
        self._said = False
        last = request.messages[-1:]
        self._may_be_silent = bool(last and last[0].get("role") == "tool") or bool(
            request.options.get("stop")
        )
        """Whether an empty answer is valid: the text may have been in the message with
        the tool calls, or the answer would begin with a stop sequence of the client.
        """

    def start_on(self, provider: ChatModel) -> AsyncIterator[ReplyPart]:
        self._thinks_until_s = math.inf
        return provider.reply(self._request)

    def judge_item(self, item: ReplyPart) -> ItemVerdict:
        """Judge a part of the reply.

        ``ToolsStarted`` says how long the tools take; after them the model has its
        first-token deadline again. An empty piece of text does not extend the deadline,
        and neither does white space before the first word.
        """
        match item:
            case TextDelta():
                if self._said or item.text.strip():
                    self._said = True
                    return self._answer
                return self._aside if item.text or item.extras is not None else IGNORED
            case ThoughtDelta():
                return ItemVerdict(passes=True, answers=False, within_s=self._for_thinking_s())
            case Extras() | SourcesCited():
                return self._aside
            case ToolCall():
                self._said = True
                return self._answer
            case ToolsStarted():
                return ItemVerdict(
                    passes=True, answers=True, within_s=self._timeouts.first_s + item.within_s
                )
            case ToolExchange():
                self._said = True
                return ItemVerdict(passes=True, answers=True, within_s=self._timeouts.first_s)
            case ReplyFinished():
                self._require_answer(item.finish_reason)
                return ItemVerdict(passes=True, answers=True, within_s=self._timeouts.first_s)
        raise ProviderError("chat model", FailureKind.BROKEN, f"gave a {type(item).__name__}")

    def on_empty(self, plan: AttemptPlan[ChatModel]) -> None:
        self._require_answer("stop")

    def on_failure(self, plan: AttemptPlan[ChatModel]) -> None:
        """If the model was thinking, give the next one the whole deadline again."""
        if self._thinks_until_s < math.inf:
            plan.extend_deadline(self._loop.time() + self._timeouts.first_s)

    def _require_answer(self, reason: str) -> None:
        """Raise if the answer has neither text nor calls, unless its finish reason
        explains that.
        """
        if not (self._said or self._may_be_silent or reason in UNFINISHED):
            # One client's prompt can cause this, so it must not open the breaker for
            # all clients.
            raise ProviderError(
                "chat model", FailureKind.BROKEN, "answered without a word", of_service=False
            )

    def _for_thinking_s(self) -> float:
        now_s = self._loop.time()
        if self._thinks_until_s == math.inf and not self._said:
            self._thinks_until_s = now_s + self._timeouts.thinking_s
        left_s = self._timeouts.between_s if self._said else self._thinks_until_s - now_s
        return min(self._timeouts.between_s, max(0.0, left_s))
