"""When a device is told to begin and to stop speaking, and when it gets which packet."""

import json
from collections.abc import Iterable

import pytest

from tests.devices.stage import HELLO, open_dialect
from voicechat.dialects.base import Reaction, Tell
from voicechat.dialects.xiaozhi.codec import FrameCodec, MessageWriter
from voicechat.dialects.xiaozhi.speech import (
    GATHERING_MS,
    OUTPUT_MS,
    START_GAP_MS,
    TRANSIT_MS,
    DeviceSpeech,
    lead_ms,
)
from voicechat.session import notices as nt

SECOND = (b"p",) * 17


@pytest.fixture
def speech() -> DeviceSpeech:
    return DeviceSpeech(FrameCodec(1), MessageWriter("s1"), 60)


def told(reactions: Iterable[Reaction]) -> list[str | bytes]:
    frames = [each.frame for each in reactions if isinstance(each, Tell)]
    return [each if isinstance(each, bytes) else json.loads(each)["state"] for each in frames]


def test_the_first_packet_waits_until_the_device_has_begun(speech: DeviceSpeech) -> None:
    assert told(speech.start(1_000)) == ["start"]
    assert told(speech.play(SECOND, 1_010)) == []
    assert speech.deadline_ms() == 1_000 + START_GAP_MS
    assert told(speech.wake(1_000 + START_GAP_MS)) == list(SECOND)
    assert told(speech.play(SECOND[:1], 1_060)) == [b"p"]


def test_a_sentence_gathers_audio_before_it_begins(speech: DeviceSpeech) -> None:
    list(speech.start(0))
    assert told(speech.sentence("one", 1_000)) == ["sentence_start"]
    assert told(speech.play(SECOND[:2], 1_000)) == []
    assert speech.deadline_ms() == 1_000 + GATHERING_MS
    assert told(speech.play(SECOND[:4], 1_020)) == [b"p"] * 6
    assert told(speech.sentence("two", 1_050)) == ["sentence_start"]
    assert told(speech.play(SECOND[:1], 1_050)) == [b"p"]  # the first one is still heard


def test_what_waits_is_not_sent_after_a_stop(speech: DeviceSpeech) -> None:
    list(speech.start(0))
    list(speech.play(SECOND, 10))
    assert told(speech.stop()) == ["stop"]
    assert speech.deadline_ms() is None
    assert told(speech.wake(10_000)) == []
    assert told(speech.stop()) == []


def test_the_end_comes_when_all_has_been_played(speech: DeviceSpeech) -> None:
    list(speech.start(0))
    assert told(speech.play(SECOND, 500)) == list(SECOND)
    speech.finish(600)
    assert speech.deadline_ms() == 500 + 17 * 60 + TRANSIT_MS + OUTPUT_MS
    assert told(speech.wake(speech.deadline_ms() or 0)) == ["stop"]


def test_what_was_cut_off_before_does_not_delay_the_end(speech: DeviceSpeech) -> None:
    list(speech.start(0))
    list(speech.play(SECOND, 500))
    list(speech.stop())
    list(speech.start(600))
    list(speech.play(SECOND[:1], 700))
    speech.finish(700)
    assert speech.deadline_ms() == 760 + TRANSIT_MS + OUTPUT_MS


def test_a_reply_without_audio_ends_at_once(speech: DeviceSpeech) -> None:
    list(speech.start(0))
    speech.finish(2_000)
    assert told(speech.wake(2_000)) == ["stop"]


def test_a_reply_that_follows_at_once_goes_on_where_the_one_before_ends(
    speech: DeviceSpeech,
) -> None:
    list(speech.start(0))
    list(speech.play(SECOND, 500))
    speech.finish(600)
    assert told(speech.start(700)) == []
    assert speech.deadline_ms() is None
    assert told(speech.play(SECOND[:1], 700)) == [b"p"]


@pytest.mark.parametrize(("packet_ms", "ahead_ms"), [(20, 360), (60, 480), (120, 660)])
def test_what_is_ahead_covers_the_network_and_fits_into_the_queue(
    packet_ms: int, ahead_ms: int
) -> None:
    assert lead_ms(packet_ms) == ahead_ms
    assert ahead_ms // packet_ms < 40


@pytest.mark.parametrize("notice", [nt.ReplyCut(1, "Hel"), nt.Interrupted()])
def test_an_interruption_stops_the_device_at_once(notice: nt.Notice) -> None:
    dialect = open_dialect()
    list(dialect.receive(json.dumps(HELLO), 0))
    list(dialect.notify(nt.ReplyBegun(1, 0), 0))
    list(dialect.notify(nt.ReplyAudio(1, SECOND, 1_020, 0), 100))
    assert told(dialect.notify(notice, 200)) == ["stop"]
    assert told(dialect.wake(10_000)) == []
