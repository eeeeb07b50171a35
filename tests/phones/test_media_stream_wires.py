"""What each vendor of media streams writes and how it is read. The messages are the
examples of the vendors' documentation.
"""

import base64
import json
from typing import Any

import pytest

from voicechat.audio.formats import Container
from voicechat.dialects.base import Connection, Handshake, Tell
from voicechat.dialects.media_streams.call import MOST_ERRORS, MediaStreamCall
from voicechat.dialects.media_streams.endpoint import VENDORS, MediaStreamsEndpoint
from voicechat.dialects.media_streams.wire import KeyPressed, MarkReached, StreamStarted
from voicechat.dialects.telephony import LineFormat
from voicechat.errors import RemoteProtocolError
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.agent import Agent
from voicechat.session.events import AudioReceived
from voicechat.session.types import TurnDetection

MEDIA = base64.b64encode(b"\x7f" * 160).decode()
TWILIO_CONNECTED = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
STARTS: dict[str, dict[str, Any]] = {
    "twilio": {
        "event": "start",
        "sequenceNumber": "1",
        "start": {
            "accountSid": "AC1",
            "streamSid": "MZ1",
            "callSid": "CA1",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {
                "token": "vct_1",
                "guest": "Ann",
                "called": "+4930",
                "caller": "+4940",
            },
        },
        "streamSid": "MZ1",
    },
    "telnyx": {
        "event": "start",
        "sequence_number": "1",
        "start": {
            "user_id": "u",
            "call_control_id": "CA1",
            "from": "+4940",
            "to": "+4930",
            "media_format": {"encoding": "PCMA", "sample_rate": 8000, "channels": 1},
            "custom_parameters": {"token": "vct_1", "guest": "Ann"},
        },
        "stream_id": "MZ1",
    },
    "plivo": {
        "event": "start",
        "sequenceNumber": 1,
        "start": {
            "callId": "CA1",
            "streamId": "MZ1",
            "accountId": "M",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 16000},
        },
        "extra_headers": "token=vct_1;guest=Ann;to=+4930;from=+4940",
    },
    "exotel": {
        "event": "start",
        "sequence_number": 1,
        "stream_sid": "MZ1",
        "start": {
            "stream_sid": "MZ1",
            "call_sid": "CA1",
            "account_sid": "A",
            "from": "+4940",
            "to": "+4930",
            "custom_parameters": {"token": "vct_1", "guest": "Ann"},
            "media_format": {"encoding": "base64", "sample_rate": "8000", "bit_rate": "128kbps"},
        },
    },
    "vonage": {
        "event": "websocket:connected",
        "content-type": "audio/l16;rate=16000",
        "token": "vct_1",
        "guest": "Ann",
        "to": "+4930",
        "from": "+4940",
    },
    "asterisk": {
        "event": "MEDIA_START",
        "connection_id": "media/1",
        "channel": "WebSocket/eng/0x1",
        "channel_id": "CA1",
        "format": "slin16",
        "optimal_frame_size": 640,
        "ptime": 20,
        "channel_variables": {"token": "vct_1", "guest": "Ann", "to": "+4930", "from": "+4940"},
    },
    "jambonz": {
        "callSid": "CA1",
        "sampleRate": 24000,
        "mixType": "mono",
        "to": "+4930",
        "from": "+4940",
        "metadata": {"token": "vct_1", "guest": "Ann"},
    },
}
LINES = {
    "twilio": LineFormat(Container.MU_LAW),
    "telnyx": LineFormat(Container.A_LAW),
    "plivo": LineFormat(Container.PCM, 16_000),
    "exotel": LineFormat(Container.PCM),
    "vonage": LineFormat(Container.PCM, 16_000),
    "asterisk": LineFormat(Container.PCM, 16_000),
    "jambonz": LineFormat(Container.PCM, 24_000),
}
UP: dict[str, dict[str, Any]] = {
    "twilio": {
        "media": {
            "event": "media",
            "sequenceNumber": "3",
            "media": {"track": "inbound", "chunk": "1", "timestamp": "5", "payload": MEDIA},
            "streamSid": "MZ1",
        },
        "key": {
            "event": "dtmf",
            "streamSid": "MZ1",
            "sequenceNumber": "5",
            "dtmf": {"track": "inbound_track", "digit": "1"},
        },
        "mark": {"event": "mark", "sequenceNumber": "4", "streamSid": "MZ1", "mark": {"name": "m"}},
        "stop": {"event": "stop", "sequenceNumber": "5", "stop": {"callSid": "CA1"}},
    },
    "telnyx": {
        "media": {
            "event": "media",
            "sequence_number": "4",
            "media": {"track": "inbound", "chunk": "2", "timestamp": "5", "payload": MEDIA},
            "stream_id": "MZ1",
        },
        "key": {
            "event": "dtmf",
            "stream_id": "MZ1",
            "occurred_at": "2026-11-30T12:00:00Z",
            "sequence_number": "5",
            "dtmf": {"digit": "1"},
        },
        "mark": {"event": "mark", "stream_id": "MZ1", "mark": {"name": "m"}},
        "stop": {"event": "stop", "stop": {"call_control_id": "CA1"}, "stream_id": "MZ1"},
    },
    "plivo": {
        "media": {
            "event": "media",
            "sequenceNumber": 42,
            "streamId": "MZ1",
            "media": {"track": "inbound", "timestamp": "17", "chunk": 41, "payload": MEDIA},
        },
        "key": {"event": "dtmf", "streamId": "MZ1", "dtmf": {"track": "inbound", "digit": "1"}},
        "mark": {"event": "playedStream", "streamId": "MZ1", "name": "m"},
        "stop": {"event": "stop", "streamId": "MZ1"},
    },
    "exotel": {
        "media": {
            "event": "media",
            "sequence_number": 3,
            "stream_sid": "MZ1",
            "media": {"chunk": 2, "timestamp": "10", "payload": MEDIA},
        },
        "key": {"event": "dtmf", "stream_sid": "MZ1", "dtmf": {"duration": "200", "digit": "1"}},
        "mark": {"event": "mark", "stream_sid": "MZ1", "mark": {"name": "m"}},
        "stop": {"event": "stop", "stream_sid": "MZ1", "stop": {"reason": "callended"}},
    },
    "vonage": {
        "key": {"event": "websocket:dtmf", "digit": "1", "duration": 260},
        "mark": {"event": "websocket:notify", "payload": {"mark": "m"}},
    },
    "asterisk": {
        "key": {"event": "DTMF_END", "digit": "1", "channel_id": "CA1"},
        "mark": {"event": "MEDIA_MARK_PROCESSED", "correlation_id": "m"},
    },
    "jambonz": {"key": {"event": "dtmf", "dtmf": "1", "duration": "800"}},
}
NEXT_YEAR = [
    {"event": "hologram", "beam": [1, 2]},
    {"event": None},
    {},
    {"event": "error", "payload": {"code": 100002}},
    {"event": "clearedAudio"},
    {"event": "websocket:cleared"},
]
every_vendor = pytest.mark.parametrize("vendor", VENDORS)


