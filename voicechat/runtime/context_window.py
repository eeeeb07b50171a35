"""Prepare the history of a conversation for a chat model's server.

The kernel remembers what happened: a turn that was never answered, a reply that was
stopped while a tool was running, an assistant that spoke first. Many servers refuse
such a history, because their model's template requires roles that alternate and begin
with the user, and all servers refuse a history that is longer than the model's context
window. Both are corrected here, just before the request, and nowhere else.
"""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence, Set
from dataclasses import replace
from functools import cached_property
from itertools import chain

from voicechat.errors import CONTEXT_TOO_LONG, RequestRefusedError
from voicechat.providers.interfaces import ChatModel, ChatRequest, ReplyPart
from voicechat.providers.wrapping import WrappingModel
from voicechat.runtime.provider_deadlines import closing
from voicechat.session.types import Message

OPENING = "(The conversation begins.)"
"""The user's message in front of an assistant message that has none before it."""
ACKNOWLEDGED = "OK."
"""The assistant's message between a tool's answer and the user's next message."""
GO_ON = "(Please go on.)"
"""The user's message after an assistant message that would otherwise be the last."""
ATTEMPTS = 4
"""How often one request is made; each retry has at most half of the refused history.
"""

_INSTRUCTIONS = ("system", "developer")


