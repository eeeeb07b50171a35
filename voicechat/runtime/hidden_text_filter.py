"""A chat model whose text is only what it says to the user."""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace

from voicechat.providers.interfaces import (
    ChatModel,
    ChatRequest,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    ThoughtDelta,
    ToolsStarted,
)
from voicechat.providers.wrapping import WrappingModel
from voicechat.runtime.provider_deadlines import closing
from voicechat.session.vocabulary import ToolCall, ToolExchange
from voicechat.text.hidden import HiddenText

_AFTER_TEXT = (ToolCall, ToolsStarted, ToolExchange, ReplyFinished)
"""What comes after the text that the model said before it."""


class HiddenTextFilter(WrappingModel):
    """A `ChatModel` around another one, without what its text hides.

    Thoughts, calls written as text and special tokens are neither told to the client
    nor spoken nor remembered; see `HiddenText`.
    """

    def __init__(self, model: ChatModel, tags: Iterable[str] = ()) -> None:
        """``tags``: names of further tags whose contents are hidden."""
        super().__init__(model)
        self._tags = tuple(tags)

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """See `ChatModel`. A piece of text of which nothing is left becomes a
        ``ThoughtDelta``.
        """
        hidden = HiddenText(self._tags)
        parts = self._inner.reply(request)
        async with closing(parts):
            async for part in parts:
                if isinstance(part, TextDelta) and part.text:
                    text = hidden.push_text(part.text)
                    yield replace(part, text=text) if text else ThoughtDelta(part.text, part.extras)
                    continue
                if isinstance(part, _AFTER_TEXT) and (rest := hidden.finish_text()):
                    yield TextDelta(rest)
                yield part
        if rest := hidden.finish_text():
            yield TextDelta(rest)
