"""OpenAI's chat completion stream: the data of each event → parts of a reply. No I/O."""

from collections.abc import Iterator
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import ReplyFinished, ReplyPart, TextDelta
from voicechat.providers.reasoning import ThoughtFilter
from voicechat.session.vocabulary import ToolCall

DONE = "[DONE]"

_T = TypeVar("_T")
# Servers write null where they mean "nothing".
_List = Annotated[list[_T], BeforeValidator(lambda value: value or [])]


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _ToolCallDelta(BaseModel):
    index: int = 0
    id: str | None = None
    function: _Function = _Function()


class _Delta(BaseModel):
    # `reasoning_content` and its like are left unread: thoughts are not to be spoken.
    content: str | None = None
    tool_calls: _List[_ToolCallDelta] = []


class _Choice(BaseModel):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Error(BaseModel):
    type: str | None = None
    code: str | int | None = None


class _Chunk(BaseModel):
    choices: _List[_Choice] = []
    usage: _Usage | None = None
    error: _Error | str | None = None


class ChatStream:
    """One reply. Its text is in order; the closing word waits for the usage, which comes after the finish reason."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._thoughts = ThoughtFilter()
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
            raise self._failure(chunk.error)
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
        yield ReplyFinished(self._finish_reason or "stop", self._usage.prompt_tokens, self._usage.completion_tokens)

    def _read_choice(self, choice: _Choice) -> Iterator[ReplyPart]:
        if choice.finish_reason:
            self._finish_reason = choice.finish_reason
        if choice.delta is None:
            return
        if choice.delta.content and (text := self._thoughts.push(choice.delta.content)):
            yield TextDelta(text)
        for call in choice.delta.tool_calls:
            yield ToolCall(call.index, call.id, call.function.name, call.function.arguments or "")

    def _failure(self, error: _Error | str) -> ProviderError:
        # The server's own sentence may quote the conversation: only its codes are kept.
        name, code = ("", "") if isinstance(error, str) else (error.type or "", str(error.code or ""))
        if code.isdecimal():
            kind = kind_of_status(int(code))
        elif "rate_limit" in name + code:
            kind = FailureKind.RATE_LIMIT
        elif "server" in name + code or "overloaded" in name + code:
            kind = FailureKind.CONNECTIVITY
        else:
            kind = FailureKind.BROKEN
        return ProviderError(self._provider, kind, f"the server reported an error in the stream: {name} {code}")


def kind_of_status(status: int) -> FailureKind:
    """Say what an HTTP status other than 200 means for the request."""
    match status:
        case 408:
            return FailureKind.TIMEOUT
        case 429:
            return FailureKind.RATE_LIMIT
        case _ if 400 <= status < 500:
            return FailureKind.REJECTED
        case _ if 500 <= status < 600:
            return FailureKind.CONNECTIVITY
        case _:
            return FailureKind.BROKEN
