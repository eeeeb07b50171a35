"""What every dialect must do, found by reflection in ``voicechat.dialects``."""

import json
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import voicechat.dialects
from voicechat.dialects.base import Connection, Dialect, Endpoint, Reaction, Tell
from voicechat.errors import Fault, Status
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.events import AudioReceived
from voicechat.session.latency_breakdown import Stage, break_down_latency
from voicechat.session.types import (
    Item,
    Source,
    ToolAnswer,
    ToolCall,
    ToolExchange,
    ToolOutcome,
    Transcript,
    Usage,
    Word,
)

CONNECTION = Connection(session_id="s", epoch_s=1749037853.0)


def endpoints() -> Iterator[type[Endpoint]]:
    for folder in pkgutil.iter_modules(voicechat.dialects.__path__, "voicechat.dialects."):
        if folder.ispkg:
            module = import_module(f"{folder.name}.endpoint")
            yield from (
                found
                for found in vars(module).values()
                if isinstance(found, type)
                and issubclass(found, Endpoint)
                and found.__module__ == module.__name__
            )


ENDPOINTS = list(endpoints())
every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda kind: kind.__name__)

_SAMPLES: dict[type, list[nt.Notice]] = {
    nt.Done: [nt.Done(None)],
    nt.Rejected: [nt.Rejected(None, why, why.value) for why in nt.Why],
    nt.TurnCommitted: [nt.TurnCommitted(None, detected) for detected in (True, False)],
    nt.UserSaid: [nt.UserSaid(Item("item_1", {"role": "user", "content": "go"}))],
    nt.NothingSaid: [nt.NothingSaid("item_1"), nt.NothingSaid("item_1", "no recogniser")],
    nt.TurnCompleted: [nt.TurnCompleted(outcome) for outcome in nt.Outcome],
    nt.Recognised: [nt.Recognised(Transcript("go", 0, 300, (Word("go", 0, 300),)))],
    nt.SpeechNoticed: [nt.SpeechNoticed(started, 1_240) for started in (True, False)],
    nt.Interrupted: [nt.Interrupted()],
    nt.ReplyBegun: [nt.ReplyBegun(1, 20)],
    nt.ReplyText: [nt.ReplyText(1, "Hi.")],
    nt.ReplyToolCall: [nt.ReplyToolCall(1, ToolCall(0, "call_1", "f", ""))],
    nt.ReplyToolsUsed: [
        nt.ReplyToolsUsed(
            1,
            ToolExchange(
                (ToolCall(0, "call_1", "f", "{}"),),
                (ToolAnswer("yes", ToolOutcome.ANSWERED, 20, "f"),),
            ),
        )
    ],
    nt.ReplySources: [
        nt.ReplySources(1, (Source(index=1, kind="file", title="t", content="c", url="/u"),))
    ],
    nt.ReplyTextFinished: [nt.ReplyTextFinished(1, "stop")],
    nt.SentenceBegun: [nt.SentenceBegun(1, 0, "Hi.")],
    nt.ReplyAudio: [nt.ReplyAudio(1, packets, 900, 0) for packets in ((b"mp3",), (b"", b"x"))],
    nt.ReplyAudioFinished: [nt.ReplyAudioFinished(1, ("Hi.",))],
    nt.ReplyCut: [nt.ReplyCut(1, "H")],
    nt.ReplyEnded: [nt.ReplyEnded(1, outcome, (), Usage(1, 2)) for outcome in nt.Outcome],
    nt.LatencyMeasured: [
        nt.LatencyMeasured(1, break_down_latency(0, {Stage.DECISION: 200, Stage.FIRST_SENT: 450}))
    ],
    nt.GoingAway: [nt.GoingAway(1_500)],
    nt.Failed: [nt.Failed(fault, "it failed") for fault in Fault],
    nt.Ended: [
        *(nt.Ended(ending, "why", fault) for ending in nt.Ending for fault in (None, *Fault)),
        nt.Ended(nt.Ending.VIOLATION, "why", cause=Status.MALFORMED),
    ],
}


