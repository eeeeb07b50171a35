from voicechat.server.rest.completion import Completion
from voicechat.session.types import ToolCall


def test_calls_without_ids_have_one_in_the_stream_as_in_the_whole_answer() -> None:
    completion = Completion("c", 0, "m", with_nulls=False)
    pieces = [
        ToolCall(0, None, "f", '{"a"'),
        ToolCall(0, "", None, ":1}"),
        ToolCall(0, "", "g", "{}"),
    ]
    chunks = [chunk for piece in pieces for chunk in completion.add_part(piece)]
    told = [call for chunk in chunks for call in chunk["choices"][0]["delta"]["tool_calls"]]
    assert [(call["index"], call.get("id")) for call in told] == [
        (0, "call_c_0"),
        (0, None),
        (1, "call_c_1"),
    ]
    whole = completion.answer()["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]) for call in whole] == [
        ("call_c_0", {"name": "f", "arguments": '{"a":1}'}),
        ("call_c_1", {"name": "g", "arguments": "{}"}),
    ]
