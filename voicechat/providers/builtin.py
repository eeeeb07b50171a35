"""The embedded chat model, honest about what it is: it answers from a list, or repeats what it understood."""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from voicechat.providers.interfaces import ChatRequest, ReplyFinished, ReplyPart, TextDelta
from voicechat.providers.question_list import QuestionFile, QuestionList, read_question_file
from voicechat.session.vocabulary import Message
from voicechat.text.words import Script, dominant_script

SHIPPED_QUESTIONS = Path(__file__).with_name("faq.toml")

MAX_HEARD_CHARACTERS = 200
"""So much of what was understood is repeated."""

_DELTA = re.compile(r"\s*[㐀-鿿]|\s*[^\s㐀-鿿]+|\s+")
"""A word with the space before it, or a Han character; joined, the deltas are the text."""


class BuiltinChatModel:
    """A `ChatModel` without a model."""

    def __init__(self, content: QuestionFile) -> None:
        self._fallback = content.fallback
        self._silence = content.silence
        self._list = QuestionList(content.entry)

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Answer the last user message, word by word and without delay. Never raises, whatever the messages are."""
        answer = self._answer(request.messages)
        for delta in _DELTA.findall(answer):
            yield TextDelta(delta)
        yield ReplyFinished()

    def _answer(self, messages: Sequence[Message]) -> str:
        text = last_user_text(messages)
        if not text:
            return self._silence.zh if _is_chinese(" ".join(map(_text_of, messages))) else self._silence.en
        known = self._list.answer(text)
        if known is not None:
            return known
        fallback = self._fallback.zh if _is_chinese(text) else self._fallback.en
        # Not str.format: the text is anybody's.
        return fallback.replace("{heard}", text[:MAX_HEARD_CHARACTERS].rstrip(".。 "))


def last_user_text(messages: Sequence[Message]) -> str:
    """Give the text of the last user message, content parts joined; empty when there is none."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return _text_of(message).strip()
    return ""


def _is_chinese(text: str) -> bool:
    return dominant_script(text) is Script.HAN


def _text_of(message: Message) -> str:
    """Give the text of a message's content: a string, or OpenAI's list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and not isinstance(content, bytes):
        parts = (part.get("text") for part in content if isinstance(part, Mapping))
        return " ".join(text for text in parts if isinstance(text, str))
    return ""


def open_chat_model(*, qa: str | Path | None = None) -> BuiltinChatModel:
    """Configure the model. ``qa``: a file like the shipped ``faq.toml``. Raises `ConfigError` for a bad one."""
    return BuiltinChatModel(read_question_file(SHIPPED_QUESTIONS if qa is None else Path(qa)))
