"""The recognition socket: its query, its one command, its two messages."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.dialects.base import Connection, Frame, Handshake, Reaction, Tell
from voicechat.dialects.stream_speech.endpoint import StreamSpeechEndpoint
from voicechat.dialects.stream_speech.options import StreamOptions, parse_query
from voicechat.dialects.stream_speech.rules import StreamSpeech
from voicechat.errors import Fault, RemoteProtocolError, Status
from voicechat.session.commands import Alive, Finish
from voicechat.session.events import AudioReceived
from voicechat.session.notices import (
    Done,
    Ended,
    Ending,
    Failed,
    Notice,
    Outcome,
    Recognised,
    TurnCompleted,
)
from voicechat.session.types import InputSettings, Transcript, Word

FINAL = Recognised(Transcript("go", 0, 300, (Word("go", 0, 300, ".", fixed=True),)))


def test_a_query_of_the_document_is_understood() -> None:
    query = {"easyllm_id": "x", "format": "wav", "sample_rate": "8000", "heartbeat": "true"}
    expected = InputSettings(format="wav", sample_rate_hz=8000, silence_allowed=True)
    assert parse_query(query) == StreamOptions(input=expected)


@pytest.mark.parametrize(
    "query", [{}, {"format": "", "sample_rate": "", "heartbeat": "", "words": "", "received": ""}]
)
def test_a_bare_query_means_pcm_at_16_khz(query: dict[str, str]) -> None:
    expected = InputSettings(format="pcm", sample_rate_hz=16000, silence_allowed=False)
    assert parse_query(query) == StreamOptions(
        input=expected, word_objects=False, session="", received=None
    )


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("True", True), ("1", True), ("false", False), ("0", False)]
)
def test_heartbeat_is_read_as_people_write_it(text: str, value: bool) -> None:
    assert parse_query({"heartbeat": text}).input.silence_allowed is value


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
    st.dictionaries(
        st.sampled_from(["format", "sample_rate", "heartbeat", "words", "session", "received"]),
        st.text(),
    )
)
def test_any_query_is_understood_or_refused(query: dict[str, str]) -> None:
    try:
        options = parse_query(query)
    except RemoteProtocolError:
        return
    assert 8000 <= options.input.sample_rate_hz <= 192_000


def opened(**query: str) -> StreamSpeech:
    connection = Connection(handshake=Handshake(query=query))
    dialect = StreamSpeechEndpoint().open(connection).dialect
    assert isinstance(dialect, StreamSpeech)
    return dialect


def received(frame: Frame) -> list[Reaction]:
    return list(opened().receive(frame, 0))


def test_binary_is_audio_and_bye_finishes() -> None:
    assert received(b"\0\1") == [AudioReceived(b"\0\1")]
    assert received(b"") == [Alive()]
    assert received("BYE") == [Alive(), Finish()]
    assert received("BYE\n") == [Alive(), Finish()]


@pytest.mark.parametrize(
    "text", ["", "ping", "bye", "BYE BYE", "{}", "\ud800", '{"event_type":"ping"}']
)
def test_any_other_text_only_shows_life(text: str) -> None:
    assert received(text) == [Alive()]


def test_ready_and_results_are_all_that_is_sent() -> None:
    dialect = opened()
    assert list(dialect.open(0)) == [Tell('{"status":"ok"}')]
    assert list(dialect.notify(FINAL, 0)) == [
        Tell(
            '{"text":"go","begin_time":0,"end_time":300,'
            '"words":["Word(beginTime=0, endTime=300, text=go, punctuation=., '
            'fixed=false)"],"is_sentence_end":true}'
        )
    ]
    silent: list[Notice] = [
        Done(None),
        Failed(Fault.TIMEOUT, "silent"),
        TurnCompleted(Outcome.EMPTY),
        Ended(Ending.RESTART, "the server restarts", Fault.AT_CAPACITY),
    ]
    assert [list(dialect.notify(notice, 0)) for notice in silent] == [[]] * len(silent)


def test_a_refusal_is_a_closing_code_and_nothing_else() -> None:
    endpoint = StreamSpeechEndpoint()
    codes = []
    for status, restarting in (
        (Status.NOT_FOUND, False),
        (Status.AT_CAPACITY, False),
        (Status.AT_CAPACITY, True),
    ):
        refused = endpoint.refuse(status, "why", restarting=restarting)
        assert refused.frames == ()
        codes.append(refused.code)
    assert codes == [1008, 1013, 1012]


def test_pongs_count_once_the_client_has_said_something() -> None:
    dialect = opened()
    assert list(dialect.pong(0)) == []
    dialect.note_audio()
    assert list(dialect.pong(1)) == [Alive()]


def test_words_are_objects_on_request() -> None:
    (tell,) = opened(words="json").notify(FINAL, 0)
    assert isinstance(tell, Tell)
    assert json.loads(tell.frame)["words"] == [
        {"text": "go", "begin_time": 0, "end_time": 300, "punctuation": ".", "fixed": True}
    ]


def test_a_resumable_session_numbers_its_results_and_is_greeted_by_the_server() -> None:
    dialect = opened(session="s")
    assert list(dialect.open(0)) == []
    numbers = []
    for _ in range(2):
        (tell,) = dialect.notify(FINAL, 0)
        assert isinstance(tell, Tell)
        numbers.append(json.loads(tell.frame)["number"])
    assert numbers == [1, 2]
    assert StreamSpeechEndpoint().resumed(320) == '{"status":"ok","offset":320}'
