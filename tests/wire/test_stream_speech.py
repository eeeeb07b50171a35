"""The recognition socket: its query, its one command, its two messages."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.errors import RemoteProtocolError, Status
from voicechat.session.effects import Answered, ErrorReported, Recognised, Request, TurnCompleted
from voicechat.session.events import AudioReceived, FinishRequested, IgnorableReceived
from voicechat.session.vocabulary import InputSettings, Transcript, Word
from voicechat.wire.dialect import Greeting
from voicechat.wire.stream_speech import StreamOptions, open_dialect, parse_query

FINAL = Recognised(Transcript("go", 0, 300, (Word("go", 0, 300, ".", fixed=True),)))


def test_a_query_of_the_document_is_understood() -> None:
    query = {"easyllm_id": "x", "format": "wav", "sample_rate": "8000", "heartbeat": "true"}
    expected = InputSettings(format="wav", sample_rate_hz=8000, heartbeat=True)
    assert parse_query(query) == StreamOptions(input=expected)


@pytest.mark.parametrize("query", [{}, {"format": "", "sample_rate": "", "heartbeat": "", "words": "", "received": ""}])
def test_a_bare_query_means_pcm_at_16_khz(query: dict[str, str]) -> None:
    expected = InputSettings(format="pcm", sample_rate_hz=16000, heartbeat=False)
    assert parse_query(query) == StreamOptions(input=expected, word_objects=False, session="", received=None)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("True", True), ("1", True), ("false", False), ("0", False)]
)
def test_heartbeat_is_read_as_people_write_it(text: str, value: bool) -> None:
    assert parse_query({"heartbeat": text}).input.heartbeat is value


def test_our_own_parameters_are_understood() -> None:
    options = parse_query({"words": "json", "session": "call-7", "received": "12"})
    assert options == StreamOptions(word_objects=True, session="call-7", received=12)


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("format", "cassette", Status.INVALID_PARAMETER),
        ("sample_rate", "7999", Status.INVALID_PARAMETER),
        ("sample_rate", "192001", Status.INVALID_PARAMETER),
        ("sample_rate", "16000.0", Status.INVALID_PARAMETER),
        ("sample_rate", "１６０００", Status.INVALID_PARAMETER),
        ("sample_rate", "9" * 5000, Status.INVALID_PARAMETER),
        ("heartbeat", "maybe", Status.INVALID_PARAMETER),
        ("words", "xml", Status.INVALID_PARAMETER),
        ("received", "-1", Status.INVALID_PARAMETER),
        ("session", "x" * 129, Status.INVALID_PARAMETER),
        ("session", "a\nb", Status.INVALID_PARAMETER),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(name: str, value: str, status: Status) -> None:
    with pytest.raises(RemoteProtocolError, match=f"^{name}\\b") as caught:
        parse_query({name: value})
    assert caught.value.status is status
    assert len(caught.value.message) < 300


@given(
    st.dictionaries(st.sampled_from(["format", "sample_rate", "heartbeat", "words", "session", "received"]), st.text())
)
def test_any_query_is_understood_or_refused(query: dict[str, str]) -> None:
    try:
        options = parse_query(query)
    except RemoteProtocolError:
        return
    assert 8000 <= options.input.sample_rate_hz <= 192_000


def test_binary_is_audio_and_bye_finishes() -> None:
    dialect = open_dialect(Greeting())
    assert dialect.decode(b"\0\1") == [AudioReceived(b"\0\1")]
    assert dialect.decode("BYE") == [FinishRequested()]
    assert dialect.decode("BYE\n") == [FinishRequested()]


@pytest.mark.parametrize("text", ["", "ping", "bye", "BYE BYE", "{}", "\ud800", '{"event_type":"ping"}'])
def test_any_other_text_is_ignored(text: str) -> None:
    assert open_dialect(Greeting()).decode(text) == [IgnorableReceived()]


def test_ready_and_results_are_all_that_is_sent() -> None:
    dialect = open_dialect(Greeting())
    assert dialect.encode(Answered(Request.OPEN)) == ['{"status":"ok"}']
    assert dialect.encode(FINAL) == [
        '{"text":"go","begin_time":0,"end_time":300,'
        '"words":["Word(beginTime=0, endTime=300, text=go, punctuation=., fixed=false)"],"is_sentence_end":true}'
    ]
    assert dialect.encode(Answered(Request.OPEN, Status.AT_CAPACITY, "full")) == []
    assert dialect.encode(Answered(Request.PING)) == []
    assert dialect.encode(ErrorReported(Status.TIMEOUT, "silent")) == []
    assert dialect.encode(TurnCompleted()) == []


def test_words_are_objects_on_request() -> None:
    (frame,) = open_dialect(Greeting(query={"words": "json"})).encode(FINAL)
    assert json.loads(frame)["words"] == [
        {"text": "go", "begin_time": 0, "end_time": 300, "punctuation": ".", "fixed": True}
    ]
