"""Converts the events of an OpenAI chat completion stream to parts of a reply. No I/O.

Compatible servers agree only on the core. An event is therefore read as a plain object,
of which the first choice's ``delta``, ``message`` or ``text``, its ``finish_reason``,
``usage`` and a real ``error`` are used. Values that are missing, null or of another
type count as absent. An event that is not a JSON object is skipped. A reply fails only
if it has nothing usable, if the server reports an error, or if the body was cut off.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import Extras, ReplyFinished, ReplyPart, TextDelta, ThoughtDelta
from voicechat.providers.lenient_json import (
    SurrogateJoiner,
    may_hold_halves,
    read_json,
    well_formed,
)
from voicechat.providers.openai_errors import error_in, reported
from voicechat.providers.reasoning import ThoughtFilter
from voicechat.session.tool_calls import UNMADE, ToolCallAccumulator
from voicechat.session.types import ToolCall

DONE = "[DONE]"

_ANSWER_FIELDS = frozenset(("id", "object", "created", "model", "choices", "usage", "error"))
_CHOICE_FIELDS = frozenset(("index", "delta", "message", "text", "finish_reason"))
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""The field of the model's thoughts: in DeepSeek, vLLM and SGLang; in OpenRouter and
Ollama; in others.
"""
_MESSAGE_FIELDS = frozenset(("role", "content", "tool_calls", "function_call", *_THOUGHT_FIELDS))

