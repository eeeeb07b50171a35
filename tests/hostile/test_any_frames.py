"""Any frames whatever, at any moment of a turn: dialect, kernel and runtime together,
in virtual time.

Each text that is no event earns an error, each request exactly one answer, each granted
turn exactly one end, and the session goes on, or is closed as the contract says.
"""

import asyncio
import json
import logging
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from voicechat.dialects.base import Connection
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer
from voicechat.testing.virtual_time import VirtualTimeLoop

ANSWERS = {
    "chat.update": "chat.updated",
    "input_audio_buffer.complete": "input_audio_buffer.completed",
    "input_audio_buffer.clear": "input_audio_buffer.cleared",
    "conversation.clear": "conversation.cleared",
    "conversation.chat.cancel": "conversation.chat.canceled",
    "ping": "pong",
}

_HELLO = json.dumps(
    {"event_type": "conversation.message.create", "role": "user", "content": "Hello"}
)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=5,
)
_REQUESTS = st.sampled_from(sorted(ANSWERS)).map(
    lambda name: json.dumps({"event_type": name, "message": {}})
)
_TYPED = st.just(_HELLO)
_ODD_EVENTS = st.fixed_dictionaries(
    {
        "event_type": st.sampled_from(
            [*ANSWERS, "conversation.message.create", "conversation.audio.played"]
        )
        | _JSON
    },
    optional={
        "message": _JSON,
        "role": _JSON,
        "content": _JSON,
        "reply": _JSON,
        "played_ms": _JSON,
    },
).map(json.dumps)
_FRAMES = _REQUESTS | _TYPED | _ODD_EVENTS | st.text(max_size=30) | _JSON.map(json.dumps)
_AUDIO = st.binary(max_size=100) | st.just(bytes(3200)) | st.just(b"RIFF" + bytes(60))
_WAITS_MS = st.sampled_from([0, 1, 15, 40, 90, 200, 1_000])
_STEPS = st.lists(st.tuples(_REQUESTS | _TYPED | _AUDIO | _FRAMES, _WAITS_MS), max_size=40)

_COMPLETE = json.dumps({"event_type": "input_audio_buffer.complete"})
_CANCEL = json.dumps({"event_type": "conversation.chat.cancel"})
TYPED: list[tuple[str | bytes, int]] = [(_HELLO, 1_000), (_HELLO, 40)]
SPOKEN: list[tuple[str | bytes, int]] = [
    (bytes(3200), 200),
    (_COMPLETE, 1_000),
    (b"RIFF", 0),
    (_COMPLETE, 0),
]
CANCELLED: list[tuple[str | bytes, int]] = [(bytes(3200), 200), (_COMPLETE, 90), (_CANCEL, 0)]
BROKEN: list[tuple[str | bytes, int]] = [
    ("{", 0),
    ("[]", 0),
    (bytes(3200), 1),
    ("null", 0),
    (_COMPLETE, 0),
]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=_STEPS)
@example(steps=TYPED)
@example(steps=SPOKEN)
@example(steps=CANCELLED)
@example(steps=BROKEN)
def test_any_frames_are_handled_or_earn_the_documented_error(
    steps: list[tuple[str | bytes, int]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        told = runner.run(played([*steps]))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    asked = Counter(
        ANSWERS[name] for name in map(request_name, [frame for frame, _ in steps]) if name
    )
    asked += Counter({"chat.created": 1, "pong": 1})
    answered = Counter(kind for kind in kinds(told) if kind in asked or kind in ANSWERS.values())
    assert answered == asked
    assert kinds(told).count("error") >= sum(is_no_object(frame) for frame, _ in steps)
    granted = sum(
        m.get("event_type") == "input_audio_buffer.completed" and m["status"] == 0 for m in told
    )
    typed = sum(is_typed_turn(frame) for frame, _ in steps)
    ended = kinds(told).count("conversation.chat.completed")
    assert granted <= ended <= granted + typed


@pytest.mark.parametrize(
    ("steps", "reached"),
    [
        (TYPED, {"text", "audio", "conversation.chat.completed"}),
        (
            SPOKEN,
            {"asr-final", "input_audio_buffer.completed", "audio", "conversation.chat.completed"},
        ),
        (CANCELLED, {"asr-final", "conversation.chat.canceled", "conversation.chat.completed"}),
        (BROKEN, {"error", "input_audio_buffer.completed"}),
    ],
    ids=["typed", "spoken", "cancelled", "broken"],
)
async def test_the_examples_reach_what_matters(
    steps: list[tuple[str | bytes, int]], reached: set[str]
) -> None:
    """The search above begins with them, so it is known that its rules are tried on
    whole turns.
    """
    assert reached <= {*kinds(await played(steps))}


async def played(steps: list[tuple[str | bytes, int]]) -> list[dict[str, Any]]:
    """What the server said; at the end a ping, which is answered when all before it has
    been.
    """
    harness = ScriptedHarness(
        recognizer=ScriptedRecognizer(final_ms=20),
        model=ScriptedModel(first_ms=30, delta_ms=10),
        synthesizer=ScriptedSynthesizer(first_ms=20, chunk_delay_ms=10),
        dialect=SpeechChat(Connection(session_id="s")),
    )

    def messages() -> list[dict[str, Any]]:
        return [json.loads(frame) for frame in harness.frames]

    async with harness:
        for frame, wait_ms in steps:
            harness.send_frame(frame)
            await asyncio.sleep(wait_ms / 1000)
        await asyncio.sleep(20)
        pongs = kinds(messages()).count("pong")
        harness.send_frame(json.dumps({"event_type": "ping"}))
        await harness.until(lambda: kinds(messages()).count("pong") > pongs)
        return messages()


def kind_of(message: dict[str, Any]) -> str:
    if "event_type" in message:
        return str(message["event_type"])
    if "is_sentence_end" in message:
        return "asr-final" if message["is_sentence_end"] else "asr"
    if "choices" in message:
        return "text-end" if message["choices"][0].get("finish_reason") else "text"
    return "audio" if message["status"] == "accepting" else "audio-end"


def kinds(told: list[dict[str, Any]]) -> list[str]:
    return [kind_of(message) for message in told]


def request_name(frame: str | bytes) -> str | None:
    """The request that a frame makes, if it makes one that is answered."""
    if isinstance(frame, bytes):
        return None
    try:
        event = json.loads(frame, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    name = event.get("event_type") if isinstance(event, dict) else None
    return name if isinstance(name, str) and name in ANSWERS else None


def is_typed_turn(frame: str | bytes) -> bool:
    return isinstance(frame, str) and "conversation.message.create" in frame


def is_no_object(frame: str | bytes) -> bool:
    try:
        return isinstance(frame, str) and not isinstance(
            json.loads(frame, parse_constant=_refuse), dict
        )
    except ValueError:
        return True


def _refuse(constant: str) -> object:
    raise ValueError(constant)
