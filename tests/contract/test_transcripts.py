"""The golden transcripts are well-formed, and every message in them is one of the
contract.

Whether an engine plays them is the player's affair; here they are only data.
"""

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from voicechat.dialects.base import Connection, Tell
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.dialects.stream_speech.options import parse_query
from voicechat.errors import Status

PROTOCOL = Path(__file__).parents[2] / "protocol"
TRANSCRIPTS = sorted(PROTOCOL.glob("transcripts/*.jsonl"))
DIALECTS = ("speech_chat", "stream_speech")
STIMULI = {
    "client",
    "client_text",
    "client_audio_ms",
    "asr",
    "voice",
    "llm",
    "tts",
    "server_drain_ms",
    "disconnect",
}
EXPECTATIONS = {"server", "close", "model_asked"}
KEYS = {
    "asr": [{"stream", "text", "begin_ms", "end_ms"}, {"stream", "ended"}, {"stream", "failed"}],
    "voice": [{"speech", "audio_ms", "ago_ms"}],
    "llm": [{"reply", "text"}, {"reply", "tool_call"}, {"reply", "finish"}, {"reply", "failed"}],
    "tts": [
        {"reply", "sentence", "audio_ms"},
        {"reply", "sentence", "done"},
        {"reply", "ended"},
        {"reply", "failed"},
    ],
}
OPTIONAL_KEYS = {"asr": {"words", "retryable"}}
REQUIRED = {
    "push-to-talk-turn",
    "two-turns-with-memory",
    "cancel-before-text",
    "cancel-during-text",
    "cancel-during-audio",
    "cancel-racing-with-the-end",
    "cancel-while-idle",
    "clear-while-configuring",
    "clear-while-listening",
    "clear-while-replying",
    "conversation-clear",
    "conversation-clear-during-reply",
    "update-after-audio",
    "bad-messages",
    "bad-updates",
    "heartbeat-false",
    "heartbeat-true",
    "ping-timeout",
    "strict-ping",
    "online",
    "refresh",
    "llm-failure",
    "tts-failure",
    "asr-failure-while-listening",
    "empty-transcript",
    "drain-while-listening",
    "drain-during-turn",
    "complete-while-replying",
    "played-report-cuts-the-memory",
    "hands-free-turn",
    "hands-free-interruption",
    "hands-free-backchannel",
    "hands-free-early-start-withdrawn",
    "hands-free-while-still-heard",
    "tool-call-answered",
    "tool-call-ends-the-turn",
    "hands-free-words-without-an-answer",
    "tool-calls-answered-out-of-order",
    "tool-call-interrupted",
    "tool-call-id-unknown",
    "tool-answer-timeout",
    "tool-call-and-conversation-clear",
}
every_transcript = pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)


def lines(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    head, *rest = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return head, rest


@cache
def server_messages(dialect: str) -> Draft202012Validator:
    name = f"{dialect.replace('_', '-')}.server.json"
    return Draft202012Validator(json.loads(PROTOCOL.joinpath("schema", name).read_text("utf-8")))


def expanded(message: dict[str, Any]) -> dict[str, Any]:
    """Put something real in the place of every placeholder."""
    real = {
        key: f"chatcmpl-s-{value[7:-1]}" if _is_reply_id(value) else value
        for key, value in message.items()
    }
    if "audio_ms" in real:
        real["audioFrame"] = "AAAA" if real.pop("audio_ms") else None
    if "choices" in real:
        real["created"] = 0
    return real


def _is_reply_id(value: object) -> bool:
    return isinstance(value, str) and value.startswith("<reply ")


def test_the_situations_of_the_contract_are_all_there() -> None:
    assert {path.stem for path in TRANSCRIPTS} >= REQUIRED


@every_transcript
def test_the_first_line_names_the_transcript_and_the_last_ends_it(path: Path) -> None:
    head, rest = lines(path)
    assert head.keys() <= {"transcript", "about", "dialect", "query", "config"}
    assert head["transcript"] == path.stem
    assert head["about"].endswith(".")
    assert head["dialect"] in DIALECTS
    parse_query(head.get("query", {}))
    assert rest[-1] == {"at_ms": rest[-1]["at_ms"], "end": True}
    assert all("end" not in line for line in rest[:-1])


@every_transcript
def test_lines_are_in_order_of_time_and_each_says_one_known_thing(path: Path) -> None:
    _, rest = lines(path)
    times = [line["at_ms"] for line in rest]
    assert times == sorted(times)
    for line in rest[:-1]:
        (what,) = line.keys() - {"at_ms"}
        assert what in STIMULI | EXPECTATIONS
        if what in KEYS:
            assert line[what].keys() - OPTIONAL_KEYS.get(what, set()) in KEYS[what]


@every_transcript
def test_every_message_of_the_server_is_one_of_the_contract(path: Path) -> None:
    head, rest = lines(path)
    said = [line["server"] for line in rest if "server" in line]
    assert said
    for message in said:
        server_messages(head["dialect"]).validate(expanded(message))


@every_transcript
def test_every_message_of_the_client_is_understood_and_bad_text_is_not(path: Path) -> None:
    head, rest = lines(path)
    if head["dialect"] != "speech_chat":
        return
    dialect = SpeechChat(Connection(session_id="s"))
    for line in rest:
        if "client" in line:
            assert "error" not in said(dialect, json.dumps(expanded(line["client"])))
        if "client_text" in line:
            assert said(dialect, line["client_text"]) == ["error"]


def said(dialect: SpeechChat, text: str) -> list[str]:
    """The event types of what the dialect says by itself."""
    told = (r.frame for r in dialect.receive(text, 0) if isinstance(r, Tell))
    return [json.loads(frame)["event_type"] for frame in told]


@every_transcript
def test_turns_begin_and_end_in_pairs(path: Path) -> None:
    """Rule 2 of the contract: every granted turn is completed once, unless the socket
    broke.
    """
    head, rest = lines(path)
    if head["dialect"] != "speech_chat" or any("disconnect" in line for line in rest):
        return
    typed = [line["server"] for line in rest if "event_type" in line.get("server", {})]
    granted = [
        m
        for m in typed
        if m["event_type"] == "input_audio_buffer.completed" and m["status"] == Status.OK
    ]
    asked = [
        follows for line, follows in pairwise(rest) if line.get("client", {}).get("role") == "user"
    ]
    refused = [
        line for line in asked if line.get("server", {}).get("status") == Status.NOT_ALLOWED_NOW
    ]
    completed = [m for m in typed if m["event_type"] == "conversation.chat.completed"]
    assert len(completed) == len(granted) + len(asked) - len(refused)


@every_transcript
def test_every_request_has_one_answer(path: Path) -> None:
    """Rule 1 of the contract: one answer each, in order. What the server did by itself
    has a reason.
    """
    answers = {
        "chat.update": "chat.updated",
        "input_audio_buffer.complete": "input_audio_buffer.completed",
        "input_audio_buffer.clear": "input_audio_buffer.cleared",
        "conversation.clear": "conversation.cleared",
        "conversation.chat.cancel": "conversation.chat.canceled",
        "ping": "pong",
    }
    head, rest = lines(path)
    if head["dialect"] != "speech_chat":
        return
    requested = [answers.get(line["client"]["event_type"]) for line in rest if "client" in line]
    said = [line["server"] for line in rest if "server" in line]
    given = [message.get("event_type") for message in said if "reason" not in message]
    assert [name for name in given if name in answers.values()] == [
        name for name in requested if name
    ]
