"""What every module of ``voicechat.wire`` with an ``open_dialect`` must do, found by reflection."""

import json
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import voicechat.wire
from voicechat.errors import Status
from voicechat.session import effects, events
from voicechat.session.effects import ClientMessage, Request
from voicechat.session.vocabulary import Settings, ToolCall, Transcript, Word
from voicechat.session.waterfall import Stage, waterfall
from voicechat.wire.dialect import Dialect, Greeting

MODULES = [
    module
    for info in pkgutil.iter_modules(voicechat.wire.__path__, "voicechat.wire.")
    if hasattr(module := import_module(info.name), "open_dialect")
]
GREETING = Greeting(session_id="s", epoch_s=1749037853.0)
FROM_A_CLIENT = (
    events.AudioReceived,
    events.UpdateRequested,
    events.CompleteRequested,
    events.ClearRequested,
    events.ForgetRequested,
    events.CancelRequested,
    events.MessageCreated,
    events.PlaybackReported,
    events.PingReceived,
    events.MalformedReceived,
    events.IgnorableReceived,
    events.FinishRequested,
)

_SAMPLES: dict[type, list[ClientMessage]] = {
    effects.Answered: [
        effects.Answered(request, status) for request in Request for status in (Status.OK, Status.NOT_ALLOWED_NOW)
    ],
    effects.Recognised: [effects.Recognised(Transcript("go", 0, 300, (Word("go", 0, 300),)))],
    effects.ReplyText: [effects.ReplyText(1, "Hi.", first, 20) for first in (True, False)],
    effects.ReplyToolCall: [effects.ReplyToolCall(1, ToolCall(0, "call_1", "f", ""), True, 20)],
    effects.ReplyTextFinished: [effects.ReplyTextFinished(1, "stop", first, 20) for first in (True, False)],
    effects.ReplyAudio: [effects.ReplyAudio(1, payload, 900) for payload in (b"mp3", b"")],
    effects.ReplyAudioFinished: [effects.ReplyAudioFinished(1, 3)],
    effects.SpeechNoticed: [effects.SpeechNoticed(started, 1_240) for started in (True, False)],
    effects.LatencyMeasured: [effects.LatencyMeasured(1, waterfall(0, {Stage.DECISION: 200, Stage.FIRST_SENT: 450}))],
    effects.TurnCompleted: [effects.TurnCompleted()],
    effects.ErrorReported: [effects.ErrorReported(Status.LLM_FAILED, "the chat model failed")],
}


@pytest.fixture(params=MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    opened: Dialect = request.param.open_dialect(GREETING)
    return opened


def samples() -> Iterator[ClientMessage]:
    for kind in get_args(ClientMessage):
        yield from _SAMPLES[kind]


def test_both_of_the_documents_dialects_are_found() -> None:
    assert {"voicechat.wire.speech_chat", "voicechat.wire.stream_speech"} <= {module.__name__ for module in MODULES}


def test_every_message_has_a_form_or_is_left_out(dialect: Dialect) -> None:
    for message in samples():
        for frame in dialect.encode(message):
            assert isinstance(frame, str)
            assert isinstance(json.loads(frame), dict)


def test_a_text_no_socket_can_carry_is_still_sent(dialect: Dialect) -> None:
    frames = dialect.encode(effects.Recognised(Transcript("half \ud83d of a pair", 0)))
    assert [json.loads(frame)["text"] for frame in frames] == ["half \ufffd of a pair"]


def test_an_empty_binary_frame_is_no_audio(dialect: Dialect) -> None:
    assert dialect.decode(b"") == [events.IgnorableReceived()]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_EVENT_TYPES = [
    "chat.update",
    "input_audio_buffer.complete",
    "conversation.audio.played",
    "conversation.message.create",
    "ping",
]
_KEYS = [
    "create_transcription_task_req",
    "chat_completion_with_voice_output_req",
    "chat_completion_req",
    "speech_synthesis_req",
    "messages",
    "sample_rate",
    "stop",
    "tools",
]
_EVENTS = st.fixed_dictionaries(
    {"event_type": st.sampled_from(_EVENT_TYPES) | _JSON},
    optional={"message": _JSON | st.dictionaries(st.sampled_from(_KEYS), _JSON), "reply": _JSON, "played_ms": _JSON},
)
_SURROGATES = st.text(st.characters(categories=["Cs", "Ll", "Po"]))
_FRAMES = st.binary() | st.text() | _SURROGATES | _JSON.map(json.dumps) | _EVENTS.map(json.dumps)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
@given(frame=_FRAMES)
def test_any_frame_becomes_events(module: object, frame: str | bytes) -> None:
    dialect: Dialect = module.open_dialect(GREETING)  # type: ignore[attr-defined]
    decoded = dialect.decode(frame)
    assert len(decoded) == 1
    assert isinstance(decoded[0], FROM_A_CLIENT)
    if isinstance(decoded[0], events.UpdateRequested):
        assert isinstance(decoded[0].settings, (Settings, events.Refusal))
