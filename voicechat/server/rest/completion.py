"""From the parts of a chat model's reply to OpenAI's answer, in one piece or in chunks. No I/O."""

from collections.abc import Iterator

from voicechat.providers.interfaces import Extras, ReplyFinished, ReplyPart, TextDelta, ThoughtDelta, ToolsStarted
from voicechat.server.rest.schemas import (
    AssistantMessage,
    ChatCompletionAnswer,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    FunctionCall,
    FunctionCallDelta,
    ToolCallAnswer,
    ToolCallDelta,
    Usage,
)
from voicechat.session.vocabulary import ToolCall, ToolExchange


class Completion:
    """One reply. Every part goes through ``add`` and comes out as its chunks; ``answer`` is the sum of them."""

    def __init__(self, completion_id: str, created_s: int, model: str) -> None:
        self._id = completion_id
        self._created_s = created_s
        self._model = model
        self._text: list[str] = []
        self._calls: dict[int, ToolCallAnswer] = {}
        self._begun = False
        self._finished: ReplyFinished | None = None
        self.finish_reason = ""
        """Why the reply ended, if not by the model's own word."""

    def add(self, part: ReplyPart) -> Iterator[ChatCompletionChunk]:
        """Take the next part of the reply."""
        match part:
            case TextDelta():
                self._text.append(part.text)
                yield self._chunk(self._delta(content=part.text))
            case ToolCall():
                self._add_call(part)
                yield self._chunk(self._delta(tool_calls=[_call_delta(part)]))
            case ReplyFinished():
                self._finished = part
            case ThoughtDelta() | Extras() | ToolsStarted() | ToolExchange():
                pass  # the model's own affair

    def last_chunk(self) -> ChatCompletionChunk:
        """Close the streamed reply with the reason why it ended."""
        return self._chunk(self._delta(), self._reason())

    def usage_chunk(self) -> ChatCompletionChunk:
        """Tell the usage, null when it is not known, in a chunk of its own without a choice."""
        head = {"id": self._id, "created": self._created_s, "model": self._model}
        return ChatCompletionChunk(**head, choices=[], usage=self._usage())  # type: ignore[arg-type]

    def answer(self) -> ChatCompletionAnswer:
        """Give the whole reply."""
        calls = [call for _, call in sorted(self._calls.items())]
        message = AssistantMessage(content="".join(self._text), tool_calls=calls or None)
        choice = Choice(message=message, finish_reason=self._reason())
        return ChatCompletionAnswer(
            id=self._id, created=self._created_s, model=self._model, choices=[choice], usage=self._usage()
        )

    def _add_call(self, piece: ToolCall) -> None:
        known = self._calls.get(piece.index)
        name = piece.name or (known.function.name if known else "")
        arguments = (known.function.arguments if known else "") + piece.arguments
        call_id = piece.id or (known.id if known else f"call_{self._id}_{piece.index}")
        self._calls[piece.index] = ToolCallAnswer(id=call_id, function=FunctionCall(name=name, arguments=arguments))

    def _delta(self, content: str | None = None, tool_calls: list[ToolCallDelta] | None = None) -> Delta:
        if self._begun:
            return Delta(content=content, tool_calls=tool_calls)
        self._begun = True
        return Delta(role="assistant", content=content, tool_calls=tool_calls)

    def _chunk(self, delta: Delta, finish_reason: str | None = None) -> ChatCompletionChunk:
        choice = ChunkChoice(delta=delta, finish_reason=finish_reason)
        return ChatCompletionChunk(id=self._id, created=self._created_s, model=self._model, choices=[choice])

    def _reason(self) -> str:
        if self.finish_reason:
            return self.finish_reason
        if self._finished is not None:
            return self._finished.finish_reason
        return "tool_calls" if self._calls else "stop"

    def _usage(self) -> Usage | None:
        finished = self._finished
        if finished is None or finished.prompt_tokens is None or finished.completion_tokens is None:
            return None
        total = finished.prompt_tokens + finished.completion_tokens
        return Usage(
            prompt_tokens=finished.prompt_tokens, completion_tokens=finished.completion_tokens, total_tokens=total
        )


def chunk_text(chunk: ChatCompletionChunk) -> str:
    """Write a chunk as the document's samples stand: ``usage`` only where there is one, ``finish_reason`` always."""
    return chunk.model_dump_json(exclude=None if chunk.usage is not None or not chunk.choices else {"usage"})


def _call_delta(piece: ToolCall) -> ToolCallDelta:
    function = FunctionCallDelta(name=piece.name, arguments=piece.arguments)
    return ToolCallDelta(index=piece.index, id=piece.id, type="function" if piece.id else None, function=function)
