"""What a speech-chat client sends becomes events; what is wrong earns its documented
status.
"""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.dialects.base import Connection, Frame, Reaction, Tell
from voicechat.dialects.speech_chat.codec import MAX_CONTROL_BYTES
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.errors import Status
from voicechat.session import commands as cmd
from voicechat.session.events import AudioReceived

AUDIO = b"\0\1"
PONG = Tell('{"status":0,"message":"","event_type":"pong"}')


def opened(**options: object) -> SpeechChat:
    """A dialect whose client has sent audio."""
    dialect = SpeechChat(Connection(session_id="abc"), **options)  # type: ignore[arg-type]
    list(dialect.receive(AUDIO, 0))
    return dialect


def without_causes(reactions: list[Reaction]) -> list[Reaction]:
    """As equal values: what a cause holds is the dialect's own business."""
    return [replace(r, cause=None) if isinstance(r, cmd.Command) else r for r in reactions]


def decode(frame: Frame, dialect: SpeechChat | None = None) -> Reaction:
    alive, reaction = without_causes(list((dialect or opened()).receive(frame, 0)))[:2]
    assert alive == cmd.Alive()
    return reaction


def refusal(frame: str) -> tuple[Status, str]:
    tell = decode(frame)
    assert isinstance(tell, Tell)
    said = json.loads(tell.frame)
    assert said["event_type"] == "error"
    return Status(said["status"]), said["message"]


@pytest.mark.parametrize(
    ("event_type", "event"),
    [
        ("input_audio_buffer.complete", cmd.CommitTurn()),
        ("input_audio_buffer.clear", cmd.ClearInput()),
        ("conversation.clear", cmd.ClearHistory()),
        ("conversation.chat.cancel", cmd.Cancel()),
        ("ping", PONG),
    ],
)
def test_each_bare_event_is_understood_whatever_else_it_carries(
    event_type: str, event: Reaction
) -> None:
    assert decode(json.dumps({"event_type": event_type})) == event
    assert (
        decode(json.dumps({"event_id": "client-side", "event_type": event_type, "extra": None}))
        == event
    )


@given(st.binary(min_size=1))
def test_a_binary_frame_is_audio_as_it_came(payload: bytes) -> None:
    dialect = SpeechChat(Connection())
    assert list(dialect.receive(payload, 0)) == [cmd.Begin(), AudioReceived(payload)]
    assert dialect.bare_audio, "the rest needs no looking at"
    assert list(dialect.receive(payload, 1)) == [AudioReceived(payload)]


def test_an_empty_binary_frame_only_shows_life() -> None:
    dialect = SpeechChat(Connection())
    assert list(dialect.receive(b"", 0)) == [cmd.Alive()]
    assert not dialect.bare_audio


def test_a_typed_turn_is_understood() -> None:
    frame = {"event_type": "conversation.message.create", "role": "user", "content": "你好 🙂"}
    reactions = without_causes(list(opened().receive(json.dumps(frame), 0)))
    assert reactions == [cmd.Alive(), cmd.Begin(), cmd.CommitTurn("你好 🙂")]


@pytest.mark.parametrize("content", ["20 degrees", "", " "])
def test_the_answer_to_a_tool_call_is_understood_even_if_it_is_empty(content: str) -> None:
    frame = {
        "event_type": "conversation.message.create",
        "role": "tool",
        "tool_call_id": "c" * 256,
        "content": content,
    }
    assert decode(json.dumps(frame)) == cmd.AnswerTool("c" * 256, content)


def test_the_answer_to_a_tool_call_is_bounded() -> None:
    frame = {"event_type": "conversation.message.create", "role": "tool", "tool_call_id": "c"}
    longest = "é" * 32_768
    assert decode(json.dumps(frame | {"content": longest})) == cmd.AnswerTool("c", longest)
    status, message = refusal(json.dumps(frame | {"content": longest + "x"}))
    assert status == Status.TOO_LARGE
    assert message.startswith("content: ")


@pytest.mark.parametrize("reply", [7, "7", "chatcmpl-abc-7"])
def test_a_playback_report_names_the_reply_by_its_id_or_number(reply: object) -> None:
    frame = {"event_type": "conversation.audio.played", "reply": reply, "played_ms": 1500}
    assert decode(json.dumps(frame)) == cmd.Played(7, 1500)


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
def test_a_wrong_playback_report_is_refused(
    reply: object, played_ms: object, status: Status
) -> None:
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
    assert refusal(frame)[0] == Status.MALFORMED


