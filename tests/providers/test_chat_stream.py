import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.chat_stream import ChatStream
from voicechat.providers.completion_body import CompletionBody
from voicechat.providers.interfaces import Extras, ReplyFinished, ReplyPart, TextDelta, ThoughtDelta
from voicechat.session.types import ToolCall


def chunk(delta: object = None, finish_reason: str | None = None, **more: object) -> str:
    return json.dumps(
        {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more}
    )


def read(*events: str) -> list[ReplyPart]:
    stream = ChatStream("test")
    return [part for event in events for part in stream.push_event(event)] + list(
        stream.finish_reply()
    )


def test_text_then_the_closing_word_with_the_usage_that_follows_it() -> None:
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    assert read(chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo"}),
                chunk({}, "length"), usage, "[DONE]") == [
        TextDelta("Hel"), TextDelta("lo"),
        ReplyFinished("length", 3, 2, {"prompt_tokens": 3, "completion_tokens": 2}),
    ]  # fmt: skip


def test_what_servers_leave_out_or_write_as_null_does_no_harm() -> None:
    assert read(
        "{}",
        '{"choices": null, "usage": null}',
        '{"choices": [{"delta": null}]}',
        '{"choices": [{"delta": {"content": null, "tool_calls": null, "refusal": null}}]}',
        chunk({"content": "x"}),
        "[DONE]",
    ) == [TextDelta("x"), ReplyFinished()]


def test_thoughts_are_told_apart_from_the_text() -> None:
    assert read(
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "<think>hm"}),
        chunk({"content": "</think>Yes"}),
        "[DONE]",
    ) == [ThoughtDelta("hm"), ThoughtDelta(), TextDelta("Yes"), ReplyFinished()]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_servers_call_thoughts_differently(name: str) -> None:
    assert read(chunk({name: "hm", "content": ""}), chunk({"content": "Yes"}, "stop"))[
        0
    ] == ThoughtDelta("hm")


def test_tool_calls_come_in_pieces() -> None:
    first = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "clock", "arguments": ""},
    }
    second = {"index": 0, "function": {"arguments": '{"zone"'}}
    assert read(
        chunk({"tool_calls": [first]}), chunk({"tool_calls": [second]}), chunk({}, "tool_calls")
    ) == [
        ToolCall(0, "call_1", "clock", ""),
        ToolCall(0, None, None, '{"zone"'),
        ReplyFinished("tool_calls"),
    ]


def calls(*deltas: object) -> list[ReplyPart]:
    return read(*(chunk({"tool_calls": [delta]}) for delta in deltas), "[DONE]")


def test_calls_with_the_same_index_but_other_ids_are_other_calls() -> None:
    one, two = (
        {"index": 0, "id": f"call_{n}", "function": {"name": "f", "arguments": "{}"}}
        for n in (1, 2)
    )
    assert calls(one, two) == [
        ToolCall(0, "call_1", "f", "{}"),
        ToolCall(1, "call_2", "f", "{}"),
        ReplyFinished("tool_calls"),
    ]


def test_an_id_that_is_said_again_is_the_same_call() -> None:
    pieces = [
        {"index": 3, "id": "call_1", "function": {"name": "f", "arguments": part}}
        for part in ("{", "}")
    ]
    assert calls(*pieces)[:-1] == [ToolCall(0, "call_1", "f", "{"), ToolCall(0, None, None, "}")]


def test_whole_calls_with_one_index_and_no_id_are_told_apart_by_their_names() -> None:
    pieces = [
        {"index": 0, "id": call_id, "function": {"name": name, "arguments": arguments}}
        for call_id, name, arguments in (
            ("", "f", '{"a":1}'),
            (None, "g", '{"b":2}'),
            ("", "g", '{"b":3}'),
        )
    ]
    assert calls(*pieces) == [
        ToolCall(0, None, "f", '{"a":1}'),
        ToolCall(1, None, "g", '{"b":2}'),
        ToolCall(2, None, "g", '{"b":3}'),
        ReplyFinished("tool_calls"),
    ]


def test_a_piece_without_an_index_goes_on_with_the_call_before_it() -> None:
    pieces = [
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}},
        {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}},
        {"function": {"arguments": "}"}},
    ]
    assert calls(*pieces)[-2] == ToolCall(1, None, None, "}")


