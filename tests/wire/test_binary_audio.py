"""Audio as binary messages, for clients that asked for it."""

import json

from tests.wire.test_chat_update import configuration
from voicechat.errors import Status
from voicechat.session.effects import Answered, ReplyAudio, ReplyAudioFinished, Request
from voicechat.wire.dialect import Greeting
from voicechat.wire.speech_chat import BINARY_HEADER, open_dialect


def update(**top: object) -> str:
    return json.dumps({"event_type": "chat.update", "message": configuration(**top)})


def test_a_frame_is_a_header_and_the_payload() -> None:
    dialect = open_dialect(Greeting(session_id="s"))
    dialect.decode(update(downlink="binary"))
    dialect.encode(Answered(Request.UPDATE))
    frames = [
        *dialect.encode(ReplyAudio(1, b"abc", 100)),
        *dialect.encode(ReplyAudio(1, b"de", 250)),
        *dialect.encode(ReplyAudio(2, b"f", 40)),
    ]
    split = [(BINARY_HEADER.unpack(frame[:16]), frame[16:]) for frame in frames if isinstance(frame, bytes)]
    assert split == [((1, 0, 0), b"abc"), ((1, 1, 100), b"de"), ((2, 0, 0), b"f")]
    (end,) = dialect.encode(ReplyAudioFinished(2, 5))
    assert isinstance(end, str), "only audio is binary"


def test_a_refused_update_changes_nothing() -> None:
    dialect = open_dialect(Greeting(session_id="s"))
    dialect.decode(update(downlink="binary"))
    dialect.encode(Answered(Request.UPDATE, Status.NOT_ALLOWED_NOW, "too late"))
    (frame,) = dialect.encode(ReplyAudio(1, b"abc", 100))
    assert isinstance(frame, str)
