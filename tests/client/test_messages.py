import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.client import (
    CanceledMessage,
    ConnectionLostError,
    CreatedMessage,
    ErrorMessage,
    PictureMessage,
    ReplyAudioMessage,
    ReplyFinishedMessage,
    ReplyTextMessage,
    ServerMessage,
    SpeechStartedMessage,
    SpeechStoppedMessage,
    ToolCallPiece,
    ToolCallPiecesMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    UpdatedMessage,
    parse_message,
)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ('{"status":0,"message":"","event_type":"chat.created"}', CreatedMessage(0, "")),
        (
            '{"status":40901,"message":"too late","event_type":"chat.updated"}',
            UpdatedMessage(40901, "too late"),
        ),
        ('{"status":0,"message":"","event_type":"chat.update"}', UpdatedMessage(0, "")),
        (
            '{"status":0,"message":"","event_type":"conversation.chat.canceled"}',
            CanceledMessage(0, ""),
        ),
        (
            '{"status":0,"message":"","event_type":"conversation.chat.completed"}',
            TurnCompletedMessage(0, ""),
        ),
        (
            '{"status":50202,"message":"the model failed","event_type":"error"}',
            ErrorMessage(50202, "the model failed"),
        ),
        (
            '{"text":"go","begin_time":10,"end_time":null,"words":[],"is_sentence_end":false}',
            TranscriptMessage("go", 10, None),
        ),
        (
            '{"text":"go on","begin_time":10,"end_time":900,"words":[],"is_sentence_end":true}',
            TranscriptMessage("go on", 10, 900),
        ),
        (
            '{"id":"c-1","choices":[{"delta":{"content":"Hi","role":"assistant"},"index":0}]}',
            ReplyTextMessage("c-1", "Hi"),
        ),
        (
            '{"id":"c-1","choices":[{"delta":{},"index":0,"finish_reason":"stop"}]}',
            ReplyTextMessage("c-1", "", "stop"),
        ),
        (
            '{"id":"c-1","choices":[{"delta":{"content":null,"tool_calls":[{"index":1,"id":"a",'
            '"type":"function","function":{"name":"weather","arguments":""}}]},"index":0}]}',
            ToolCallPiecesMessage("c-1", (ToolCallPiece(1, "a", "weather", ""),)),
        ),
        (
            '{"id":"c-1","choices":[{"delta":{"content":null,"tool_calls":[{"index":1,'
            '"function":{"arguments":"{"}}]},"index":0}]}',
            ToolCallPiecesMessage("c-1", (ToolCallPiece(1, "", "", "{"),)),
        ),
        (
            '{"status":"accepting","usage":null,"audioFrame":"AAEC","id":"c-1"}',
            ReplyAudioMessage("c-1", b"\0\1\2"),
        ),
        (
            '{"status":0,"message":"","event_type":"conversation.chat.canceled",'
            '"reason":"turn_detected"}',
            CanceledMessage(0, "", "turn_detected"),
        ),
        (
            '{"status":0,"message":"","event_type":"input_audio_buffer.speech_started",'
            '"audio_start_ms":120}',
            SpeechStartedMessage(120),
        ),
        (
            '{"status":0,"message":"","event_type":"input_audio_buffer.speech_stopped",'
            '"audio_end_ms":900}',
            SpeechStoppedMessage(900),
        ),
        (
            '{"status":0,"message":"","event_type":"conversation.picture","id":"9a","prompt":"cat",'
            '"url":"http://h/media/a.png","content_type":"image/png","width":8,"height":6}',
            PictureMessage("cat", "9a", "http://h/media/a.png", "image/png", 8, 6),
        ),
        (
            '{"status":50204,"message":"why","event_type":"conversation.picture","prompt":"cat"}',
            PictureMessage("cat", error="why"),
        ),
        (b"\0\0\0\3\0\0\0\1\0\0\0\0\0\0\1\0audio", ReplyAudioMessage("3", b"audio", 256)),
        (
            '{"status":"finish","usage":{"characters":26},"audioFrame":null}',
            ReplyFinishedMessage("", 26),
        ),
    ],
)
def test_every_message_of_the_contract_is_understood(
    frame: str | bytes, message: ServerMessage
) -> None:
    parsed = parse_message(frame)
    assert parsed == message
    assert type(parsed) is type(message)


def test_answers_of_different_kinds_differ() -> None:
    assert parse_message('{"status":0,"message":"","event_type":"chat.created"}') != UpdatedMessage(
        0, ""
    )
    assert CreatedMessage(0, "").granted
    assert not UpdatedMessage(40003, "no").granted


@pytest.mark.parametrize(
    "frame",
    ['{"event_type":"something.new"}', '{"a":1}', "[]", "7", b"\0\1", '{"event_type":null}'],
)
def test_what_is_not_known_is_passed_over(frame: str | bytes) -> None:
    assert parse_message(frame) is None


@pytest.mark.parametrize(
    "frame", ["", "{", '{"event_type":"error"}', '{"choices":[]}', '{"audioFrame":"*"}']
)
def test_what_breaks_the_contract_is_a_lost_connection(frame: str) -> None:
    with pytest.raises(ConnectionLostError):
        parse_message(frame)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=5,
)
_KEYS = (
    "event_type",
    "status",
    "message",
    "choices",
    "delta",
    "audioFrame",
    "usage",
    "is_sentence_end",
    "end_time",
)
_CHUNK = st.dictionaries(st.sampled_from(["content", "tool_calls"]), _VALUES)


@given(st.dictionaries(st.sampled_from(_KEYS), _VALUES))
def test_nothing_a_server_sends_raises_anything_else(message: dict[str, object]) -> None:
    with suppress(ConnectionLostError):
        parse_message(json.dumps(message))


@given(
    _CHUNK
    | st.builds(
        lambda call: {"tool_calls": [call]},
        st.dictionaries(st.sampled_from(["index", "function"]), _VALUES),
    )
)
def test_nothing_a_server_says_of_tools_raises_anything_else(delta: dict[str, object]) -> None:
    with suppress(ConnectionLostError):
        parse_message(json.dumps({"choices": [{"delta": delta}]}))
