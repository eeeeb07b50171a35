"""A chat model with others that stand in for it."""

import asyncio
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
from voicechat.runtime.fallback.link import Link
from voicechat.runtime.fallback.plan import Plan
from voicechat.runtime.fallback.policy import Patience
from voicechat.runtime.fallback.relay import Asking, Chain, relay
from voicechat.session.vocabulary import ToolCall, ToolExchange


class ChatChain(Chain[ChatModel]):
    """A ``ChatModel``: another one is asked only while nothing has been said; what was shown cannot be unshown."""

    def __init__(self, links: Sequence[Link[ChatModel]], patience: Patience) -> None:
        """``patience``: to the first text, and between two pieces of it."""
        super().__init__(links)
        self._patience = patience

    def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """See ``ChatModel``. Raises the last failure when nobody answers."""
        plan = Plan(self.links, asyncio.get_running_loop().time() + self._patience.first_s)
        return relay(self, plan, _Question(request, self._patience))


class _Question(Asking[ChatModel, ReplyPart]):
    def __init__(self, request: ChatRequest, patience: Patience) -> None:
        self._request = request
        self._patience = patience

    def begin(self, provider: ChatModel) -> AsyncIterator[ReplyPart]:
        return provider.reply(self._request)

    def patience_s(self, item: ReplyPart) -> float | None:
        """Tools that the model carries out itself say how long they take; after them it thinks as at the beginning.

        An empty piece of text is no sign of life.
        """
        match item:
            case TextDelta():
                return self._patience.between_s if item.text else None
            case ToolCall() | ThoughtDelta() | Extras():
                return self._patience.between_s
            case ToolsStarted():
                return self._patience.first_s + item.within_s
            case ToolExchange() | ReplyFinished():
                return self._patience.first_s
        raise ProviderError("chat model", FailureKind.BROKEN, f"gave a {type(item).__name__}")
