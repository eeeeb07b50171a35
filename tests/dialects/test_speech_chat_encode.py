"""The exact wire form of every message down, key order included."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.dialects.base import Connection, Tell
from voicechat.dialects.speech_chat.endpoint import SpeechChatEndpoint
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.errors import Fault, Status
from voicechat.names import ServiceNames
from voicechat.session import commands as cmd
from voicechat.session.notices import (
    Done,
    Ended,
    Ending,
    Failed,
    Interrupted,
    Notice,
    Outcome,
    Recognised,
    Rejected,
    ReplyAudio,
    ReplyAudioFinished,
    ReplyBegun,
    ReplyText,
    ReplyTextFinished,
    ReplyToolCall,
    TurnCommitted,
    TurnCompleted,
    Why,
)
from voicechat.session.types import ToolCall, Transcript, Word

MODELS = ServiceNames(frozenset({"default", "qwen3"}))
CONNECTION = Connection(session_id="xyz", epoch_s=1749037853.9, model="qwen3", models=MODELS)


def opened() -> SpeechChat:
    """A dialect whose client has sent audio."""
    dialect = SpeechChat(CONNECTION)
    list(dialect.receive(b"\0\1", 0))
    return dialect


def wire(notice: Notice, dialect: SpeechChat | None = None) -> str:
    (tell,) = (dialect or SpeechChat(CONNECTION)).notify(notice, 0)
    assert isinstance(tell, Tell)
    assert isinstance(tell.frame, str)
    return tell.frame


def asked(event_type: str, dialect: SpeechChat, **more: object) -> cmd.Command:
    """The command that a request becomes."""
    frame = json.dumps({"event_type": event_type, **more})
    commands = [r for r in dialect.receive(frame, 0) if isinstance(r, cmd.Command)]
    return next(c for c in commands if c.cause is not None)


UPDATE: dict[str, object] = {
    "create_transcription_task_req": {},
    "chat_completion_with_voice_output_req": {
        "chat_completion_req": {},
        "speech_synthesis_req": {},
    },
}


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("input_audio_buffer.clear", "input_audio_buffer.cleared"),
        ("conversation.clear", "conversation.cleared"),
        ("conversation.chat.cancel", "conversation.chat.canceled"),
    ],
)
def test_every_answer_has_the_documents_key_order(request_: str, answer: str) -> None:
    dialect = opened()
    done = Done(asked(request_, dialect).cause)
    assert wire(done, dialect) == f'{{"status":0,"message":"","event_type":"{answer}"}}'


def test_a_commit_is_answered_by_its_own_notice_and_a_detected_one_says_so() -> None:
    dialect = opened()
    cause = asked("input_audio_buffer.complete", dialect).cause
    plain = '{"status":0,"message":"","event_type":"input_audio_buffer.completed"'
    assert wire(TurnCommitted(cause), dialect) == plain + "}"
    assert wire(TurnCommitted(None, detected=True)) == plain + ',"reason":"turn_detected"}'
    canceled = '{"status":0,"message":"","event_type":"conversation.chat.canceled","reason":"turn_detected"}'
    assert wire(Interrupted()) == canceled


def test_a_refusal_carries_status_and_reason() -> None:
    dialect = opened()
    rejected = Rejected(asked("input_audio_buffer.complete", dialect).cause, Why.BUSY, "busy")
    said = json.loads(wire(rejected, dialect))
    assert (said["event_type"], said["status"]) == ("input_audio_buffer.completed", 40901)
    assert said["message"].startswith("input_audio_buffer.complete: ")


@pytest.mark.parametrize(("why", "status"), [(Why.NO_CALL, 40901), (Why.OTHER_CALL, 40003)])
def test_a_tool_answer_that_is_refused_is_an_error_that_names_its_field(
    why: Why, status: int
) -> None:
    dialect = opened()
    sent = {"role": "tool", "tool_call_id": "call_1", "content": "20"}
    cause = asked("conversation.message.create", dialect, **sent).cause
    said = json.loads(wire(Rejected(cause, why, f"'call_1': {why.value}"), dialect))
    assert (said["event_type"], said["status"]) == ("error", status)
    assert said["message"] == f"tool_call_id: 'call_1': {why.value}"


def test_a_typed_turn_that_is_refused_is_an_error() -> None:
    dialect = opened()
    sent = {"role": "user", "content": "hello"}
    cause = asked("conversation.message.create", dialect, **sent).cause
    said = json.loads(wire(Rejected(cause, Why.BUSY, Why.BUSY.value), dialect))
    assert (said["event_type"], said["status"]) == ("error", 40901)
    assert said["message"].startswith("conversation.message.create: ")


def test_the_answer_to_an_update_can_take_the_tables_name() -> None:
    dialect = SpeechChat(CONNECTION, update_reply="chat.update")
    done = Done(asked("chat.update", dialect, message=UPDATE).cause)
    assert wire(done, dialect) == '{"status":0,"message":"","event_type":"chat.update"}'


def test_a_connection_is_greeted_and_a_refused_one_told_why() -> None:
    noted = Connection(note='model: "x" is not known')
    (created,) = SpeechChat(noted).open(0)
    assert isinstance(created, Tell)
    assert json.loads(created.frame) == {
        "status": 0,
        "message": noted.note,
        "event_type": "chat.created",
    }
    endpoint = SpeechChatEndpoint()
    refused = endpoint.refuse(Status.NOT_FOUND, "model: no", restarting=False)
    assert refused.frames == ('{"status":40401,"message":"model: no","event_type":"chat.created"}',)
    codes = [endpoint.refuse(Status.AT_CAPACITY, "full", restarting=r).code for r in (False, True)]
    assert (refused.code, codes) == (1008, [1013, 1012])


def test_the_end_of_a_session_is_an_error_and_a_closing_code() -> None:
    dialect = SpeechChat(CONNECTION)
    ended = Ended(Ending.ABSENT, "no message for 60 s", Fault.TIMEOUT)
    assert wire(ended) == '{"status":40801,"message":"no message for 60 s","event_type":"error"}'
    left = Ended(Ending.VIOLATION, "no sense", cause=Status.MALFORMED)
    assert json.loads(wire(left))["status"] == 40001
    assert [dialect.close_code(each) for each in (ended, left)] == [1000, 1008]
    assert list(dialect.notify(Ended(Ending.FINISHED), 0)) == []


def test_turn_end_and_error_are_typed_events() -> None:
    assert (
        wire(TurnCompleted(Outcome.SPOKEN))
        == '{"status":0,"message":"","event_type":"conversation.chat.completed"}'
    )
    error = Failed(Fault.LLM_FAILED, "the chat model failed")
    assert wire(error) == '{"status":50202,"message":"the chat model failed","event_type":"error"}'


def test_a_partial_result_reads_as_in_the_document() -> None:
    words = (Word("这是", 660, 1148), Word("模型", 1148, 1636, "。", fixed=True))
    assert wire(Recognised(Transcript("这是模型。", 660, None, words))) == (
        '{"text":"这是模型。","begin_time":660,"end_time":null,"words":['
        '"Word(beginTime=660, endTime=1148, text=这是, punctuation=, fixed=false)",'
        '"Word(beginTime=1148, endTime=1636, text=模型, punctuation=。, '
        'fixed=false)"],"is_sentence_end":false}'
    )


def test_a_final_result_has_an_end() -> None:
    expected = '{"text":"go","begin_time":0,"end_time":300,"words":[],"is_sentence_end":true}'
    assert wire(Recognised(Transcript("go", 0, 300))) == expected


def test_text_chunks_are_openais() -> None:
    dialect = SpeechChat(CONNECTION)
    assert list(dialect.notify(ReplyBegun(3, 50), 0)) == []
    assert wire(ReplyText(3, "你好"), dialect) == (
        '{"choices":[{"delta":{"content":"你好","role":"assistant"},"index":0}],"created":1749037853,'
        '"id":"chatcmpl-xyz-3","model":"qwen3","object":"chat.completion.chunk"}'
    )
    assert wire(ReplyText(3, "!"), dialect) == (
        '{"choices":[{"delta":{"content":"!"},"index":0}],"created":1749037853,'
        '"id":"chatcmpl-xyz-3","model":"qwen3","object":"chat.completion.chunk"}'
    )
    assert wire(ReplyTextFinished(3, "length"), dialect) == (
        '{"choices":[{"delta":{"content":""},"finish_reason":"length","index":0}],"created":1749037853,'
        '"id":"chatcmpl-xyz-3","model":"qwen3","object":"chat.completion.chunk"}'
    )


def test_tool_calls_are_openais_deltas_and_the_next_answer_begins_with_its_role() -> None:
    dialect = SpeechChat(CONNECTION)

    def delta(notice: Notice) -> object:
        return json.loads(wire(notice, dialect))["choices"][0]["delta"]

    assert delta(ReplyToolCall(1, ToolCall(0, "call_1", "weather", ""))) == {
        "content": None,
        "tool_calls": [
            {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": ""},
            }
        ],
        "role": "assistant",
    }
    assert delta(ReplyToolCall(1, ToolCall(0, None, None, '{"city"'))) == {
        "content": None,
        "tool_calls": [{"index": 0, "function": {"arguments": '{"city"'}}],
    }
    assert delta(ReplyTextFinished(1, "tool_calls")) == {"content": ""}
    assert delta(ReplyText(1, "It is warm.")) == {"content": "It is warm.", "role": "assistant"}


def test_a_reply_without_text_still_names_the_assistant_once() -> None:
    choice = json.loads(wire(ReplyTextFinished(1, "stop")))["choices"][0]
    assert choice == {
        "delta": {"content": "", "role": "assistant"},
        "finish_reason": "stop",
        "index": 0,
    }


@pytest.mark.parametrize(("begun_ms", "created"), [(99, 1749037853), (100, 1749037854)])
def test_created_is_the_second_in_which_the_reply_began(begun_ms: int, created: int) -> None:
    dialect = SpeechChat(CONNECTION)
    list(dialect.notify(ReplyBegun(1, begun_ms), 0))
    assert json.loads(wire(ReplyText(1, "x"), dialect))["created"] == created


def test_audio_frames_are_the_documents_with_the_replys_id() -> None:
    assert wire(ReplyAudio(3, (b"ID3\x04\x00\x00",), 26, 0)) == (
        '{"status":"accepting","usage":null,"audioFrame":"SUQzBAAA","id":"chatcmpl-xyz-3"}'
    )
    assert wire(ReplyAudio(3, (b"",), 26, 0)) == (
        '{"status":"accepting","usage":null,"audioFrame":null,"id":"chatcmpl-xyz-3"}'
    )
    assert wire(ReplyAudioFinished(3, ("你好，世界。", "Hello, world. Hi!"))) == (
        '{"status":"finish","usage":{"characters":27},"audioFrame":null,"id":"chatcmpl-xyz-3"}'
    )


@given(payload=st.binary(min_size=1, max_size=5000), session=st.text(max_size=8))
def test_audio_survives_whatever_the_session_is_called(payload: bytes, session: str) -> None:
    frame = json.loads(
        wire(ReplyAudio(1, (payload,), 0, 0), SpeechChat(Connection(session_id=session)))
    )
    assert base64.b64decode(frame["audioFrame"], validate=True) == payload
    assert frame["id"] == f"chatcmpl-{session}-1"


@given(text=st.text())
def test_any_text_survives(text: str) -> None:
    chunk = json.loads(wire(ReplyText(1, text)))
    result = json.loads(wire(Recognised(Transcript(text, 0))))
    assert chunk["choices"][0]["delta"]["content"] == result["text"] == text


def test_chunks_name_the_model_of_the_last_granted_update() -> None:
    dialect = SpeechChat(CONNECTION)

    def chunk_model() -> object:
        return json.loads(wire(ReplyText(1, "x"), dialect))["model"]

    def ask(model: str) -> object:
        sections = {"chat_completion_req": {"model": model}, "speech_synthesis_req": {}}
        message = UPDATE | {"chat_completion_with_voice_output_req": sections}
        return asked("chat.update", dialect, message=message).cause

    first, second = ask("default"), ask("")
    assert chunk_model() == "qwen3"
    wire(Done(first), dialect)
    assert chunk_model() == "default"
    wire(Done(second), dialect)
    assert chunk_model() == "qwen3"
