"""Assembles the deltas of tool calls to whole calls."""

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
"""Calls are made only if the reply ends with this finish reason (contract)."""


class ToolCallAssembler:
    """Assembles the calls of one reply at a time; replies do not interleave."""

    def __init__(self) -> None:
        self._calls: dict[int, list[ToolCallPiece]] = {}

    def add_message(self, message: ServerMessage) -> list[ServerMessage]:
        """Return the messages to deliver in place of ``message``."""
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