def call_of(vendor: str, *, started: bool = True) -> MediaStreamCall:
    dialect = MediaStreamsEndpoint(vendor).open(Connection()).dialect
    assert isinstance(dialect, MediaStreamCall)
    if started:
        list(dialect.receive(json.dumps(STARTS[vendor]), 0))
    return dialect


def told(dialect: MediaStreamCall, *notices: nt.Notice, now_ms: int = 0) -> list[Any]:
    frames = [
        reaction.frame
        for notice in notices
        for reaction in dialect.notify(notice, now_ms)
        if isinstance(reaction, Tell)
    ]
    return [frame if isinstance(frame, bytes) else json.loads(frame) for frame in frames]


@every_vendor
def test_a_start_says_who_calls_and_how_the_line_carries_audio(vendor: str) -> None:
    said = VENDORS[vendor]().read(json.dumps(STARTS[vendor]))
    assert isinstance(said, StreamStarted)
    assert said.line == LINES[vendor]
    assert "vct_1" not in repr(said), "a key must not reach a log"
    handshake = Handshake(variables={"agent": "hotel"})
    frames = [json.dumps(TWILIO_CONNECTED), json.dumps(STARTS[vendor])]
    endpoint = MediaStreamsEndpoint(vendor)
    assert endpoint.identify(handshake, ()) is None
    assert endpoint.identify(handshake, frames[:1]) is None
    caller = endpoint.identify(handshake, frames)
    assert caller is not None
    assert caller.key == "vct_1"
    arrival = caller.arrival
    assert (arrival.agent, arrival.called, arrival.caller) == ("hotel", "+4930", "+4940")
    assert arrival.variables["guest"] == "Ann"
    assert "token" not in arrival.variables


