"""The exact wire form of every message down, key order included."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.errors import Status
from voicechat.names import ServiceNames
from voicechat.session.effects import (
    Answered,
    ClientMessage,
    ErrorReported,
    Recognised,
    ReplyAudio,
    ReplyAudioFinished,
    ReplyText,
    ReplyTextFinished,
    ReplyToolCall,
    Request,
    TurnCompleted,
)
from voicechat.session.vocabulary import ToolCall, Transcript, Word
from voicechat.wire.dialect import Dialect, Greeting
from voicechat.wire.speech_chat import open_dialect

MODELS = ServiceNames(frozenset({"default", "qwen3"}))
GREETING = Greeting(session_id="xyz", epoch_s=1749037853.9, model="qwen3", models=MODELS)


def wire(message: ClientMessage, dialect: Dialect | None = None) -> str:
    (frame,) = (dialect or open_dialect(GREETING)).encode(message)
    assert isinstance(frame, str)
    return frame


@pytest.mark.parametrize("request_", list(Request))
def test_every_answer_has_the_documents_key_order(request_: Request) -> None:
    assert wire(Answered(request_)) == f'{{"status":0,"message":"","event_type":"{request_.value}"}}'


def test_a_refusal_carries_status_and_reason() -> None:
    answer = Answered(Request.COMPLETE, Status.NOT_ALLOWED_NOW, "no audio yet")
    expected = '{"status":40901,"message":"no audio yet","event_type":"input_audio_buffer.completed"}'
    assert wire(answer) == expected


def test_the_answer_to_an_update_can_take_the_tables_name() -> None:
    dialect = open_dialect(GREETING, update_reply="chat.update")
    assert wire(Answered(Request.UPDATE), dialect) == '{"status":0,"message":"","event_type":"chat.update"}'
    assert wire(Answered(Request.PING), dialect) == '{"status":0,"message":"","event_type":"pong"}'


def test_turn_end_and_error_are_typed_events() -> None:
    assert wire(TurnCompleted()) == '{"status":0,"message":"","event_type":"conversation.chat.completed"}'
    error = ErrorReported(Status.LLM_FAILED, "the chat model failed")
    assert wire(error) == '{"status":50202,"message":"the chat model failed","event_type":"error"}'


def test_a_partial_result_reads_as_in_the_document() -> None:
    words = (Word("这是", 660, 1148), Word("模型", 1148, 1636, "。", fixed=True))
    assert wire(Recognised(Transcript("这是模型。", 660, None, words))) == (
        '{"text":"这是模型。","begin_time":660,"end_time":null,"words":['
        '"Word(beginTime=660, endTime=1148, text=这是, punctuation=, fixed=false)",'
        '"Word(beginTime=1148, endTime=1636, text=模型, punctuation=。, fixed=false)"],"is_sentence_end":false}'
    )


def test_a_final_result_has_an_end() -> None:
    expected = '{"text":"go","begin_time":0,"end_time":300,"words":[],"is_sentence_end":true}'
    assert wire(Recognised(Transcript("go", 0, 300))) == expected


def test_text_chunks_are_openais() -> None:
    assert wire(ReplyText(3, "你好", first=True, begun_ms=50)) == (
        '{"choices":[{"delta":{"content":"你好","role":"assistant"},"index":0}],"created":1749037853,'
        '"id":"chatcmpl-xyz-3","model":"qwen3","object":"chat.completion.chunk"}'
    )
    assert wire(ReplyText(3, "!", first=False, begun_ms=50)) == (
        '{"choices":[{"delta":{"content":"!"},"index":0}],"created":1749037853,'
        '"id":"chatcmpl-xyz-3","model":"qwen3","object":"chat.completion.chunk"}'
    )
    assert wire(ReplyTextFinished(3, "length", first=False, begun_ms=50)) == (
        '{"choices":[{"delta":{"content":""},"finish_reason":"length","index":0}],"created":1749037853,'
        '"id":"chatcmpl-xyz-3","model":"qwen3","object":"chat.completion.chunk"}'
    )


def test_tool_calls_are_openais_deltas() -> None:
    def delta(call: ToolCall, *, first: bool) -> object:
        return json.loads(wire(ReplyToolCall(1, call, first, 0)))["choices"][0]["delta"]

    assert delta(ToolCall(0, "call_1", "weather", ""), first=True) == {
        "content": None,
        "tool_calls": [
            {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        ],
        "role": "assistant",
    }
    assert delta(ToolCall(0, None, None, '{"city"'), first=False) == {
        "content": None,
        "tool_calls": [{"index": 0, "function": {"arguments": '{"city"'}}],
    }


def test_a_reply_without_text_still_names_the_assistant_once() -> None:
    choice = json.loads(wire(ReplyTextFinished(1, "stop", first=True, begun_ms=0)))["choices"][0]
    assert choice == {"delta": {"content": "", "role": "assistant"}, "finish_reason": "stop", "index": 0}


def test_created_is_the_second_in_which_the_reply_began() -> None:
    assert json.loads(wire(ReplyText(1, "x", first=True, begun_ms=99)))["created"] == 1749037853
    assert json.loads(wire(ReplyText(1, "x", first=True, begun_ms=100)))["created"] == 1749037854


def test_audio_frames_are_the_documents_with_the_replys_id() -> None:
    assert wire(ReplyAudio(3, b"ID3\x04\x00\x00", 26)) == (
        '{"status":"accepting","usage":null,"audioFrame":"SUQzBAAA","id":"chatcmpl-xyz-3"}'
    )
    assert wire(ReplyAudio(3, b"", 26)) == (
        '{"status":"accepting","usage":null,"audioFrame":null,"id":"chatcmpl-xyz-3"}'
    )
    assert wire(ReplyAudioFinished(3, 26)) == (
        '{"status":"finish","usage":{"characters":26},"audioFrame":null,"id":"chatcmpl-xyz-3"}'
    )


@given(payload=st.binary(min_size=1, max_size=5000), session=st.text(max_size=8))
def test_audio_survives_whatever_the_session_is_called(payload: bytes, session: str) -> None:
    frame = json.loads(wire(ReplyAudio(1, payload, 0), open_dialect(Greeting(session_id=session))))
    assert base64.b64decode(frame["audioFrame"], validate=True) == payload
    assert frame["id"] == f"chatcmpl-{session}-1"


@given(text=st.text())
def test_any_text_survives(text: str) -> None:
    chunk = json.loads(wire(ReplyText(1, text, first=False, begun_ms=0)))
    result = json.loads(wire(Recognised(Transcript(text, 0))))
    assert chunk["choices"][0]["delta"]["content"] == result["text"] == text


def test_chunks_name_the_model_of_the_last_granted_update() -> None:
    def chunk_model() -> object:
        return json.loads(wire(ReplyText(1, "x", first=True, begun_ms=0), dialect))["model"]

    def ask(model: str) -> None:
        sections = {"chat_completion_req": {"model": model}, "speech_synthesis_req": {}}
        message = {"create_transcription_task_req": {}, "chat_completion_with_voice_output_req": sections}
        dialect.decode(json.dumps({"event_type": "chat.update", "message": message}))

    dialect = open_dialect(GREETING)
    ask("default")
    ask("")
    assert chunk_model() == "qwen3"
    dialect.encode(Answered(Request.UPDATE))
    assert chunk_model() == "default"
    dialect.encode(Answered(Request.UPDATE, Status.NOT_ALLOWED_NOW, "too late"))
    assert chunk_model() == "default"
    ask("")
    dialect.encode(Answered(Request.UPDATE))
    assert chunk_model() == "qwen3"
