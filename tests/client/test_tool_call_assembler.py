from voicechat.client import (
    CanceledMessage,
    ReplyTextMessage,
    ServerMessage,
    ToolCallMessage,
    ToolCallPiece,
    ToolCallPiecesMessage,
    chat_settings,
)
from voicechat.client.tool_call_assembler import ToolCallAssembler

TOOL = {"type": "function", "function": {"name": "weather"}}
FIRST = ToolCallPiecesMessage(
    "c-1", (ToolCallPiece(0, "a", "weather", '{"ci'), ToolCallPiece(1, "b", "clock", ""))
)
SECOND = ToolCallPiecesMessage("c-1", (ToolCallPiece(0, "", "", 'ty":1}'),))
MADE = ReplyTextMessage("c-1", "", "tool_calls")


def taken(*messages: ServerMessage) -> list[ServerMessage]:
    joined = ToolCallAssembler()
    return [told for message in messages for told in joined.add_message(message)]


def test_pieces_become_whole_calls_when_the_calls_are_made() -> None:
    calls = [
        ToolCallMessage("c-1", "a", "weather", '{"city":1}'),
        ToolCallMessage("c-1", "b", "clock", ""),
    ]
    assert taken(FIRST, SECOND, MADE) == [MADE, *calls]


def test_a_call_that_was_not_made_is_not_told() -> None:
    cut_off = ReplyTextMessage("c-1", "", "length")
    assert taken(FIRST, cut_off, MADE) == [cut_off, MADE]
    assert taken(FIRST, CanceledMessage(0, ""), MADE) == [CanceledMessage(0, ""), MADE]


def test_the_calls_of_the_next_answer_are_its_own() -> None:
    again = ToolCallPiecesMessage("c-1", (ToolCallPiece(0, "d", "clock", "{}"),))
    assert taken(FIRST, SECOND, MADE, again, MADE)[-1] == ToolCallMessage("c-1", "d", "clock", "{}")


def test_tools_are_set_where_the_contract_has_them() -> None:
    settings = chat_settings(tools=(TOOL,))
    wished = settings["chat_completion_with_voice_output_req"]
    assert isinstance(wished, dict)
    assert wished["chat_completion_req"]["tools"] == [TOOL]
    assert settings["answers_tools"] is True