@every_vendor
def test_the_audio_settings_follow_the_start(vendor: str) -> None:
    dialect = call_of(vendor, started=False)
    reactions = list(dialect.receive(json.dumps(STARTS[vendor]), 0))
    configured = [r.settings for r in reactions if isinstance(r, cmd.Configure)]
    line = LINES[vendor]
    assert len(configured) == (vendor != "twilio")  # mu-law is what the session begins with
    for settings in configured:
        assert settings.input == line.input
        assert settings.voice.format == line.output
    assert isinstance(reactions[-1], cmd.Begin)
    assert list(dialect.receive(json.dumps(STARTS[vendor]), 0)) == [cmd.Alive()], "only once"


@every_vendor
def test_audio_keys_marks_and_the_end_are_understood(vendor: str) -> None:
    dialect = call_of(vendor)
    up = UP[vendor]
    media = json.dumps(up["media"]) if "media" in up else b"\x7f" * 160
    assert list(dialect.receive(media, 0)) == [AudioReceived(b"\x7f" * 160)]
    assert dialect.framed_audio
    assert dialect.audio_in(media) == b"\x7f" * 160
    assert dialect.audio_in(json.dumps(up["key"])) is None
    assert dialect.audio_in("no JSON") is None
    assert list(dialect.receive(json.dumps(up["key"]), 0))[1:] == [cmd.PressKey("1")]
    wire = VENDORS[vendor]()
    assert wire.read(json.dumps(up["key"])) == KeyPressed("1")
    if "mark" in up:
        assert wire.read(json.dumps(up["mark"])) == MarkReached("m")
    if "stop" in up:
        assert list(dialect.receive(json.dumps(up["stop"]), 0))[1:] == [cmd.HangUp()]
        assert not dialect.framed_audio
        assert list(dialect.receive(media, 0))[1:] == [], "after the stop"


@every_vendor
def test_media_before_the_start_is_passed_over(vendor: str) -> None:
    up = UP[vendor]
    media = json.dumps(up["media"]) if "media" in up else b"\x7f" * 160
    dialect = call_of(vendor, started=False)
    assert list(dialect.receive(media, 0)) == [cmd.Alive()]
    assert not dialect.framed_audio
    endpoint = MediaStreamsEndpoint(vendor)
    frames = [media, json.dumps(STARTS[vendor])]
    assert endpoint.identify(Handshake(), frames) is not None


@pytest.mark.parametrize("vendor", ["twilio", "telnyx", "plivo"])
@pytest.mark.parametrize("track", ["outbound", "outbound_track", "third", 7])
def test_audio_of_another_track_is_passed_over(vendor: str, track: object) -> None:
    message = json.loads(json.dumps(UP[vendor]["media"]))
    message["media"]["track"] = track
    assert list(call_of(vendor).receive(json.dumps(message), 0)) == [cmd.Alive()]


@every_vendor
@pytest.mark.parametrize("message", NEXT_YEAR)
def test_what_a_vendor_adds_next_year_is_passed_over(vendor: str, message: object) -> None:
    dialect = call_of(vendor)
    for _ in range(MOST_ERRORS + 1):
        assert list(dialect.receive(json.dumps(message), 0)) == [cmd.Alive()]


@every_vendor
@pytest.mark.parametrize(
    "frame",
    [
        "no JSON",
        "[]",
        "[" * 100_000,
        '{"event": "media"}',
        '{"event": "media", "media": {"payload": "*not base64*"}}',
        '{"event": "media", "media": {"payload": 7}}',
        '{"event": "dtmf", "dtmf": {"digit": 1}}',
        '{"event": "mark", "mark": []}',
        '{"event": "start"}',
        '{"event": "start", "start": {"mediaFormat": {"encoding": "opus"}}}',
    ],
)
def test_broken_messages_are_counted_and_end_the_call_in_the_end(vendor: str, frame: str) -> None:
    dialect = call_of(vendor)
    try:
        broken = VENDORS[vendor]().read(frame) is None
    except RemoteProtocolError:
        broken = False
    if broken:  # another vendor's message
        return
    for _ in range(MOST_ERRORS - 1):
        assert list(dialect.receive(frame, 0)) == [cmd.Alive()]
    media = json.dumps(UP[vendor]["media"]) if "media" in UP[vendor] else b"\x7f" * 160
    assert dialect.audio_in(frame) is None
    assert dialect.audio_in(media), "a good one begins the count anew"
    for _ in range(MOST_ERRORS - 1):
        list(dialect.receive(frame, 0))
    assert isinstance(next(iter(dialect.receive(frame, 0))), cmd.Leave)


