"""The tool calls of a reply: assembled from pieces, answered in any order, stored in
the order of the calls.

A model must never read a call without its answer. So every call gets one: the tool's,
or a sentence that explains why there is none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from voicechat.session.snapshot import ExchangeSnapshot
from voicechat.session.types import Message, ToolCall, ToolExchange

MOST_CALLS = 64
"""The most calls in one answer of the model; further ones are ignored."""
UNMADE = ("length", "content_filter")
"""The reasons with which a model stops in the middle of a call; the incomplete call is
dropped.
"""

NO_ANSWER_IN_TIME = "No answer came in time."
STOPPED = "The reply was stopped before the answer came."
NOT_TOLD = "The call was handed to the client, which does not tell its result."


@dataclass(slots=True)
class _Gathered:
    """A call while it comes in pieces. ``id`` is made here if the server's is missing
    or taken.
    """

    id: str | None
    given_id: str | None
    name: str | None
    arguments: list[str]

    @property
    def complete(self) -> bool:
        """Whether the arguments so far are a whole JSON object."""
        return is_json_object("".join(self.arguments))


class ToolCallAccumulator:
    """Assembles the calls of one answer of the model from their pieces.

    Servers differ: some send no id, some send every call with the index 0, some send
    each piece with its own id. A call begins with its name; a piece without a name
    continues the call of its index, whatever its id. This class numbers calls from 0
    without gaps.
    """

    def __init__(self, prefix: str | None) -> None:
        """``prefix`` begins the ids that are made for calls without one; None: a
        missing id stays missing.
        """
        self._prefix = prefix
        self._calls: list[_Gathered] = []
        self._places: dict[int, int] = {}

    def add_piece(self, piece: ToolCall) -> ToolCall | None:
        """Add a piece; return it as it is sent to the client.

        None: there are too many calls, or the piece repeats a whole call.
        """
        place = self._places.get(piece.index)
        if place is None or _begins(piece, self._calls[place]):
            return self._begin(piece)
        call = self._calls[place]
        if piece.name and call.complete:
            return None
        name = None if call.name else piece.name
        call.name = call.name or name
        call.arguments.append(piece.arguments)
        return ToolCall(place, None, name, piece.arguments)

    def finish_calls(self, reason: str) -> tuple[ToolCall, ...]:
        """Return the whole calls; none if ``reason`` says that the model stopped within
        them.
        """
        if reason in UNMADE:
            return ()
        return tuple(
            ToolCall(place, call.id, call.name, "".join(call.arguments))
            for place, call in enumerate(self._calls)
            if call.name
        )

    def name_of(self, place: int) -> str | None:
        """Return the name of the tool that call number ``place`` calls, once it is
        known.
        """
        return self._calls[place].name

    def _begin(self, piece: ToolCall) -> ToolCall | None:
        place = len(self._calls)
        if place == MOST_CALLS:
            return None
        taken = {call.id for call in self._calls}
        made_up = None if self._prefix is None else f"{self._prefix}_{place}"
        own_id = piece.id if piece.id and piece.id not in taken else made_up
        self._calls.append(
            _Gathered(own_id, piece.id or None, piece.name or None, [piece.arguments])
        )
        self._places[piece.index] = place
        return ToolCall(place, own_id, piece.name or None, piece.arguments)


def _begins(piece: ToolCall, call: _Gathered) -> bool:
    """Whether ``piece``, which has the index of ``call``, begins another call.

    Some servers repeat the name in each piece, and some make an id for each. So a
    repeated name begins a call only if the earlier arguments are complete, or have not
    begun under another id, and the ids do not show that it is the same call.
    """
    if not piece.name or not call.name:
        return False
    if piece.name != call.name:
        return True
    if piece.id and call.given_id:
        return piece.id != call.given_id and (call.complete or not any(call.arguments))
    return call.complete


@dataclass(slots=True)
class _Exchange:
    position: int
    """Characters of the reply's text before the calls."""
    calls: tuple[ToolCall, ...]
    answers: dict[str, str] = field(default_factory=dict)


