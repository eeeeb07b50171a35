"""Converts the parts of a chat model's reply to OpenAI's form, whole or in chunks. No
I/O.

Absent fields stay absent, except those that clients of the original document expect to
be null. Extra fields of the model's server (log probabilities, references, thoughts,
its own) appear where that server put them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from voicechat.providers.interfaces import (
    Extras,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    ThoughtDelta,
    ToolsStarted,
)
from voicechat.schema.sources import source_fields
from voicechat.session.tool_calls import ToolCallAccumulator
from voicechat.session.types import SourcesCited, ToolCall, ToolExchange

Json: TypeAlias = dict[str, Any]
"""A JSON object under construction."""

THOUGHTS = "reasoning_content"
REFS = "refs"
_NOTHING = Extras()


class Completion:
    """One reply. Every part goes through ``add_part``, which yields its chunks.

    ``answer`` returns the sum of them.
    """

    def __init__(self, completion_id: str, created_s: int, model: str, *, with_nulls: bool) -> None:
        """``with_nulls``: text chunks have ``role`` and ``content`` even when they are
        null, as in the document.
        """
        self._id = completion_id
        self._created_s = created_s
        self._model = model
        self._with_nulls = with_nulls
        self._text: list[str] = []
        self._gathered = ToolCallAccumulator(f"call_{completion_id}")
        self._calls: dict[int, Json] = {}
        self._extra_fields = ExtraFields()
        self._waiting: Json = {}
        """Fields beside ``choices`` for the next chunk."""
        self._begun = False
        self._finished = ReplyFinished("")
        self._cited: dict[int, Json] = {}
        """All sources of the reply, by their index."""

    def add_part(self, part: ReplyPart) -> Iterator[Json]:
        """Add the next part of the reply; yields its chunks."""
        self._extra_fields.collect_part(part)
        match part:
            case TextDelta():
                self._text.append(part.text)
                yield self._chunk(self._said(part.text), part.extras)
            case ThoughtDelta():
                if part.text or part.extras:
                    yield self._chunk({THOUGHTS: part.text} if part.text else {}, part.extras)
            case Extras() if not (part.message or part.choice):
                self._waiting |= (
                    part.answer
                )  # the next chunk carries it; a chunk of its own would have no reply in it
            case Extras():
                yield self._chunk({}, part)
            case ToolCall():
                piece = self._gathered.add_piece(part)
                if piece is not None:
                    self._add_call(piece)
                    yield self._chunk({"tool_calls": [_call_piece(piece)]})
            case SourcesCited():
                refs = [source_fields(source) for source in part.sources]
                self._cited |= {
                    source.index: ref for source, ref in zip(part.sources, refs, strict=True)
                }
                yield self._chunk(self._said(""), Extras(choice={REFS: refs}))
            case ReplyFinished():
                self._finished = part
            case ToolsStarted() | ToolExchange():
                pass  # internal to the model

    def last_chunk(self) -> Json:
        """Return the chunk that ends the streamed reply, with the finish reason."""
        extras = self._finished.extras or _NOTHING
        if self._cited:
            extras = replace(extras, choice={**extras.choice, REFS: [*self._cited.values()]})
        return self._chunk(self._said(None), extras, self._reason())

    def usage_chunk(self) -> Json | None:
        """Return the usage as a chunk without a choice; None when the model does not
        count.
        """
        usage = self._usage()
        return (
            self._head("chat.completion.chunk") | {"choices": [], "usage": usage} if usage else None
        )

    def answer(self) -> Json:
        """Return the whole reply."""
        message: Json = {"role": "assistant", "content": "".join(self._text)}
        if self._calls:
            message["tool_calls"] = [call for _, call in sorted(self._calls.items())]
        choice: Json = {"index": 0, "message": message, "finish_reason": self._reason()}
        if self._cited:
            choice[REFS] = [*self._cited.values()]
        answer = self._head("chat.completion") | {"choices": [choice]}
        if usage := self._usage():
            answer["usage"] = usage
        return self._extra_fields.merge_into(answer, "message", last=True)

    def _head(self, kind: str) -> Json:
        return {"id": self._id, "object": kind, "created": self._created_s, "model": self._model}

    def _said(self, text: str | None) -> Json:
        delta: Json = {} if text is None and not self._with_nulls else {"content": text}
        return delta | {"role": None} if self._with_nulls and self._begun else delta

    def _chunk(
        self, delta: Json, extras: Extras | None = None, finish_reason: str | None = None
    ) -> Json:
        if not self._begun:
            delta["role"] = "assistant"
            self._begun = True
        extras = extras or _NOTHING
        choice: Json = {
            "index": 0,
            "delta": delta | _new(extras.message, delta),
            "finish_reason": finish_reason,
        }
        chunk = self._head("chat.completion.chunk") | {
            "choices": [choice | _new(extras.choice, choice)]
        }
        chunk |= _new({**self._waiting, **extras.answer}, chunk)
        self._waiting = {}
        return chunk

    def _add_call(self, piece: ToolCall) -> None:
        call = self._calls.setdefault(
            piece.index,
            {"id": piece.id, "type": "function", "function": {"name": "", "arguments": ""}},
        )
        call["function"]["name"] = piece.name or call["function"]["name"]
        call["function"]["arguments"] += piece.arguments

    def _reason(self) -> str:
        return self._finished.finish_reason or ("tool_calls" if self._calls else "stop")

    def _usage(self) -> Json | None:
        finished = self._finished
        if finished.usage is not None:
            return dict(finished.usage)
        if finished.prompt_tokens is None or finished.completion_tokens is None:
            return None
        total = finished.prompt_tokens + finished.completion_tokens
        counted = {
            "prompt_tokens": finished.prompt_tokens,
            "completion_tokens": finished.completion_tokens,
        }
        return counted | {"total_tokens": total}


class ExtraFields:
    """Extra fields of the model's server, collected until a chunk leaves that can hold
    them.

    Texts and lists are concatenated. Extra fields of the reply's end belong to the last
    chunk; its lists are complete (all references) and replace the collected ones.
    """

    def __init__(self) -> None:
        self._message: Json = {}
        self._choice: Json = {}
        self._answer: Json = {}
        self._at_the_end = _NOTHING

    def collect_part(self, part: ReplyPart) -> None:
        """Collect the extra fields of a part."""
        match part:
            case ReplyFinished():
                # Held back: they belong to the last chunk only.
                self._at_the_end = part.extras or _NOTHING
            case ThoughtDelta():
                # Thoughts are text, so pieces are concatenated.
                _gather(self._message, {THOUGHTS: part.text} if part.text else {}, (str,))
                self._keep(part.extras or _NOTHING)
            case TextDelta():
                self._keep(part.extras or _NOTHING)
            case Extras():
                self._keep(part)
            case _:
                pass

    def merge_into(self, answer: Json, said: str, *, last: bool) -> Json:
        """Return the answer with all collected fields, and start anew.

        ``said`` is ``message``, or ``delta`` in a chunk. ``last``: it is the whole
        answer, or the last chunk.
        """
        if last:
            self._keep(self._at_the_end, grows=())
        [choice] = answer["choices"]
        choice = choice | {said: choice[said] | _new(self._message, choice[said])}
        answer = answer | {"choices": [choice | _new(self._choice, choice)]}
        answer |= _new(self._answer, answer)
        self._message, self._choice, self._answer = {}, {}, {}
        return answer

    def _keep(self, extras: Extras, grows: tuple[type, ...] = (list,)) -> None:
        _gather(self._message, extras.message, (str, list))
        _gather(self._choice, extras.choice, grows)
        self._answer |= extras.answer


def _call_piece(piece: ToolCall) -> Json:
    """Return the new fields of a tool call: id and name come once, and clients
    concatenate the rest.
    """
    told: Json = {"index": piece.index}
    if piece.id is not None:
        told |= {"id": piece.id, "type": "function"}
    named = {"name": piece.name} if piece.name is not None else {}
    return told | {"function": named | {"arguments": piece.arguments}}


def _new(extras: Mapping[str, object], own: Json) -> Json:
    """Return the extra fields whose names are not taken: they may not overwrite the
    reply.
    """
    return {name: value for name, value in extras.items() if name not in own}


def _gather(whole: Json, more: Mapping[str, object], grows: tuple[type, ...]) -> None:
    """Merge the fields of one piece into those of the earlier pieces.

    Values of the types in ``grows`` are extended; other values are replaced. Lists
    inside an object are always extended, such as the log probabilities of all tokens.
    """
    for name, value in more.items():
        before = whole.get(name)
        if isinstance(before, dict) and isinstance(value, Mapping):
            _gather(before, value, (list,))
        elif isinstance(before, list) and isinstance(value, list) and list in grows:
            before.extend(value)
        elif isinstance(before, str) and isinstance(value, str) and str in grows:
            whole[name] = before + value
        else:
            whole[name] = _own(value)


def _own(value: object) -> object:
    """Copy a value that may be extended later: the original belongs to its part."""
    if isinstance(value, Mapping):
        return {name: _own(item) for name, item in value.items()}
    return list(value) if isinstance(value, list) else value