@pytest.fixture(params=ENDPOINTS, ids=lambda kind: kind.__name__)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    endpoint: Endpoint = request.param()
    return endpoint.open(CONNECTION).dialect


def samples() -> Iterator[nt.Notice]:
    for kind in get_args(nt.Notice):
        yield from _SAMPLES[kind]


def frames(reactions: list[Reaction]) -> list[str | bytes]:
    return [reaction.frame for reaction in reactions if isinstance(reaction, Tell)]


def test_both_of_the_documents_dialects_are_found() -> None:
    names = {kind.__module__.split(".")[2] for kind in ENDPOINTS}
    assert names >= {"speech_chat", "stream_speech"}


def test_every_notice_has_a_form_or_is_left_out(dialect: Dialect) -> None:
    for notice in samples():
        for frame in frames(list(dialect.notify(notice, 0))):
            assert isinstance(frame, bytes) or isinstance(json.loads(frame), dict)


def test_every_end_has_a_closing_code(dialect: Dialect) -> None:
    for ending in nt.Ending:
        assert 1000 <= dialect.close_code(nt.Ended(ending)) <= 4999


def test_a_text_no_socket_can_carry_is_still_sent(dialect: Dialect) -> None:
    words = "half \ud83d of a pair"
    notices: list[nt.Notice] = [
        nt.Recognised(Transcript(words, 0)),
        nt.UserSaid(Item("item_1", {"content": words})),
        nt.ReplyBegun(1, 0),
        nt.ReplyText(1, words),
    ]
    told = [frame for notice in notices for frame in frames(list(dialect.notify(notice, 0)))]
    texts = [frame for frame in told if isinstance(frame, str)]
    # A dialect that tells no words has none to spoil.
    assert not texts or any("half \ufffd of a pair" in text for text in texts)
    assert all(text.encode() for text in texts)


def test_an_empty_binary_frame_is_no_audio(dialect: Dialect) -> None:
    assert list(dialect.receive(b"", 0)) == [cmd.Alive()]


@every_endpoint
@pytest.mark.parametrize("status", [Status.NOT_AUTHORISED, Status.AT_CAPACITY])
def test_every_refusal_has_a_closing_code(endpoint: type[Endpoint], status: Status) -> None:
    for restarting in (True, False):
        refused = endpoint().refuse(status, "why", restarting=restarting)
        assert 1001 <= refused.code <= 4999


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
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "conversation.item.create",
    "conversation.item.truncate",
    "response.create",
    "response.cancel",
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
    "type",
    "content",
    "role",
    "audio",
    "input",
]
_EVENTS = st.fixed_dictionaries(
    {"event_type": st.sampled_from(_EVENT_TYPES) | _JSON},
    optional={
        "type": st.sampled_from(_EVENT_TYPES) | _JSON,
        "session": _JSON | st.dictionaries(st.sampled_from(_KEYS), _JSON),
        "item": _JSON | st.dictionaries(st.sampled_from(_KEYS), _JSON),
        "response": _JSON | st.dictionaries(st.sampled_from(_KEYS), _JSON),
        "item_id": _JSON,
        "audio": _JSON,
        "message": _JSON | st.dictionaries(st.sampled_from(_KEYS), _JSON),
        "reply": _JSON,
        "played_ms": _JSON,
    },
)
_SURROGATES = st.text(st.characters(categories=["Cs", "Ll", "Po"]))
_FRAMES = st.binary() | st.text() | _SURROGATES | _JSON.map(json.dumps) | _EVENTS.map(json.dumps)


@every_endpoint
@given(frame=_FRAMES)
def test_any_frame_becomes_reactions(endpoint: type[Endpoint], frame: str | bytes) -> None:
    dialect = endpoint().open(CONNECTION).dialect
    for reaction in dialect.receive(frame, 0):
        assert isinstance(reaction, cmd.Command | AudioReceived | Tell)