def test_pieces_with_an_id_of_their_own_each_are_one_call() -> None:
    names = ["f", None, None]
    pieces = [
        {"index": 0, "id": f"x{n}", "function": {"name": name, "arguments": "{} "[n]}}
        for n, name in enumerate(names)
    ]
    assert calls(*pieces)[:-1] == [
        ToolCall(0, "x0", "f", "{"),
        ToolCall(0, None, None, "}"),
        ToolCall(0, None, None, " "),
    ]


def test_calls_without_an_index_and_with_arguments_that_are_no_text() -> None:
    parts = calls(
        {"id": "a", "function": {"name": "f", "arguments": {"x": [10**30, "好"]}}},
        {"id": "b", "function": {"name": "g", "arguments": None}},
        {"id": "b", "function": None},
        {"function": "f", "id": 7},
        None,
    )
    told = [(part.index, part.name) for part in parts if isinstance(part, ToolCall)]
    assert told == [(0, "f"), (1, "g"), (1, None), (1, None), (1, None)]
    assert isinstance(parts[0], ToolCall)
    assert json.loads(parts[0].arguments) == {"x": [10**30, "好"]}


def test_a_reason_of_its_own_stands_beside_calls() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f"}}
    assert read(chunk({"tool_calls": [call]}), chunk({}, "stop"))[-1] == ReplyFinished("tool_calls")
    assert read(chunk({"tool_calls": [call]}), chunk({}, "length"))[-1] == ReplyFinished("length")


def test_content_may_come_in_parts_and_thoughts_among_them_are_dropped() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    parts = [thinking, {"type": "text", "text": "Yes"}, {"type": "text", "text": None}]
    assert read(chunk({"content": [thinking]}), chunk({"content": parts}), "[DONE]")[:3] == [
        ThoughtDelta("hm"), ThoughtDelta("hm"), TextDelta("Yes"),
    ]  # fmt: skip


def test_only_the_first_choice_is_spoken() -> None:
    other = json.dumps({"choices": [{"index": 1, "delta": {"content": "no"}}]})
    assert read(other, chunk({"content": "yes"}, "stop")) == [TextDelta("yes"), ReplyFinished()]


def test_half_an_event_can_be_tried_again() -> None:
    stream = ChatStream("test")
    list(stream.push_event(chunk({"content": "half"})))
    with pytest.raises(ProviderError) as caught:
        list(stream.finish_reply(cut_off=True))
    assert caught.value.kind is FailureKind.CONNECTIVITY


def test_a_clean_end_without_a_closing_word_is_the_end_of_the_reply() -> None:
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    assert read(chunk({"content": "Hel"}), chunk({"content": "lo"}), usage)[-1] == ReplyFinished(
        "stop", 3, 2, {"prompt_tokens": 3, "completion_tokens": 2}
    )


@pytest.mark.parametrize(
    "heartbeat", ["", " ", "\n", "ping", "null", "[]", '"x"', "7", "{", '{"a"', "{}", '{"x": 1}']
)
def test_an_event_that_is_no_chunk_is_passed_over(heartbeat: str) -> None:
    assert read(
        heartbeat, chunk({"content": "a"}), heartbeat, chunk({"content": "b"}, "stop"), heartbeat
    )[:2] == [
        TextDelta("a"),
        TextDelta("b"),
    ]


def test_events_that_were_passed_over_are_counted_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read("secret one", "secret two", chunk({"content": "a"}, "stop"))
    assert caplog.messages == ["test: 2 events of a reply were no JSON objects"]


@pytest.mark.parametrize(
    "events", [["<html>"], ["{}"], ["[DONE]"], ['{"usage": {}}', "[DONE]"], ['{"choices": [7]}']]
)
def test_a_reply_of_which_nothing_is_usable_fails(events: list[str]) -> None:
    with pytest.raises(ProviderError):
        read(*events)


def test_wrong_types_count_as_absent() -> None:
    assert read(
        '{"choices": "no"}',
        '{"choices": [null, 7, {"index": "0", "delta": "x", "finish_reason": 3}]}',
        '{"choices": [{"delta": {"content": 7, "tool_calls": {"index": 0}, "reasoning": []}}], '
        '"usage": "none"}',
        '{"choices": [{"delta": {"content": "yes"}}], "usage": {"prompt_tokens": "3", '
        '"completion_tokens": true}}',
        '{"choices": [{"finish_reason": ""}], "error": {}}',
        '{"choices": [{"finish_reason": "length"}], "error": null}',
    ) == [
        TextDelta("yes"),
        ReplyFinished("length", None, None, {"prompt_tokens": "3", "completion_tokens": True}),
    ]


