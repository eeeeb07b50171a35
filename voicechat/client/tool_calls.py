"""Joins the pieces of tool calls to whole calls."""

from voicechat.client.messages import (
    Canceled,
    ReplyText,
    ServerMessage,
    ToolCalled,
    ToolCallPiece,
    ToolCallPieces,
    TurnCompleted,
)

MADE = "tool_calls"
"""The finish reason at which calls are made; before it, or with another one, they are
not (contract).
"""


class ToolCallsJoined:
    """The calls of one reply at a time, which is how they come."""

    def __init__(self) -> None:
        self._calls: dict[int, list[ToolCallPiece]] = {}

    def take(self, message: ServerMessage) -> list[ServerMessage]:
        """Give what the user of a conversation is told instead of ``message``."""
        match message:
            case ToolCallPieces():
                for piece in message.pieces:
                    self._calls.setdefault(piece.index, []).append(piece)
                return []
            case ReplyText(finish_reason=str() as reason):
                calls, self._calls = self._calls, {}
                made = [_join(message.reply_id, pieces) for _, pieces in sorted(calls.items())]
                return [message, *(made if reason == MADE else ())]
            case Canceled() | TurnCompleted():
                self._calls = {}
                return [message]
            case _:
                return [message]


def _join(reply_id: str, pieces: list[ToolCallPiece]) -> ToolCalled:
    def first(values: list[str]) -> str:
        return next((value for value in values if value), "")

    call_id, name = first([piece.id for piece in pieces]), first([piece.name for piece in pieces])
    return ToolCalled(reply_id, call_id, name, "".join(piece.arguments for piece in pieces))
