"""The embedded chat model. It answers from a list of questions, or repeats what it
understood.
"""

import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from voicechat.providers.interfaces import (
    ChatRequest,
    Provider,
    ReplyFinished,
    ReplyPart,
    TextDelta,
)
from voicechat.providers.question_list import QuestionFile, QuestionList, read_question_file
from voicechat.session.types import Message
from voicechat.text.words import Script, dominant_script

SHIPPED_QUESTIONS = Path(__file__).with_name("faq.toml")

MAX_HEARD_CHARACTERS = 200
"""At most this much of an unknown question is repeated."""

MAX_READ_CHARACTERS = 2_000
"""At most this much of a message is read: no question of a list is longer, and
comparing megabytes would block the event loop.
"""
MAX_READ_PARTS = 64
MAX_READ_MESSAGES = 16
_DELTA = re.compile(r"\s*[㐀-鿿]|\s*[^\s㐀-鿿]+|\s+")
"""A word with the space before it, or a Han character. The joined deltas are the text.
"""


class BuiltinChatModel(Provider):
    """A `ChatModel` without a model. It respects ``max_tokens``, ``stop`` and JSON
    mode.
    """

    def __init__(self, content: QuestionFile) -> None:
        self._fallback = content.fallback
        self._silence = content.silence
        self._list = QuestionList(content.entry)

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Stream the answer to the last user message, word by word and without delay.
        Never raises.

        A word, or a Han character, is a token. In JSON mode the answer is ``{"answer":
        "..."}``.
        """
        answer = self._answer(request.messages)
        if _wants_json(request.options):
            answer = json.dumps({"answer": answer}, ensure_ascii=False)
        tokens = _DELTA.findall(_before_stop(answer, request.options))
        most = _most_tokens(request.options, len(tokens))
        for delta in tokens[:most]:
            yield TextDelta(delta)
        yield ReplyFinished("stop" if most == len(tokens) else "length")

    def _answer(self, messages: Sequence[Message]) -> str:
        text = last_user_text(messages)
        if not text:
            said = " ".join(map(_text_of, messages[-MAX_READ_MESSAGES:]))
            return self._silence.zh if _is_chinese(said) else self._silence.en
        known = self._list.find_answer(text)
        if known is not None:
            return known
        fallback = self._fallback.zh if _is_chinese(text) else self._fallback.en
        # Not str.format: the text may contain braces.
        return fallback.replace("{heard}", text[:MAX_HEARD_CHARACTERS].rstrip(".。 "))


def _wants_json(options: Mapping[str, object]) -> bool:
    form = options.get("response_format")
    return isinstance(form, Mapping) and form.get("type") in ("json_object", "json_schema")


def _before_stop(text: str, options: Mapping[str, object]) -> str:
    """Return the text before the first of the ``stop`` texts."""
    given = options.get("stop")
    stops = [given] if isinstance(given, str) else given if isinstance(given, Sequence) else ()
    places = [text.find(stop) for stop in stops if isinstance(stop, str) and stop in text and stop]
    return text[: min(places, default=len(text))]


def _most_tokens(options: Mapping[str, object], count: int) -> int:
    given = options.get("max_completion_tokens") or options.get("max_tokens")
    return min(count, given) if isinstance(given, int) and given > 0 else count


def last_user_text(messages: Sequence[Message]) -> str:
    """Return the text of the last user message with its parts joined, or ""."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return _text_of(message).strip()
    return ""


def _is_chinese(text: str) -> bool:
    return dominant_script(text) is Script.HAN


def _text_of(message: Message) -> str:
    """Return the beginning of a message's text, whose content is a string or a list of
    parts.
    """
    content = message.get("content")
    if isinstance(content, str):
        return content[:MAX_READ_CHARACTERS]
    if isinstance(content, Sequence) and not isinstance(content, bytes):
        parts = (part.get("text") for part in content[:MAX_READ_PARTS] if isinstance(part, Mapping))
        texts = (text[:MAX_READ_CHARACTERS] for text in parts if isinstance(text, str))
        return " ".join(texts)[:MAX_READ_CHARACTERS]
    return ""


def open_chat_model(*, qa: str | Path | None = None) -> BuiltinChatModel:
    """Open the model. ``qa``: a file like the shipped ``faq.toml``. Raises
    `ConfigError` for an invalid one.
    """
    return BuiltinChatModel(read_question_file(SHIPPED_QUESTIONS if qa is None else Path(qa)))