def test_nesting_up_to_the_limit_is_read() -> None:
    assert decode('{"event_type":"ping","a":' + "[" * 63 + "]" * 63 + "}") == PONG


def test_the_last_of_duplicate_keys_counts() -> None:
    assert decode('{"event_type":"conversation.clear","event_type":"ping"}') == PONG


def test_an_unknown_event_is_named_and_cut_short() -> None:
    assert refusal('{"event_type":"chat.upgrade"}') == (
        Status.UNKNOWN_EVENT,
        'event_type: "chat.upgrade" is not known',
    )
    status, message = refusal(json.dumps({"event_type": "x" * 10_000}))
    assert status == Status.UNKNOWN_EVENT
    assert len(message) < 120


def test_the_limit_of_a_text_message_counts_bytes() -> None:
    def ping_of(size_bytes: int, filler: str) -> str:
        bare = '{"event_type":"ping","pad":""}'
        count = (size_bytes - len(bare)) // len(filler.encode())
        return f'{bare[:-2]}{filler * count}"}}'

    assert decode(ping_of(MAX_CONTROL_BYTES, "x")) == PONG
    assert refusal(ping_of(MAX_CONTROL_BYTES + 1, "x"))[0] == Status.TOO_LARGE
    assert refusal(ping_of(MAX_CONTROL_BYTES + 3, "你"))[0] == Status.TOO_LARGE


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
def test_a_hopeless_update_is_still_a_request_that_earns_its_answer(
    message: object, status: Status
) -> None:
    dialect = SpeechChat(Connection())
    tell = decode(json.dumps({"event_type": "chat.update", "message": message}), dialect)
    assert isinstance(tell, Tell)
    said = json.loads(tell.frame)
    assert (said["event_type"], said["status"]) == ("chat.updated", status)
    assert said["message"].startswith("message: ")


@pytest.mark.parametrize("event", ["complete", "clear"])
def test_before_the_first_audio_there_is_nothing_to_complete_or_clear(event: str) -> None:
    frame = json.dumps({"event_type": f"input_audio_buffer.{event}"})
    tell = decode(frame, SpeechChat(Connection()))
    assert isinstance(tell, Tell)
    said = json.loads(tell.frame)
    assert said["event_type"].startswith(f"input_audio_buffer.{event}")
    assert said["status"] == Status.NOT_ALLOWED_NOW


@pytest.mark.parametrize("first", [AUDIO, "typed"])
def test_the_configuration_is_frozen_by_the_first_audio_or_typed_turn(first: str | bytes) -> None:
    dialect = SpeechChat(Connection())
    typed = {"event_type": "conversation.message.create", "role": "user", "content": "hi"}
    list(dialect.receive(json.dumps(typed) if isinstance(first, str) else first, 0))
    tell = decode(json.dumps({"event_type": "chat.update", "message": {}}), dialect)
    assert isinstance(tell, Tell)
    assert json.loads(tell.frame)["status"] == Status.NOT_ALLOWED_NOW


def test_malformed_messages_in_a_row_give_the_client_up_and_audio_between_them_does_not_count() -> (
    None
):
    dialect = opened(most_errors=5)
    left: list[cmd.Leave] = []
    for number in range(8):
        if number == 3:
            dialect.note_audio()
        reactions = list(dialect.receive("no JSON", 0))
        left = [r for r in reactions if isinstance(r, cmd.Leave)]
        assert bool(left) == (number == 7)
    assert left[0].cause is Status.MALFORMED


def test_only_pings_count_when_they_are_asked_for_strictly() -> None:
    dialect = opened(strict_ping=True)
    assert not dialect.audio_shows_life
    assert list(dialect.pong(0)) == []
    clear = json.dumps({"event_type": "conversation.clear"})
    assert cmd.Alive() not in list(dialect.receive(clear, 0))
    assert list(dialect.receive('{"event_type":"ping"}', 0)) == [cmd.Alive(), PONG]


def test_pongs_count_once_the_client_has_said_something() -> None:
    dialect = SpeechChat(Connection())
    assert list(dialect.pong(0)) == []
    list(dialect.receive("{}", 1))
    assert list(dialect.pong(2)) == [cmd.Alive()]
