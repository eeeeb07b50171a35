"""A chat model without the text that is not meant for the user, such as thoughts."""

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
from voicechat.session.types import ToolCall, ToolExchange
from voicechat.text.hidden import HiddenText

_AFTER_TEXT = (ToolCall, ToolsStarted, ToolExchange, ReplyFinished)
"""Parts that follow the text before them, so that text which is still undecided is
flushed first.
"""


class HiddenTextFilter(WrappingModel):
    """A `ChatModel` around another one that removes hidden text.

    Thoughts, tool calls written as text and special tokens are neither sent to the
    client nor spoken nor remembered; see `HiddenText`.
    """

    def __init__(self, model: ChatModel, tags: Iterable[str] = ()) -> None:
        """``tags``: names of further tags whose contents are hidden."""
        super().__init__(model)
        self._tags = tuple(tags)

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Stream the model's reply. A piece of text that is hidden entirely becomes a
        ``ThoughtDelta``.
        """
        hidden = HiddenText(self._tags)
        parts = self._inner.reply(request)
        async with closing(parts):
            async for part in parts:
                if isinstance(part, TextDelta) and part.text:
                    text = hidden.push_text(part.text)
                    if not text:
                        part = ThoughtDelta(part.text, part.extras)
                    elif text != part.text:
                        part = replace(part, text=text)
                    yield part
                    continue
                if isinstance(part, _AFTER_TEXT) and (rest := hidden.finish_text()):
                    yield TextDelta(rest)
                yield part
        if rest := hidden.finish_text():
            yield TextDelta(rest)