def test_an_answer_in_one_piece_is_a_reply() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {
        "role": "assistant",
        "content": "Hello",
        "reasoning_content": "hm",
        "tool_calls": [call],
    }
    whole = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    assert read(json.dumps(whole)) == [
        ThoughtDelta("hm"),
        TextDelta("Hello"),
        ToolCall(0, "c", "f", "{}"),
        ReplyFinished("tool_calls"),
    ]


def test_a_message_behind_its_own_pieces_is_not_said_twice() -> None:
    last = {"choices": [{"delta": {}, "message": {"content": "Hello"}, "finish_reason": "stop"}]}
    assert read(chunk({"content": "Hel"}), chunk({"content": "lo"}), json.dumps(last)) == [
        TextDelta("Hel"), TextDelta("lo"), ReplyFinished(),
    ]  # fmt: skip


@pytest.mark.parametrize("where", ["content", "reasoning_content"])
def test_the_halves_of_an_emoji_that_was_cut_are_joined(where: str) -> None:
    pieces = ["Hi \ud83d", "\ude00 there", "\ude00 alone \ud83d", "!"]
    parts = read(*(chunk({where: piece}) for piece in pieces))
    text = "".join(part.text for part in parts if isinstance(part, TextDelta | ThoughtDelta))
    assert text == "Hi \U0001f600 there\ufffd alone \ufffd!"


def test_no_half_of_an_emoji_comes_out_anywhere() -> None:
    half = "\ud83d"
    call = {"index": 0, "id": half, "function": {"name": half, "arguments": half}}
    choice = {"delta": {"content": half, "tool_calls": [call], "x": half}, "y": [{half: half}]}
    parts = read(json.dumps({"choices": [choice], "z": half}), chunk({}, "stop", w=half))
    assert [type(part) for part in parts] == [ThoughtDelta, ToolCall, ToolCall, ReplyFinished]
    assert not any("\\ud83d" in repr(part) for part in parts)


def test_what_the_engine_does_not_use_is_passed_on_where_it_stood() -> None:
    logprobs = {"content": [{"token": "Yes", "logprob": -0.1}]}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "x": {"y": 3}}
    refs = [{"index": 1, "title": "t", "url": "u"}]
    assert read(
        json.dumps({"system_fingerprint": "fp", "choices": [
            {"delta": {"content": "Yes", "annotations": [1], "refusal": None}, "logprobs": logprobs}]}),
        json.dumps({"choices": [{"delta": {}, "refs": refs}]}),
        json.dumps({"choices": [{"delta": {"content": ""}, "refs": refs, "finish_reason": "stop"}]}),
        json.dumps({"choices": [], "citations": ["c"], "usage": usage}),
    ) == [
        TextDelta("Yes", Extras(message={"annotations": [1]}, choice={"logprobs": logprobs},
                                answer={"system_fingerprint": "fp"})),
        Extras(choice={"refs": refs}),
        ReplyFinished("stop", 1, 2, usage, Extras(choice={"refs": refs}, answer={"citations": ["c"]})),
    ]  # fmt: skip


def test_numbers_that_json_does_not_have_are_null() -> None:
    parts = read(
        '{"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [{"logprob": '
        "-Infinity}]}}]}"
    )
    assert parts[0] == TextDelta("a", Extras(choice={"logprobs": {"content": [{"logprob": None}]}}))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "secret", "type": "server_error"}, FailureKind.CONNECTIVITY),
        ({"message": "secret", "type": "overloaded_error"}, FailureKind.CONNECTIVITY),
        ({"message": "secret", "code": 500}, FailureKind.CONNECTIVITY),
        ({"message": "secret", "code": "429"}, FailureKind.RATE_LIMIT),
        ({"message": "secret", "code": "rate_limit_exceeded"}, FailureKind.RATE_LIMIT),
        ({"message": "secret", "code": 400}, FailureKind.REJECTED),
        ({"message": "secret: the prompt is too long"}, FailureKind.REJECTED),
        ({"message": "secret"}, FailureKind.BROKEN),
        ("secret", FailureKind.BROKEN),
    ],
)
def test_an_error_in_the_stream_is_mapped_and_its_sentence_kept_back(
    error: object, kind: FailureKind
) -> None:
    with pytest.raises(ProviderError) as caught:
        read(json.dumps({"error": error}))
    assert caught.value.kind is kind
    assert "secret" not in str(caught.value)


