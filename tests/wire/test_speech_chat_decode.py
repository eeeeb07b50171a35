"""What a speech-chat client sends becomes events; what is wrong earns its documented status."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.errors import Status
from voicechat.session.events import (
    AudioReceived,
    CancelRequested,
    ClearRequested,
    CompleteRequested,
    Decoded,
    Event,
    ForgetRequested,
    MalformedReceived,
    MessageCreated,
    PingReceived,
    PlaybackReported,
    Refusal,
    ToolAnswered,
    UpdateRequested,
)
from voicechat.wire.dialect import Greeting
from voicechat.wire.speech_chat import MAX_CONTROL_BYTES, open_dialect


def decode(frame: str | bytes) -> Decoded:
    (event,) = open_dialect(Greeting(session_id="abc")).decode(frame)
    return event


def refusal(frame: str) -> tuple[Status, str]:
    event = decode(frame)
    assert isinstance(event, MalformedReceived)
    return event.status, event.message


@pytest.mark.parametrize(
    ("event_type", "event"),
    [
        ("input_audio_buffer.complete", CompleteRequested()),
        ("input_audio_buffer.clear", ClearRequested()),
        ("conversation.clear", ForgetRequested()),
        ("conversation.chat.cancel", CancelRequested()),
        ("ping", PingReceived()),
    ],
)
def test_each_bare_event_is_understood_whatever_else_it_carries(event_type: str, event: Event) -> None:
    assert decode(json.dumps({"event_type": event_type})) == event
    assert decode(json.dumps({"event_id": "client-side", "event_type": event_type, "extra": None})) == event


@given(st.binary(min_size=1))
def test_a_binary_frame_is_audio_as_it_came(payload: bytes) -> None:
    assert decode(payload) == AudioReceived(payload)


def test_a_typed_turn_is_understood() -> None:
    frame = {"event_type": "conversation.message.create", "role": "user", "content": "你好 🙂"}
    assert decode(json.dumps(frame)) == MessageCreated("你好 🙂")


@pytest.mark.parametrize("content", ["20 degrees", "", " "])
def test_the_answer_to_a_tool_call_is_understood_even_if_it_is_empty(content: str) -> None:
    frame = {"event_type": "conversation.message.create", "role": "tool", "tool_call_id": "c" * 256, "content": content}
    assert decode(json.dumps(frame)) == ToolAnswered("c" * 256, content)


def test_the_answer_to_a_tool_call_is_bounded() -> None:
    frame = {"event_type": "conversation.message.create", "role": "tool", "tool_call_id": "c"}
    longest = "é" * 32_768
    assert decode(json.dumps(frame | {"content": longest})) == ToolAnswered("c", longest)
    status, message = refusal(json.dumps(frame | {"content": longest + "x"}))
    assert status is Status.TOO_LARGE
    assert message.startswith("content: ")


@pytest.mark.parametrize("reply", [7, "7", "chatcmpl-abc-7"])
def test_a_playback_report_names_the_reply_by_its_id_or_number(reply: object) -> None:
    frame = {"event_type": "conversation.audio.played", "reply": reply, "played_ms": 1500}
    assert decode(json.dumps(frame)) == PlaybackReported(7, 1500)


@pytest.mark.parametrize(
    ("reply", "played_ms", "status"),
    [
        (None, 0, Status.MALFORMED),
        (True, 0, Status.MALFORMED),
        (1.5, 0, Status.MALFORMED),
        (1, "900", Status.MALFORMED),
        (1, None, Status.MALFORMED),
        (-1, 0, Status.INVALID_PARAMETER),
        (1, -1, Status.INVALID_PARAMETER),
        (1, 2**53, Status.INVALID_PARAMETER),
        ("chatcmpl-other-7", 0, Status.INVALID_PARAMETER),
        ("chatcmpl-abc-", 0, Status.INVALID_PARAMETER),
        ("chatcmpl-abc-٧", 0, Status.INVALID_PARAMETER),
        ("9" * 5000, 0, Status.INVALID_PARAMETER),
    ],
)
def test_a_wrong_playback_report_is_refused(reply: object, played_ms: object, status: Status) -> None:
    frame = {"event_type": "conversation.audio.played", "reply": reply, "played_ms": played_ms}
    assert refusal(json.dumps(frame))[0] is status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"role": "user"}, Status.MALFORMED),
        ({"content": "hello"}, Status.MALFORMED),
        ({"role": "user", "content": [{"type": "text", "text": "hello"}]}, Status.MALFORMED),
        ({"role": "system", "content": "hello"}, Status.INVALID_PARAMETER),
        ({"role": "user", "content": " \n"}, Status.INVALID_PARAMETER),
    ],
)
def test_a_wrong_typed_turn_is_refused(fields: dict[str, object], status: Status) -> None:
    assert refusal(json.dumps({"event_type": "conversation.message.create"} | fields))[0] is status


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "BYE",
        "{",
        '{"event_type":"ping"} {}',
        '{"event_type":"ping","at":NaN}',
        '{"event_type":"ping","at":-Infinity}',
        '{"event_type":"ping","at":1e999}',
        '{"event_type":"ping","text":"\\ud83d"}',
        '{"event_type":"ping","text":"\ud83d"}',
        "[" * 100_000,
        '{"event_type":"ping","a":' + "[" * 64 + "]" * 64 + "}",
        "null",
        '["ping"]',
        '"ping"',
        "{}",
        '{"event_type":null}',
        '{"event_type":["ping"]}',
        '{"type":"ping"}',
    ],
)
def test_what_is_no_event_is_malformed(frame: str) -> None:
    assert refusal(frame)[0] is Status.MALFORMED


def test_nesting_up_to_the_limit_is_read() -> None:
    assert decode('{"event_type":"ping","a":' + "[" * 63 + "]" * 63 + "}") == PingReceived()


def test_the_last_of_duplicate_keys_counts() -> None:
    assert decode('{"event_type":"conversation.clear","event_type":"ping"}') == PingReceived()


def test_an_unknown_event_is_named_and_cut_short() -> None:
    assert refusal('{"event_type":"chat.upgrade"}') == (
        Status.UNKNOWN_EVENT,
        'event_type: "chat.upgrade" is not known',
    )
    status, message = refusal(json.dumps({"event_type": "x" * 10_000}))
    assert status is Status.UNKNOWN_EVENT
    assert len(message) < 120


def test_the_limit_of_a_text_message_counts_bytes() -> None:
    def ping_of(size_bytes: int, filler: str) -> str:
        bare = '{"event_type":"ping","pad":""}'
        count = (size_bytes - len(bare)) // len(filler.encode())
        return f'{bare[:-2]}{filler * count}"}}'

    assert decode(ping_of(MAX_CONTROL_BYTES, "x")) == PingReceived()
    assert refusal(ping_of(MAX_CONTROL_BYTES + 1, "x"))[0] is Status.TOO_LARGE
    assert refusal(ping_of(MAX_CONTROL_BYTES + 3, "你"))[0] is Status.TOO_LARGE


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (None, Status.INVALID_PARAMETER),
        ([], Status.INVALID_PARAMETER),
        (7, Status.INVALID_PARAMETER),
        ("[]", Status.INVALID_PARAMETER),
        ("", Status.MALFORMED),
        ("{", Status.MALFORMED),
        ("[" * 5000, Status.MALFORMED),
    ],
)
def test_a_hopeless_update_is_still_a_request_that_earns_its_answer(message: object, status: Status) -> None:
    event = decode(json.dumps({"event_type": "chat.update", "message": message}))
    assert isinstance(event, UpdateRequested)
    assert isinstance(event.settings, Refusal)
    assert event.settings.status is status
    assert event.settings.message.startswith("message: ")
