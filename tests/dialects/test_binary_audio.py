"""Audio as binary messages, for clients that asked for it."""

import json

from tests.dialects.test_chat_update import configuration
from voicechat.dialects.base import Connection, Tell
from voicechat.dialects.speech_chat.codec import BINARY_HEADER
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.session.commands import Configure
from voicechat.session.notices import Done, Notice, ReplyAudio, ReplyAudioFinished


def updated(dialect: SpeechChat, **top: object) -> Done:
    frame = json.dumps({"event_type": "chat.update", "message": configuration(**top)})
    (command,) = (r for r in dialect.receive(frame, 0) if isinstance(r, Configure))
    return Done(command.cause)


def frames(dialect: SpeechChat, *notices: Notice) -> list[str | bytes]:
    told = [reaction for notice in notices for reaction in dialect.notify(notice, 0)]
    return [reaction.frame for reaction in told if isinstance(reaction, Tell)]


def test_a_frame_is_a_header_and_the_payload() -> None:
    dialect = SpeechChat(Connection(session_id="s"))
    list(dialect.notify(updated(dialect, downlink="binary"), 0))
    sent = frames(
        dialect,
        ReplyAudio(1, (b"abc",), 100, 0),
        ReplyAudio(1, (b"d", b"e"), 250, 0),
        ReplyAudio(2, (b"f",), 40, 0),
    )
    split = [
        (BINARY_HEADER.unpack(frame[:16]), frame[16:]) for frame in sent if isinstance(frame, bytes)
    ]
    assert split == [((1, 0, 0), b"abc"), ((1, 1, 100), b"de"), ((2, 0, 0), b"f")]
    (end,) = frames(dialect, ReplyAudioFinished(2, ("hello",)))
    assert isinstance(end, str), "only audio is binary"


def test_an_update_that_is_not_done_changes_nothing() -> None:
    dialect = SpeechChat(Connection(session_id="s"))
    updated(dialect, downlink="binary")
    (frame,) = frames(dialect, ReplyAudio(1, (b"abc",), 100, 0))
    assert isinstance(frame, str)
