"""Joins the pieces of tool calls to whole calls."""

from voicechat.client.messages import (
    CanceledMessage,
    ReplyTextMessage,
    ServerMessage,
    ToolCallMessage,
    ToolCallPiece,
    ToolCallPiecesMessage,
    TurnCompletedMessage,
)

MADE = "tool_calls"
"""The finish reason at which calls are made; before it, or with another one, they are
not (contract).
"""


class ToolCallAssembler:
    """The calls of one reply at a time, which is how they come."""

    def __init__(self) -> None:
        self._calls: dict[int, list[ToolCallPiece]] = {}

    def add_message(self, message: ServerMessage) -> list[ServerMessage]:
        """Give what the user of a conversation is told instead of ``message``."""
        match message:
            case ToolCallPiecesMessage():
                for piece in message.pieces:
                    self._calls.setdefault(piece.index, []).append(piece)
                return []
            case ReplyTextMessage(finish_reason=str() as reason):
                calls, self._calls = self._calls, {}
                made = [_join(message.reply_id, pieces) for _, pieces in sorted(calls.items())]
                return [message, *(made if reason == MADE else ())]
            case CanceledMessage() | TurnCompletedMessage():
                self._calls = {}
                return [message]
            case _:
                return [message]


def _join(reply_id: str, pieces: list[ToolCallPiece]) -> ToolCallMessage:
    def first(values: list[str]) -> str:
        return next((value for value in values if value), "")

    call_id, name = first([piece.id for piece in pieces]), first([piece.name for piece in pieces])
    return ToolCallMessage(reply_id, call_id, name, "".join(piece.arguments for piece in pieces))