DOWN: dict[str, tuple[Any, Any, Any]] = {
    "twilio": (
        {"event": "media", "streamSid": "MZ1", "media": {"payload": MEDIA}},
        {"event": "mark", "streamSid": "MZ1", "mark": {"name": "1:20"}},
        {"event": "clear", "streamSid": "MZ1"},
    ),
    "telnyx": (
        {"event": "media", "media": {"payload": MEDIA}},
        {"event": "mark", "mark": {"name": "1:20"}},
        {"event": "clear"},
    ),
    "plivo": (
        {
            "event": "playAudio",
            "streamId": "MZ1",
            "media": {"contentType": "audio/x-l16", "sampleRate": 16000, "payload": MEDIA},
        },
        {"event": "checkpoint", "streamId": "MZ1", "name": "1:20"},
        {"event": "clearAudio", "streamId": "MZ1"},
    ),
    "vonage": (
        b"\x7f" * 80,
        {"action": "notify", "payload": {"mark": "1:20"}},
        {"action": "clear"},
    ),
    "asterisk": (
        b"\x7f" * 160,
        {"command": "MARK_MEDIA", "correlation_id": "1:20"},
        {"command": "FLUSH_MEDIA"},
    ),
}


@pytest.mark.parametrize("vendor", DOWN)
def test_a_reply_is_written_with_marks_and_cleared_when_it_is_cut(vendor: str) -> None:
    dialect, (media, mark, clear) = call_of(vendor), DOWN[vendor]
    packets = (b"\x7f" * 80, b"\x7f" * 80)
    probe = json.loads(json.dumps(mark).replace("1:20", "1:0"))
    assert told(dialect, nt.SentenceBegun(1, 0, "Hi.")) == []
    # Vonage takes one packet to a frame.
    written = [media, media] if vendor == "vonage" else [media]
    assert told(dialect, nt.ReplyAudio(1, packets, 20, 0)) == [probe, *written]
    assert told(dialect, nt.SentenceBegun(1, 1, "Ho.")) == [mark]
    assert told(dialect, nt.ReplyCut(1, "Hi.")) == [clear]
    assert told(dialect, nt.ReplyCut(1, "")) == [], "once"
    assert told(dialect, nt.ReplyCut(2, "")) == [], "none of it was sent"


def test_exotel_gets_frames_of_a_tenth_of_a_second_and_no_less() -> None:
    dialect = call_of("exotel")
    out = told(
        dialect,
        nt.ReplyAudio(1, (b"\1" * 320,), 20, 0),
        *(nt.ReplyAudio(1, (b"\1" * 320,) * 5, 20 + 100 * n, 0) for n in range(1, 3)),
        nt.ReplyAudio(1, (b"\1" * 320,), 240, 0),
        nt.ReplyAudioFinished(1, ("Hi.",)),
    )
    sizes = [
        len(base64.b64decode(message["media"]["payload"]))
        for message in out
        if message["event"] == "media"
    ]
    assert sizes == [3_520, 3_200]
    assert [message["event"] for message in out] == ["mark", "media", "media", "mark"]
    assert told(dialect, nt.ReplyCut(1, "")) == [{"event": "clear", "stream_sid": "MZ1"}]


def test_marks_that_a_clear_returns_do_not_count_as_heard() -> None:
    dialect = call_of("twilio")
    told(dialect, nt.ReplyAudio(1, (b"x",), 20, 0), nt.SentenceBegun(1, 1, "Ho."))
    told(dialect, nt.ReplyAudio(1, (b"x",), 900, 1), nt.ReplyAudioFinished(1, ("Hi.", "Ho.")))

    def returned(name: str, now_ms: int) -> list[Any]:
        message = {"event": "mark", "streamSid": "MZ1", "mark": {"name": name}}
        return list(dialect.receive(json.dumps(message), now_ms))[1:]

    assert returned("1:0", 80) == [], "it only measures the round trip"
    assert returned("1:20", 100) == [cmd.Played(1, 20 + 80)]
    assert returned("1:20", 101) == [], "once"
    assert returned("unknown", 102) == []
    told(dialect, nt.ReplyCut(1, "Hi."))
    assert returned("1:900", 200) == []