KEYS = "choices delta content usage error code index tool_calls id function arguments".split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
)


@given(
    st.text()
    | JSON.map(json.dumps)
    | JSON.map(lambda inner: chunk({"content": inner, "tool_calls": [inner]}))
)
def test_any_data_is_read_or_an_error(data: str) -> None:
    stream = ChatStream("test")
    with suppress(ProviderError):
        list(stream.push_event(data))
        list(stream.finish_reply())


@pytest.mark.parametrize(
    "messages",
    [
        ("Hello ", "there."),
        ("Hello ", "Hello there."),
        ("Hello there.",),
        ("Hello there.", "Hello there."),
    ],
)
def test_whole_messages_in_place_of_deltas_are_pieces_or_repeat_what_came(
    messages: tuple[str, ...],
) -> None:
    events = [
        json.dumps({"choices": [{"index": 0, "message": {"content": text}}]}) for text in messages
    ]
    texts = [part.text for part in read(*events, "[DONE]") if isinstance(part, TextDelta)]
    assert "".join(texts) == "Hello there."


def test_a_whole_message_behind_deltas_repeats_them() -> None:
    whole = json.dumps(
        {"choices": [{"index": 0, "message": {"content": "Hello."}, "finish_reason": "stop"}]}
    )
    assert read(chunk({"content": " Hello."}), whole, "[DONE]") == [
        TextDelta(" Hello."),
        ReplyFinished(),
    ]


@pytest.mark.parametrize(
    "event",
    [
        '{"choices": [{"index": 0, "text": "yes"}]}',
        '{"choices": [{"index": 0, "delta": {"content": null, "refusal": "yes"}}]}',
        'data: {"choices": [{"index": 0, "delta": {"content": "yes"}}]}',
        'data:data: {"choices": [{"index": 0, "delta": {"content": "yes"}}]}',
    ],
)
def test_a_text_in_another_place_is_the_text(event: str) -> None:
    texts = [part.text for part in read(event, "data: [DONE]") if isinstance(part, TextDelta)]
    assert texts == ["yes"]


def test_a_control_character_that_is_not_escaped_stays() -> None:
    assert read(chunk({"content": "a"}), '{"choices": [{"delta": {"content": "\tb\n"}}]}')[
        1
    ] == TextDelta("\tb\n")


@pytest.mark.parametrize("reason", ["", "null", "None", 0])
def test_a_reason_that_says_nothing_ends_nothing(reason: object) -> None:
    stream = ChatStream("test")
    event = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": reason}]}
    assert list(stream.push_event(json.dumps(event))) == [TextDelta("a")]
    assert not stream.closing


def test_a_call_without_arguments_has_an_empty_object() -> None:
    blank = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": None}}
    assert calls(blank) == [
        ToolCall(0, "call_1", "f", ""),
        ToolCall(0, None, None, "{}"),
        ReplyFinished("tool_calls"),
    ]


def test_arguments_may_begin_with_an_empty_object_that_is_none_of_them() -> None:
    first = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}
    pieces = calls(first, {"index": 0, "function": {"arguments": '{"a":1}'}})
    assert "".join(piece.arguments for piece in pieces if isinstance(piece, ToolCall)) == '{"a":1}'


def test_a_whole_call_that_is_said_again_is_the_same_call() -> None:
    call = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert calls(call, call) == [ToolCall(0, "call_1", "f", '{"a":1}'), ReplyFinished("tool_calls")]


def test_a_call_goes_on_though_each_piece_has_an_id_of_its_own_and_the_name() -> None:
    pieces = [
        {"index": 0, "id": f"call_{n}", "function": {"name": "f", "arguments": a}}
        for n, a in enumerate("{}")
    ]
    assert calls(*pieces)[:-1] == [ToolCall(0, "call_0", "f", "{"), ToolCall(0, None, None, "}")]


