"""Clients that ask for it are told that the server stops, in their protocol's form."""

import json
from dataclasses import replace

import pytest

from voicechat.dialects.audiosocket.endpoint import AudioSocketEndpoint
from voicechat.dialects.base import Connection, Dialect, Endpoint, Handshake, Tell
from voicechat.dialects.openai_realtime.endpoint import OpenAIRealtimeEndpoint
from voicechat.dialects.rtvi.endpoint import RTVIEndpoint
from voicechat.dialects.speech_chat.endpoint import SpeechChatEndpoint
from voicechat.dialects.stream_speech.endpoint import StreamSpeechEndpoint
from voicechat.dialects.xiaozhi.endpoint import XiaozhiEndpoint
from voicechat.session.notices import GoingAway

CONNECTION = Connection(session_id="s", epoch_s=1749037853.0)
TOLD: list[tuple[type[Endpoint], dict[str, object]]] = [
    (
        SpeechChatEndpoint,
        {"status": 0, "message": "", "event_type": "session.going_away", "left_ms": 1_500},
    ),
    (OpenAIRealtimeEndpoint, {"type": "session.going_away", "left_ms": 1_500}),
    (RTVIEndpoint, {"type": "server-message", "data": {"type": "going_away", "left_ms": 1_500}}),
]


def opened(endpoint: type[Endpoint], **query: str) -> Dialect:
    dialect = endpoint().open(replace(CONNECTION, handshake=Handshake(query=query))).dialect
    list(dialect.open(0))
    return dialect


def frames(dialect: Dialect) -> list[dict[str, object]]:
    told = list(dialect.notify(GoingAway(1_500), 10))
    assert all(isinstance(each, Tell) for each in told)
    return [json.loads(each.frame) for each in told if isinstance(each, Tell)]


@pytest.mark.parametrize(("endpoint", "form"), TOLD, ids=lambda value: str(value)[-30:])
def test_who_asks_is_told(endpoint: type[Endpoint], form: dict[str, object]) -> None:
    dialect = opened(endpoint, going_away="1")
    assert dialect.announces_end
    (frame,) = frames(dialect)
    assert form.items() <= frame.items()


@pytest.mark.parametrize(
    "endpoint",
    [
        *(endpoint for endpoint, _ in TOLD),
        StreamSpeechEndpoint,
        XiaozhiEndpoint,
        AudioSocketEndpoint,
    ],
)
def test_others_receive_nothing_that_they_do_not_know(endpoint: type[Endpoint]) -> None:
    for query in ({}, {"going_away": "0"}):
        dialect = opened(endpoint, **query)
        assert not dialect.announces_end
        assert frames(dialect) == []
