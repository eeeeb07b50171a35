import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.chat_stream import ChatStream
from voicechat.providers.interfaces import ReplyFinished, ReplyPart, TextDelta
from voicechat.session.vocabulary import ToolCall


def chunk(delta: object = None, finish_reason: str | None = None, **more: object) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more})


def read(*events: str) -> list[ReplyPart]:
    stream = ChatStream("test")
    return [part for event in events for part in stream.push(event)] + list(stream.finish())


def test_text_then_the_closing_word_with_the_usage_that_follows_it() -> None:
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    assert read(chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo"}),
                chunk({}, "length"), usage, "[DONE]") == [
        TextDelta("Hel"), TextDelta("lo"), ReplyFinished("length", 3, 2),
    ]  # fmt: skip


def test_what_servers_leave_out_or_write_as_null_does_no_harm() -> None:
    assert read(
        "{}",
        '{"choices": null, "usage": null}',
        '{"choices": [{"delta": null}]}',
        '{"choices": [{"delta": {"content": null, "tool_calls": null, "unknown": 1}}]}',
        chunk({"content": "x"}),
        "[DONE]",
    ) == [TextDelta("x"), ReplyFinished()]


def test_thoughts_are_not_given_out() -> None:
    assert read(
        chunk({"reasoning_content": "hm"}), chunk({"content": "<think>hm"}), chunk({"content": "</think>Yes"}), "[DONE]"
    ) == [TextDelta("Yes"), ReplyFinished()]


def test_tool_calls_come_in_pieces() -> None:
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "clock", "arguments": ""}}
    second = {"index": 0, "function": {"arguments": '{"zone"'}}
    assert read(chunk({"tool_calls": [first]}), chunk({"tool_calls": [second]}), chunk({}, "tool_calls")) == [
        ToolCall(0, "call_1", "clock", ""),
        ToolCall(0, None, None, '{"zone"'),
        ReplyFinished("tool_calls"),
    ]


def calls(*deltas: dict[str, object]) -> list[ReplyPart]:
    return read(*(chunk({"tool_calls": [delta]}) for delta in deltas), "[DONE]")


def test_calls_with_the_same_index_but_other_ids_are_other_calls() -> None:
    one, two = ({"index": 0, "id": f"call_{n}", "function": {"name": "f", "arguments": "{}"}} for n in (1, 2))
    assert calls(one, two) == [
        ToolCall(0, "call_1", "f", "{}"),
        ToolCall(1, "call_2", "f", "{}"),
        ReplyFinished("tool_calls"),
    ]


def test_an_id_that_is_said_again_is_the_same_call() -> None:
    pieces = [{"index": 3, "id": "call_1", "function": {"name": "f", "arguments": part}} for part in ("{", "}")]
    assert [part.index for part in calls(*pieces) if isinstance(part, ToolCall)] == [0, 0]


def test_calls_without_an_index_and_with_arguments_that_are_no_text() -> None:
    parts = calls(
        {"id": "a", "function": {"name": "f", "arguments": {"x": [10**30, "好"]}}},
        {"id": "b", "function": {"name": "g", "arguments": None}},
        {"id": "b", "function": None},
    )
    assert [(part.index, part.name) for part in parts if isinstance(part, ToolCall)] == [(0, "f"), (1, "g"), (1, None)]
    assert isinstance(parts[0], ToolCall)
    assert json.loads(parts[0].arguments) == {"x": [10**30, "好"]}


def test_a_reason_of_its_own_stands_beside_calls() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f"}}
    assert read(chunk({"tool_calls": [call]}), chunk({}, "stop"))[-1] == ReplyFinished("tool_calls")
    assert read(chunk({"tool_calls": [call]}), chunk({}, "length"))[-1] == ReplyFinished("length")


def test_content_may_come_in_parts_and_thoughts_among_them_are_dropped() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    parts = [thinking, {"type": "text", "text": "Yes"}, {"type": "text", "text": None}]
    assert read(chunk({"content": [thinking]}), chunk({"content": parts}), "[DONE]")[0] == TextDelta("Yes")


def test_only_the_first_choice_is_spoken() -> None:
    other = json.dumps({"choices": [{"index": 1, "delta": {"content": "no"}}]})
    assert read(other, chunk({"content": "yes"}, "stop")) == [TextDelta("yes"), ReplyFinished()]


def test_half_a_reply_can_be_tried_again() -> None:
    with pytest.raises(ProviderError) as caught:
        read(chunk({"content": "half"}))
    assert caught.value.kind is FailureKind.CONNECTIVITY


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "secret", "type": "server_error"}, FailureKind.CONNECTIVITY),
        ({"message": "secret", "type": "overloaded_error"}, FailureKind.CONNECTIVITY),
        ({"message": "secret", "code": 500}, FailureKind.CONNECTIVITY),
        ({"message": "secret", "code": "429"}, FailureKind.RATE_LIMIT),
        ({"message": "secret", "code": "rate_limit_exceeded"}, FailureKind.RATE_LIMIT),
        ({"message": "secret", "code": 400}, FailureKind.REJECTED),
        ({"message": "secret"}, FailureKind.BROKEN),
        ("secret", FailureKind.BROKEN),
    ],
)
def test_an_error_in_the_stream_is_mapped_and_its_sentence_kept_back(error: object, kind: FailureKind) -> None:
    with pytest.raises(ProviderError) as caught:
        read(json.dumps({"error": error}))
    assert caught.value.kind is kind
    assert "secret" not in str(caught.value)


KEYS = "choices delta content usage error code index tool_calls id function arguments".split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
)


@given(st.text() | JSON.map(json.dumps) | JSON.map(lambda inner: chunk({"content": inner, "tool_calls": [inner]})))
def test_any_data_is_read_or_broken(data: str) -> None:
    with suppress(ProviderError):
        list(ChatStream("test").push(data))
