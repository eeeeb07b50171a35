"""Frames and messages of the xiaozhi protocol, field by field."""

import json
import struct

import av
import pytest

from voicechat.dialects.xiaozhi.codec import (
    MAX_PACKET_BYTES,
    AudioFrame,
    FrameCodec,
    Hello,
    MessageWriter,
    audible,
    read_hello,
    silence,
)
from voicechat.errors import RemoteProtocolError

PACKET = b"\x58packet"
V2 = struct.pack(">HHIII", 2, 0, 0, 1234, len(PACKET)) + PACKET
V3 = struct.pack(">BBH", 0, 0, len(PACKET)) + PACKET


@pytest.mark.parametrize(("version", "frame"), [(1, PACKET), (2, V2), (3, V3)])
def test_each_version_is_read_and_written(version: int, frame: bytes) -> None:
    codec = FrameCodec(version)
    assert codec.read(frame) == AudioFrame(PACKET, 1234 if version == 2 else 0)
    assert codec.write(PACKET, 1234) == frame


def test_frames_of_version_2_are_understood_whatever_was_agreed() -> None:
    assert FrameCodec(1).read(V2) == FrameCodec(3).read(V2) == AudioFrame(PACKET, 1234)


@pytest.mark.parametrize(
    ("version", "frame"),
    [
        (1, b""),
        (1, bytes(MAX_PACKET_BYTES + 1)),
        (2, PACKET),
        (2, V2[:-1]),
        (2, struct.pack(">HHIII", 2, 1, 0, 0, 2) + b"{}"),
        (3, b"\0\0"),
        (3, V3 + b"more"),
        (3, b"\x01" + V3[1:]),
    ],
)
def test_frames_without_a_whole_packet_hold_no_audio(version: int, frame: bytes) -> None:
    assert FrameCodec(version).read(frame) is None


@pytest.mark.parametrize("packet", [b"\x58", b"\x58\x00"])
def test_what_dtx_leaves_of_a_packet_is_silence(packet: bytes) -> None:
    assert audible(packet, 60) == silence(60)
    assert audible(PACKET, 60) == PACKET


@pytest.mark.parametrize("length_ms", [20, 40, 60, 120])
def test_silence_is_as_long_as_a_packet(length_ms: int) -> None:
    decoder = av.CodecContext.create("libopus", "r")
    decoder.sample_rate = 48_000
    (frame,) = decoder.decode(av.Packet(silence(length_ms)))
    assert frame.samples == 48 * length_ms
    assert not frame.to_ndarray().any()


@pytest.mark.parametrize(
    ("said", "header", "hello"),
    [
        ({}, "", Hello(version=1)),
        ({"version": 3}, "", Hello(version=3)),
        ({"version": 1}, "2", Hello(version=2)),
        ({"version": "2", "features": [], "audio_params": None}, "9", Hello(version=1)),
        (
            {"audio_params": {"frame_duration": 20, "sample_rate": 48000, "channels": 2}},
            "x",
            Hello(version=1, packet_ms=20, input_rate_hz=48_000),
        ),
        ({"audio_params": {"frame_duration": 61, "sample_rate": -1}}, "", Hello(version=1)),
        ({"audio_params": {"format": "pcm"}}, "", Hello(version=1, raw_input=True)),
        (
            {"features": {"mcp": True, "aec": True, "glyph_push": True}, "text_font": {}},
            "",
            Hello(version=1, mcp=True, echo=True),
        ),
    ],
)
def test_a_hello_may_say_anything(said: dict[str, object], header: str, hello: Hello) -> None:
    assert read_hello(said, header) == hello


def test_an_unknown_audio_format_is_refused_by_name() -> None:
    with pytest.raises(RemoteProtocolError, match=r'audio_params\.format: "mp3"'):
        read_hello({"audio_params": {"format": "mp3"}}, "")


def test_every_message_names_its_session() -> None:
    writer = MessageWriter("s1")
    hello = Hello(version=2, packet_ms=20)
    assert json.loads(writer.hello(hello)) == {
        "type": "hello",
        "session_id": "s1",
        "version": 2,
        "transport": "websocket",
        "audio_params": {
            "format": "opus",
            "sample_rate": 24000,
            "channels": 1,
            "frame_duration": 20,
        },
    }
    written = (
        writer.stt("hi"),
        writer.tts("start"),
        writer.emotion("happy", "🙂"),
        writer.alert("Error", "no", "sad"),
        writer.mcp({"jsonrpc": "2.0"}),
    )
    assert all(json.loads(text)["session_id"] == "s1" for text in written)