def test_a_far_end_that_never_returns_marks_fills_no_memory() -> None:
    dialect = call_of("twilio")
    for number in range(3_000):
        told(
            dialect, nt.ReplyAudio(1, (b"x",), 20 * number, number), nt.SentenceBegun(1, number, "")
        )
    assert len(dialect._marks) <= 1_000


def test_the_agent_decides_how_turns_end_and_a_server_without_ears_refuses() -> None:
    agent = Agent(turn_detection=TurnDetection(silence_duration_ms=900), instructions="Be kind.")
    opening = MediaStreamsEndpoint().open(Connection(agent=agent))
    assert opening.settings.turn_detection == agent.turn_detection
    assert opening.settings.chat.instructions == "Be kind."
    assert MediaStreamsEndpoint().open(Connection()).settings.turn_detection == TurnDetection()
    with pytest.raises(RemoteProtocolError, match="hands_free"):
        MediaStreamsEndpoint().open(Connection(hands_free=False))


PLAIN_START = (
    "MEDIA_START connection_id:e226e283 channel:WebSocket/eng/0x1 channel_id:17.1 "
    "format:ulaw optimal_frame_size:160 ptime:20"
)


def test_older_asterisks_speak_plain_words() -> None:
    dialect = call_of("asterisk", started=False)
    reactions = list(dialect.receive(PLAIN_START, 0))
    assert isinstance(reactions[-1], cmd.Begin)
    assert dialect.call_id == "17.1"
    assert list(dialect.receive("DTMF_END digit:#", 0))[1:] == [cmd.PressKey("#")]
    for nothing in ("MEDIA_XOFF", "STATUS queue_length:43 queue_full:false", "", "  "):
        assert list(dialect.receive(nothing, 0)) == [cmd.Alive()]

    def written(*notices: nt.Notice) -> list[Any]:
        reactions = (each for notice in notices for each in dialect.notify(notice, 0))
        return [reaction.frame for reaction in reactions if isinstance(reaction, Tell)]

    audio = nt.ReplyAudio(1, (b"x" * 160, b"y" * 160), 40, 0)
    assert written(audio) == ["MARK_MEDIA 1:0", b"x" * 160 + b"y" * 160]
    assert written(nt.ReplyAudioFinished(1, ("Hi.",))) == ["MARK_MEDIA 1:40"]
    assert list(dialect.receive("MEDIA_MARK_PROCESSED 1:0", 100)) == [cmd.Alive()]
    played = list(dialect.receive("MEDIA_MARK_PROCESSED 1:40", 140))
    assert played[1:] == [cmd.Played(1, 40 + 100)]
    assert written(nt.ReplyCut(1, "")) == ["FLUSH_MEDIA"]
    assert written(nt.Ended(nt.Ending.GOODBYE)) == ["HANGUP"]


def test_jambonz_has_no_marks_and_is_told_to_go_on() -> None:
    dialect = call_of("jambonz")
    audio = nt.ReplyAudio(1, (b"x" * 960,), 20, 0)
    assert told(dialect, audio, nt.SentenceBegun(1, 1, "Ho.")) == [b"x" * 960]
    assert told(dialect, nt.ReplyCut(1, "Hi.")) == [{"type": "killAudio"}]
    assert told(dialect, nt.Ended(nt.Ending.GOODBYE)) == [{"type": "disconnect"}]
    stereo = json.dumps({**STARTS["jambonz"], "mixType": "stereo"})
    with pytest.raises(RemoteProtocolError, match="mixType: 'stereo' is not mono"):
        VENDORS["jambonz"]().read(stereo)


def test_systems_of_ones_own_have_subprotocols_and_name_their_calls() -> None:
    assert MediaStreamsEndpoint("asterisk").protocols == ("media",)
    assert MediaStreamsEndpoint("jambonz").protocols == ("audio.jambonz.org",)
    handshake = Handshake(query={"call": "1700.1", "caller": "+4940"})
    connection = Connection(handshake=handshake)
    dialect = MediaStreamsEndpoint("asterisk").open(connection).dialect
    list(dialect.receive(PLAIN_START, 0))
    assert dialect.call_id == "1700.1"