def acceptable(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the same conversation in an order that every server accepts.

    Instructions are joined to one system message, which comes first. The user begins;
    neighbours of one role are joined; the answers of tools follow their calls, and an
    assistant's message follows those; the last message is the user's or a tool's. A
    call without an answer, an answer without a call, and a message without content are
    dropped. No two calls have the same id.
    """
    instructions: Message | None = None
    ordered: list[Message] = []
    for message in _paired(messages):
        role = message.get("role")
        if role in _INSTRUCTIONS:
            more = message if role == "system" else {**message, "role": "system"}
            instructions = more if instructions is None else _joined(instructions, more)
            continue
        last = ordered[-1] if ordered else None
        last_role = last.get("role") if last is not None else None
        if last is not None and role == last_role != "tool" and "tool_calls" not in last:
            # Two messages of one role. Answers of tools stay separate, and so does a
            # call, because its answers follow it.
            ordered[-1] = _joined(last, message)
            continue
        if role == "assistant" and last is None:
            # Templates require that the user begins.
            ordered.append({"role": "user", "content": OPENING})
        elif role == "user" and last_role == "tool":
            # The reply was stopped before the model spoke about the tool's answer.
            ordered.append({"role": "assistant", "content": ACKNOWLEDGED})
        ordered.append(message)
    if not ordered:
        # Instructions only, as for a greeting that the model generates.
        ordered.append({"role": "user", "content": OPENING})
    elif ordered[-1].get("role") == "assistant":
        ordered.append({"role": "user", "content": GO_ON})
    return (instructions, *ordered) if instructions is not None else tuple(ordered)


class ContextWindow(WrappingModel):
    """A `ChatModel` around another one, for one conversation: it sends a history that
    the server accepts.

    When the server says that the conversation is too long, the oldest whole turns are
    dropped and the request is repeated. Later requests stay below three quarters of the
    length that was refused, so that the next turns are not refused as well. The
    beginning of the history changes seldom, because servers cache the prefix of a
    prompt.
    """

    def __init__(self, model: ChatModel) -> None:
        super().__init__(model)
        self._refused_characters: int | None = None
        """The length of the shortest history that the server refused, in characters."""
        self._left_out = 0
        """How many of the oldest turns are dropped."""

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
        """Stream the model's reply. Raises what the model raises when no turn is left
        to drop.
        """
        history = _History(acceptable(request.messages))
        for attempts_left in reversed(range(ATTEMPTS)):
            self._fit(history)
            parts = self._inner.reply(replace(request, messages=history.without(self._left_out)))
            try:
                async with closing(parts):
                    async for part in parts:
                        yield part
                return
            except RequestRefusedError as refusal:
                if (
                    refusal.code != CONTEXT_TOO_LONG
                    or not attempts_left
                    or self._left_out == history.most_left_out
                ):
                    raise
                self._refused_characters = history.characters(self._left_out)

    async def prepare(self, request: ChatRequest) -> None:
        """Have the model process the prompt that ``reply`` would send first."""
        history = _History(acceptable(request.messages))
        self._fit(history)
        await super().prepare(replace(request, messages=history.without(self._left_out)))

    def _fit(self, history: "_History") -> None:
        """Keep the number of dropped turns if the history fits. Otherwise drop as few
        turns as possible so that at most half of the refused length is left.
        """
        refused = self._refused_characters
        if refused is None or history.characters(0) * 4 <= refused * 3:
            self._left_out = 0
        elif (
            self._left_out > history.most_left_out
            or history.characters(self._left_out) * 4 > refused * 3
        ):
            fitting = (
                n for n in range(history.most_left_out) if history.characters(n) * 2 <= refused
            )
            self._left_out = next(fitting, history.most_left_out)


class _History:
    """Instructions, followed by turns. A turn is a message of the user and everything
    up to the next one.
    """

    def __init__(self, messages: tuple[Message, ...]) -> None:
        begins = [index for index, message in enumerate(messages) if message.get("role") == "user"]
        self._instructions = messages[: begins[0]]
        ends = (*begins[1:], len(messages))
        self._turns = [messages[begin:end] for begin, end in zip(begins, ends, strict=True)]

    @property
    def most_left_out(self) -> int:
        """The number of turns without the last one, which is never dropped."""
        return len(self._turns) - 1

    def without(self, turns: int) -> tuple[Message, ...]:
        """Return the messages without the oldest ``turns``."""
        return (*self._instructions, *chain.from_iterable(self._turns[turns:]))

    def characters(self, without: int) -> int:
        """Return the length as JSON, in characters, without the oldest ``without``
        turns.
        """
        instructions, *turns = self._lengths
        return instructions + sum(turns[without:])

    @cached_property
    def _lengths(self) -> list[int]:
        parts = (self._instructions, *self._turns)
        return [len(json.dumps(part, ensure_ascii=False, default=str)) for part in parts]


def _paired(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with each tool call followed by its answers. Calls without an
    answer and answers without a call are dropped.

    A server may use the same id for calls of two turns, and refuse a history that
    contains it twice; the second one is renamed.
    """
    paired: list[Message] = []
    ids: set[object] = set()
    for index, message in enumerate(messages):
        calls = _list(message.get("tool_calls"))
        if message.get("role") == "tool":
            continue
        if message.get("role") != "assistant" or not calls:
            if _has_content(message):
                paired.append(message)
            continue
        answers = {
            answer.get("tool_call_id"): answer for answer in _answers_behind(messages, index)
        }
        answered = [
            call for call in calls if isinstance(call, Mapping) and call.get("id") in answers
        ]
        if not answered:
            if _has_content(message):
                paired.append({key: value for key, value in message.items() if key != "tool_calls"})
            continue
        known = {call["id"]: _unused(call["id"], ids) for call in answered}
        ids |= set(known.values())
        renamed = [
            call if known[call["id"]] == call["id"] else {**call, "id": known[call["id"]]}
            for call in answered
        ]
        unchanged = len(answered) == len(calls) and all(
            one is two for one, two in zip(renamed, calls, strict=True)
        )
        paired.append(message if unchanged else {**message, "tool_calls": renamed})
        for old, new in known.items():
            paired.append(answers[old] if old == new else {**answers[old], "tool_call_id": new})
    return paired


def _unused(call_id: object, ids: Set[object]) -> object:
    """Return ``call_id``, or an id derived from it if it is in ``ids`` already."""
    free, number = call_id, 1
    while free in ids:
        number += 1
        free = f"{call_id}_{number}"
    return free


def _answers_behind(messages: Sequence[Message], index: int) -> list[Message]:
    """Return the tools' answers between message ``index`` and the assistant's next
    calls.
    """
    answers: list[Message] = []
    for message in messages[index + 1 :]:
        if message.get("role") == "tool":
            answers.append(message)
        elif message.get("tool_calls"):
            break
    return answers


def _joined(first: Message, second: Message) -> Message:
    """Join two messages of one role. Where both have another key, the second one's
    value is kept.
    """
    one, two = first.get("content"), second.get("content")
    content: object
    if isinstance(one, str) and isinstance(two, str):
        content = "\n".join(filter(None, (one.strip(), two.strip())))
    else:
        content = [*_parts(one), *_parts(two)] or None
    return {**first, **second, "content": content}


def _parts(content: object) -> list[object]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content) if isinstance(content, list | tuple) else []


def _has_content(message: Message) -> bool:
    content = message.get("content")
    return bool(content.strip() if isinstance(content, str) else content)


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()