_NO_REASON = ("", "null", "none")
"""Finish reasons with which some servers indicate that the reply continues."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Closing:
    """The known parts of the end of a reply."""

    reason: str = ""
    usage: Mapping[str, object] | None = None
    extras: dict[str, dict[str, object]] = field(
        default_factory=lambda: {"message": {}, "choice": {}, "answer": {}}
    )

    def add(self, extras: Extras) -> None:
        self.extras["message"] |= extras.message
        self.extras["choice"] |= extras.choice
        self.extras["answer"] |= extras.answer


class ChatStream:
    """Parses one reply. Text parts are in order; ``ReplyFinished`` waits for the usage,
    which comes after the finish reason.
    """

    def __init__(self, provider: str, *, starts_thinking: bool = False) -> None:
        """``starts_thinking``: the reply begins within a thought, because the opening
        tag is part of the server's template.
        """
        self._provider = provider
        self._thoughts = ThoughtFilter(inside=starts_thinking)
        self._calls = ToolCallAccumulator(None)
        self._index = 0
        """Index of the call that the last piece belonged to."""
        self._halves: defaultdict[str | int, SurrogateJoiner] = defaultdict(SurrogateJoiner)
        """One each for the text, the thoughts, and the arguments of each call."""
        self._closing = _Closing()
        self._whole_text = ""
        """The text so far, if a server sends whole messages in place of deltas."""
        self._held: ToolCall | None = None
        """The start of a call whose arguments are ``{}`` so far. It is held back,
        because some servers begin all arguments with ``{}``.
        """
        self._bare: set[int] = set()
        """Calls without arguments so far."""
        self._said = self._called = self._answered = False
        self._skipped = 0
        self.done = False
        """Whether the server has sent ``[DONE]``."""

    @property
    def closing(self) -> bool:
        """Whether the reply is complete, so that at most its usage is missing."""
        return self.done or bool(self._closing.reason)

    def push_event(self, data: str) -> Iterator[ReplyPart]:
        """Parse one event, or a whole answer. Raises `ProviderError` for the server's
        error object.
        """
        data = data.strip()
        while data.startswith("data:"):
            data = data.removeprefix("data:").lstrip()  # an event that was framed twice
        if not data:
            return  # a heartbeat
        if data == DONE:
            self.done = True
            return
        answers = read_json(data)
        if (error := error_in(answers)) is not None:
            raise reported(self._provider, error)
        for answer in answers if isinstance(answers, list) else [answers]:
            yield from self._push_answer(answer, halved=may_hold_halves(data))

    def _push_answer(self, answer: object, *, halved: bool) -> Iterator[ReplyPart]:
        if not isinstance(answer, dict):
            self._skipped += 1
            return
        answer = _in_openai_form(answer)
        usage = answer.get("usage")
        if isinstance(usage, dict):
            self._closing.usage = _present(usage)
        others = _others(answer, _ANSWER_FIELDS)
        choice = _first_choice(answer.get("choices"))
        if choice is not None:
            self._answered = True
            yield from self._read_choice(choice, others, halved=halved)
        elif others:
            self._closing.add(_extras({}, {}, others, halved=halved) or Extras())

    def finish_reply(self, *, cut_off: bool = False) -> Iterator[ReplyPart]:
        """End the reply. ``cut_off``: the body ended within an event.

        Raises `ProviderError`: CONNECTIVITY if the body ended too early, BROKEN if it
        contained no reply.
        """
        if self._skipped:
            logger.warning(
                "%s: %d events of a reply were no JSON objects", self._provider, self._skipped
            )
        if not self.closing and (cut_off or not (self._answered or self._skipped)):
            raise ProviderError(self._provider, FailureKind.CONNECTIVITY, "the reply broke off")
        if not self._answered:
            raise ProviderError(
                self._provider, FailureKind.BROKEN, "nothing of the answer was a chat completion"
            )
        if rest := self._thoughts.finish_text():
            yield TextDelta(rest)
        closing = self._closing
        reason = closing.reason or "stop"
        yield from self._end_calls(reason)
        if reason in ("stop", "function_call") and self._called:
            reason = "tool_calls"  # as OpenAI does; some servers do not
        usage = closing.usage or {}
        extras = Extras(**closing.extras) if any(closing.extras.values()) else None
        prompt, completion = (
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
        )
        yield ReplyFinished(reason, prompt, completion, closing.usage, extras)

    def _read_choice(
        self, choice: dict[str, object], others: dict[str, object], *, halved: bool
    ) -> Iterator[ReplyPart]:
        said = self._message_in(choice)
        extras = _extras(
            _others(said, _MESSAGE_FIELDS), _others(choice, _CHOICE_FIELDS), others, halved=halved
        )
        reason = choice.get("finish_reason")
        thought = self._whole("thought", _thought_of(said))
        given = self._whole("text", _text_of(said.get("content")) or _text_of(said.get("refusal")))
        text = self._thoughts.push_text(given) if given else ""
        if thought or (given and not text):
            yield ThoughtDelta(thought, None if text else extras)
        if text:
            self._said = True
            yield TextDelta(text, extras)
        closes = isinstance(reason, str) and reason.lower() not in _NO_REASON
        if closes:
            self._closing.reason = str(reason)
        if extras is not None and not (thought or given):
            if closes:
                self._closing.add(extras)
            elif any(extras.message.values()):
                yield ThoughtDelta("", extras)  # an unknown field is most likely a thought
            else:
                yield extras
        yield from self._read_calls(said.get("tool_calls") or _older_call(said))

    def _message_in(self, choice: dict[str, object]) -> dict[str, object]:
        """Return what a choice adds to the message; of a whole message, the part that
        is new.

        After deltas, a whole message repeats them. Several whole messages are pieces,
        or each repeats the one before it.
        """
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(delta, dict) and delta:
            return delta
        if not isinstance(message, dict):
            return {"content": choice.get("text")}
        if (self._said or self._called) and not self._whole_text:
            return {}
        text = _text_of(message.get("content"))
        new = text.removeprefix(self._whole_text) if self._whole_text else text
        self._whole_text = self._whole_text + new
        return {**message, "content": new} if new != text else message

    def _read_calls(self, calls: object) -> Iterator[ToolCall]:
        for call in _list(calls):
            if (
                isinstance(call, dict)
                and (piece := self._calls.add_piece(self._piece_of(call))) is not None
            ):
                self._called = True
                yield from self._pass_call(
                    replace(piece, arguments=self._whole(piece.index, piece.arguments))
                )

    def _piece_of(self, call: dict[str, object]) -> ToolCall:
        function = call.get("function")
        function = function if isinstance(function, dict) else call
        index = call.get("index")
        if isinstance(index, str) and index.isdecimal():
            index = int(index)
        if isinstance(index, int):
            self._index = index  # a piece without an index continues the call before it
        return ToolCall(
            self._index,
            _mended_or_none(call.get("id")),
            _mended_or_none(function.get("name")),
            _arguments(function.get("arguments")),
        )

    def _pass_call(self, piece: ToolCall) -> Iterator[ToolCall]:
        """Yield a piece of a call, or hold it back: some servers begin all arguments
        with ``{}``.
        """
        if piece.name and piece.arguments.strip() == "{}":
            yield from self._release_held()
            self._held = piece
            return
        if self._held is not None and self._held.index == piece.index:
            held, self._held = self._held, None
            yield replace(held, arguments="" if piece.arguments.strip() else "{}")
        else:
            yield from self._release_held()
        if piece.name:
            self._bare.add(piece.index)
        if piece.arguments.strip():
            self._bare.discard(piece.index)
        yield piece

    def _release_held(self) -> Iterator[ToolCall]:
        if self._held is not None:
            yield self._held
            self._held = None

    def _end_calls(self, reason: str) -> Iterator[ToolCall]:
        """End the calls. A call without arguments gets an empty object."""
        yield from self._release_held()
        if reason not in UNMADE:
            yield from (ToolCall(place, None, None, "{}") for place in sorted(self._bare))

    def _whole(self, of: str | int, text: str) -> str:
        return self._halves[of].push_text(text) if text else ""


def _in_openai_form(answer: dict[str, object]) -> dict[str, object]:
    """Return an answer of Ollama's own API (``/api/chat``, ``/api/generate``) in
    OpenAI's form. Other answers are returned unchanged.
    """
    said = answer.get("message")
    if not isinstance(said, dict) and isinstance(answer.get("response"), str):
        said = {"content": answer["response"], "thinking": answer.get("thinking")}
    if "choices" in answer or not isinstance(said, dict):
        return answer
    reason = (answer.get("done_reason") or "stop") if answer.get("done") else None
    counts = {
        "prompt_tokens": answer.get("prompt_eval_count"),
        "completion_tokens": answer.get("eval_count"),
    }
    return {
        "choices": [{"delta": said, "finish_reason": reason}],
        "usage": counts if any(counts.values()) else None,
    }


def _first_choice(choices: object) -> dict[str, object] | None:
    if isinstance(choices, dict):  # one choice in place of a list, or choices by index
        by_index = all(isinstance(choice, dict) for choice in choices.values())
        choices = list(choices.values()) if by_index and "0" in choices else [choices]
    for choice in _list(choices):
        if isinstance(choice, dict):
            index = choice.get("index")
            if index == 0 or not isinstance(index, int):
                return choice
    return None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _text_of(content: object) -> str:
    """Return a content's text; for a list of parts, that of the text parts without
    thoughts.
    """
    if isinstance(content, list):
        return "".join(map(_text_of, content))
    if isinstance(content, dict) and content.get("type") not in ("thinking", "reasoning"):
        content = content.get("text")
    return content if isinstance(content, str) else ""


def _thought_of(message: Mapping[str, object]) -> str:
    for name in _THOUGHT_FIELDS:
        if isinstance(thought := message.get(name), str) and thought:
            return thought
    content = message.get("content")
    parts = content if isinstance(content, list) else ()
    return "".join(_text_of(part.get("thinking")) for part in parts if isinstance(part, dict))


def _older_call(message: Mapping[str, object]) -> list[object]:
    """Return a call in OpenAI's older form, ``function_call``, as a list of calls."""
    function = message.get("function_call")
    return [{"index": 0, "function": function}] if isinstance(function, dict) else []


def _arguments(arguments: object) -> str:
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _mended_or_none(value: object) -> str | None:
    return str(well_formed(value)) if isinstance(value, str) else None


def _others(of: Mapping[str, object], known: frozenset[str]) -> dict[str, object]:
    return {key: value for key, value in of.items() if key not in known and value is not None}


def _present(usage: Mapping[str, object]) -> Mapping[str, object]:
    return {key: value for key, value in usage.items() if value is not None}


def _extras(
    message: dict[str, object],
    choice: dict[str, object],
    answer: dict[str, object],
    *,
    halved: bool,
) -> Extras | None:
    if not (message or choice or answer):
        return None
    groups = [message, choice, answer]
    if halved:
        groups = [
            {str(well_formed(key)): well_formed(value) for key, value in group.items()}
            for group in groups
        ]
    return Extras(message=groups[0], choice=groups[1], answer=groups[2])


def _count(tokens: object) -> int | None:
    return (
        tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None
    )
