"""A chat model with others that stand in for it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import get_args

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import ChatModel, ChatRequest, ReplyPart, TextDelta, ToolsStarted
from voicechat.runtime.fallback.link import Link
from voicechat.runtime.fallback.plan import Plan
from voicechat.runtime.fallback.policy import Patience
from voicechat.runtime.fallback.relay import Chain, relay
from voicechat.session.vocabulary import ToolCall


class ChatChain(Chain[ChatModel]):
    """A ``ChatModel``: another one is asked only while nothing has been said; what was shown cannot be unshown."""

    def __init__(self, links: Sequence[Link[ChatModel]], patience: Patience) -> None:
        """``patience``: to the first text, and between two pieces of it."""
        super().__init__(links)
        self._patience = patience

    def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """See ``ChatModel``. Raises the last failure when nobody answers."""
        plan = Plan(self.links, asyncio.get_running_loop().time() + self._patience.first_s)
        return relay(self, plan, lambda model: model.reply(request), _check, self._between_s)

    def _between_s(self, part: ReplyPart) -> float:
        """Tools that the model carries out itself say how long they take; after them it thinks as at the beginning."""
        if isinstance(part, TextDelta | ToolCall):
            return self._patience.between_s
        return self._patience.first_s + (part.within_s if isinstance(part, ToolsStarted) else 0.0)


def _check(part: ReplyPart) -> bool:
    """An empty piece of text is no sign of life."""
    if not isinstance(part, get_args(ReplyPart)):
        raise ProviderError("chat model", FailureKind.BROKEN, f"gave a {type(part).__name__}")
    return not isinstance(part, TextDelta) or bool(part.text)
