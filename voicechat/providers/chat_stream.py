"""OpenAI's chat completion stream: the data of each event → parts of a reply. No I/O."""

import json
from collections.abc import Iterator
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import ReplyFinished, ReplyPart, TextDelta
from voicechat.providers.openai_errors import ErrorObject, reported
from voicechat.providers.reasoning import ThoughtFilter
from voicechat.session.vocabulary import ToolCall

DONE = "[DONE]"

_T = TypeVar("_T")
# Servers write null where they mean "nothing".
_List = Annotated[list[_T], BeforeValidator(lambda value: value or [])]


def _as_json_text(arguments: object) -> object:
    return arguments if isinstance(arguments, str | None) else json.dumps(arguments)


def _as_text(content: object) -> object:
    """Join the text parts of content that comes as a list of parts; thoughts are parts, too."""
    if not isinstance(content, list):
        return content
    return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


class _Function(BaseModel):
    name: str | None = None
    arguments: Annotated[str | None, BeforeValidator(_as_json_text)] = None


class _ToolCallDelta(BaseModel):
    index: int | None = None
    id: str | None = None
    function: Annotated[_Function, BeforeValidator(lambda value: value or {})] = _Function()


class _Delta(BaseModel):
    # `reasoning_content`, `reasoning` and their like are left unread: thoughts are not to be spoken.
    content: Annotated[str | None, BeforeValidator(_as_text)] = None
    tool_calls: _List[_ToolCallDelta] = []


class _Choice(BaseModel):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(BaseModel):
    choices: _List[_Choice] = []
    usage: _Usage | None = None
    error: ErrorObject | str | None = None


class ChatStream:
    """One reply. Its text is in order; the closing word waits for the usage, which comes after the finish reason."""

    def __init__(self, provider: str, *, starts_thinking: bool = False) -> None:
        """``starts_thinking``: the reply begins inside a thought, whose opening tag the server's template has."""
        self._provider = provider
        self._thoughts = ThoughtFilter(inside=starts_thinking)
        self._calls = _CallNumbers()
        self._finish_reason: str | None = None
        self._usage = _Usage()
        self.done = False
        """Whether the server said that nothing more comes."""

    def push(self, data: str) -> Iterator[ReplyPart]:
        """Read one event. Raises `ProviderError`: BROKEN for what is no chunk, or as the server's error object says."""
        if data.strip() == DONE:
            self.done = True
            return
        try:
            chunk = _Chunk.model_validate_json(data)
        except ValidationError as error:
            where = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
            raise ProviderError(self._provider, FailureKind.BROKEN, f"no chat completion chunk: {where}") from None
        if chunk.error is not None:
            raise reported(self._provider, chunk.error)
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices:
            if choice.index == 0:
                yield from self._read_choice(choice)

    def finish(self) -> Iterator[ReplyPart]:
        """End the reply. Raises `ProviderError` (CONNECTIVITY) when the server had not finished it."""
        if not self.done and self._finish_reason is None:
            raise ProviderError(self._provider, FailureKind.CONNECTIVITY, "the reply broke off")
        if rest := self._thoughts.finish():
            yield TextDelta(rest)
        reason = self._finish_reason or "stop"
        if reason == "stop" and self._calls.any:
            reason = "tool_calls"  # as OpenAI has it; some servers do not
        yield ReplyFinished(reason, self._usage.prompt_tokens, self._usage.completion_tokens)

    def _read_choice(self, choice: _Choice) -> Iterator[ReplyPart]:
        if choice.finish_reason:
            self._finish_reason = choice.finish_reason
        if choice.delta is None:
            return
        if choice.delta.content and (text := self._thoughts.push(choice.delta.content)):
            yield TextDelta(text)
        for call in choice.delta.tool_calls:
            number = self._calls.number(call.index, call.id)
            yield ToolCall(number, call.id, call.function.name, call.function.arguments or "")


class _CallNumbers:
    """Numbers the calls of a reply. Some servers give all of them the same index, or none at all, but whole ones."""

    def __init__(self) -> None:
        self._of: dict[int, int] = {}
        """By the server's index, the call that pieces with that index belong to."""
        self._ids: list[str | None] = []

    @property
    def any(self) -> bool:
        """Whether there was a call."""
        return bool(self._ids)

    def number(self, index: int | None, call_id: str | None) -> int:
        """Say which call a piece belongs to; another id is another call, and a piece without index goes on."""
        key = 0 if index is None else index
        number = self._of.get(key)
        if number is None or (call_id and self._ids[number] not in (None, call_id)):
            number = self._of[key] = len(self._ids)
            self._ids.append(call_id or None)
        return number