class ReplyTools:
    """The tool calls of one reply, and their answers."""

    def __init__(self, reply: int) -> None:
        self._reply = reply
        self._exchanges: list[_Exchange] = []
        self.rounds = 0
        """How often the model has called tools of the client."""
        self.asked_ms: int | None = None
        """When the client was asked for answers; None: none are awaited."""
        self._gathered = self._new()

    def snapshot(self) -> tuple[ExchangeSnapshot, ...]:
        """Return the completed calls. Calls that are still coming in pieces are left
        out.
        """
        return tuple(
            ExchangeSnapshot(position=made.position, calls=made.calls, answers=dict(made.answers))
            for made in self._exchanges
        )

    def restore(self, kept: Sequence[ExchangeSnapshot], rounds: int) -> None:
        """Continue from a snapshot."""
        self._exchanges = [
            _Exchange(made.position, made.calls, dict(made.answers)) for made in kept
        ]
        self.rounds = rounds
        self._gathered = self._new()

    def split_unanswered(self) -> tuple[ExchangeSnapshot, ...]:
        """Remove the calls that the client has not answered, and return them as they
        would stand at the beginning of another reply.
        """
        last = self._exchanges.pop()
        self.asked_ms = None
        return (ExchangeSnapshot(position=0, calls=last.calls, answers=last.answers),)

    def add_piece(self, piece: ToolCall) -> ToolCall | None:
        """Add a piece of a call; return it as it is sent to the client, None if it is
        not sent.
        """
        return self._gathered.add_piece(piece)

    def finish_answer(self, reason: str, position: int) -> bool:
        """End an answer of the model, which stopped for ``reason``, ``position``
        characters into the text; return whether it called tools.
        """
        calls = self._gathered.finish_calls(reason)
        if not calls:
            return False
        self.rounds += 1
        self._gathered = self._new()
        self._exchanges.append(_Exchange(position, calls))
        return True

    def move_calls(self, position: int) -> None:
        """Move the last calls to ``position`` in the text, because a filler was spoken
        before their answers.
        """
        self._exchanges[-1].position = position

    def await_answers(self, now_ms: int) -> None:
        """Await the client's answers to the calls that were just completed."""
        self.asked_ms = now_ms

    def record_exchange(self, exchange: ToolExchange, position: int) -> None:
        """Store calls that the server carried out, ``position`` characters into the
        text.
        """
        answers = zip(exchange.calls, exchange.answers, strict=True)
        self._exchanges.append(
            _Exchange(
                position, exchange.calls, {str(call.id): answer.content for call, answer in answers}
            )
        )

    @property
    def awaited(self) -> tuple[str, ...]:
        """The ids of the calls that the client has not answered."""
        if self.asked_ms is None:
            return ()
        return self._unanswered()

    def answer_call(self, call_id: str, content: str) -> None:
        """Store the client's answer to an awaited call."""
        self._exchanges[-1].answers[call_id] = content

    def abandon_calls(self, why: str) -> int:
        """Answer every open call of the model's last answer with ``why``; return their
        number.
        """
        unanswered = self._unanswered()
        for call_id in unanswered:
            self.answer_call(call_id, why)
        return len(unanswered)

    def _unanswered(self) -> tuple[str, ...]:
        if not self._exchanges:
            return ()
        last = self._exchanges[-1]
        return tuple(str(call.id) for call in last.calls if call.id not in last.answers)

    def messages(self, text: str) -> list[Message]:
        """Return the messages of the reply for the history: its ``text``, which may be
        only the part that was heard, with the tool calls and their answers.
        """
        messages: list[Message] = []
        begin = 0
        for exchange in self._exchanges:
            said = text[begin : exchange.position].strip()
            messages += exchange_messages(said, exchange.calls, exchange.answers)
            begin = exchange.position
        if text[begin:].strip():
            messages.append({"role": "assistant", "content": text[begin:]})
        return messages

    def _new(self) -> ToolCallAccumulator:
        return ToolCallAccumulator(f"call_{self._reply}_{self.rounds}")


def options_after_calls(options: Mapping[str, object], *, may_call: bool) -> dict[str, object]:
    """Return the options for the request after tool calls. They do not contain a forced
    choice, which would force a call each time.
    """
    after = {name: value for name, value in options.items() if name != "tool_choice"}
    if not may_call or options.get("tool_choice") == "none":
        after["tool_choice"] = "none"
    return after


def exchange_messages(
    said: str, calls: Sequence[ToolCall], answers: Mapping[str, str]
) -> list[Message]:
    """Return the messages of one answer of the model that called tools; ``answers`` are
    by the calls' ids.
    """
    messages: list[Message] = [
        {
            "role": "assistant",
            "content": said,
            "tool_calls": [_call_message(call) for call in calls],
        }
    ]
    for call in calls:
        answer = answers.get(str(call.id), STOPPED)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": answer})
    return messages


def _call_message(call: ToolCall) -> Message:
    """Return a call in the form that the model reads. Invalid arguments become ``{}``,
    because a model's server would refuse the whole request.
    """
    arguments = call.arguments if is_json_object(call.arguments) else "{}"
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def is_json_object(text: str) -> bool:
    """Whether ``text`` is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