def test_indices_may_be_texts() -> None:
    def piece(index: str, name: str | None, arguments: str) -> dict[str, object]:
        return {"index": index, "function": {"name": name, "arguments": arguments}}

    told = calls(
        piece("0", "f", "{"), piece("1", "g", "{"), piece("0", None, "}"), piece("1", None, "}")
    )
    assert [piece.index for piece in told if isinstance(piece, ToolCall)] == [0, 1, 0, 1]


def test_a_call_without_a_function_around_its_name_is_one() -> None:
    assert calls({"index": 0, "id": "c", "name": "f", "arguments": "[]"})[0] == ToolCall(
        0, "c", "f", "[]"
    )


def test_a_call_in_the_older_form_is_one() -> None:
    begin, rest = (
        {"function_call": call}
        for call in ({"name": "f", "arguments": ""}, {"arguments": '{"a":1}'})
    )
    assert read(chunk(begin), chunk(rest), chunk({}, "function_call")) == [
        ToolCall(0, None, "f", ""), ToolCall(0, None, None, '{"a":1}'), ReplyFinished("tool_calls"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["reasoning_details", "thought", "thinking_blocks"])
def test_fields_that_nobody_knows_are_thoughts(name: str) -> None:
    said = read(chunk({name: ["hm"], "content": ""}), chunk({"content": "Yes"}), "[DONE]")
    assert said[0] == ThoughtDelta("", Extras(message={name: ["hm"]}))
    assert read(chunk({name: [], "content": ""}), chunk({"content": "Yes"}), "[DONE]")[0] == Extras(
        message={name: []}
    )


def said_in(body: str) -> tuple[str, ReplyPart]:
    """The text and the end of a body that is one answer, or a line for each event."""
    whole = CompletionBody()
    parts = read(*whole.push_bytes(body.encode()), *whole.finish_body())
    return "".join(part.text for part in parts if isinstance(part, TextDelta)), parts[-1]


_MESSAGE = {"message": {"role": "assistant", "content": "Hi there."}, "finish_reason": "length"}
_DELTAS = [
    {"choices": [{"delta": {"content": "Hi "}}]},
    {"choices": [{"delta": {"content": "there."}, "finish_reason": "length"}]},
]


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": _MESSAGE},
        {"choices": {"0": _MESSAGE, "1": {"index": 1, "message": {"content": "no"}}}},
        [{"choices": [_MESSAGE]}],
        _DELTAS,
    ],
    ids=["a choice in place of a list", "choices by index", "a list of an answer", "of chunks"],
)
def test_choices_and_answers_in_the_wrong_container_are_read(answer: object) -> None:
    assert said_in(json.dumps(answer)) == ("Hi there.", ReplyFinished("length"))
    assert said_in(f"data: {json.dumps(answer)}\n\ndata: [DONE]\n\n")[0] == "Hi there."


@pytest.mark.parametrize("field", ["message", "response"])
def test_ollamas_own_form_is_read_whole_and_line_by_line(field: str) -> None:
    def part(text: str, **more: object) -> dict[str, object]:
        said = {"role": "assistant", "content": text} if field == "message" else text
        return {"model": "m", field: said, "done": bool(more), **more}

    end = {"done_reason": "length", "prompt_eval_count": 3, "eval_count": 2}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    finished = ReplyFinished("length", 3, 2, usage)
    assert said_in(json.dumps(part("Hi there.", **end))) == ("Hi there.", finished)
    lines = "\n".join(map(json.dumps, (part("Hi "), part("there."), part("", **end))))
    assert said_in(lines) == ("Hi there.", finished)


def test_ollamas_own_tool_calls_and_thoughts_are_read() -> None:
    call = {"function": {"name": "clock", "arguments": {"zone": 1}}}
    said = {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call]}
    parts = read(json.dumps({"message": said, "done": True, "done_reason": "stop"}))
    assert parts[0] == ThoughtDelta("hm")
    assert [part.arguments for part in parts if isinstance(part, ToolCall)] == ['{"zone": 1}']
    assert parts[-1] == ReplyFinished("tool_calls")


def test_a_message_that_is_a_text_is_no_answer() -> None:
    with pytest.raises(ProviderError):
        read(json.dumps({"message": "Not Found"}))
