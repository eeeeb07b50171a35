import asyncio

import pytest

from voicechat.client import (
    CanceledMessage,
    ClientConversation,
    ConnectionLostError,
    PlaybackBuffer,
    PlaybackPosition,
    ReplyAudioMessage,
    ReplyPlayer,
    TurnCompletedMessage,
)
from voicechat.client.playback import MOST_S


class FakeConversation(ClientConversation):
    """Keeps what it is asked for; ``lost``: the connection is gone."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.lost = False

    async def report_played(self, reply_id: str, played_ms: int) -> None:
        if self.lost:
            raise ConnectionLostError(1006, "")
        self.sent.append((reply_id, played_ms))

    async def cancel(self) -> None:
        self.sent.append("cancel")


def test_speech_comes_out_in_order_and_then_silence() -> None:
    playback = PlaybackBuffer(1_000)
    playback.add_audio(b"abcd", "1")
    playback.add_audio(b"ef", "1")
    assert playback.take_audio(4) == b"abcd"
    assert playback.take_audio(4) == b"ef\0\0"
    assert playback.take_audio(2) == b"\0\0"


def test_what_was_played_is_counted_per_reply_and_without_the_silence() -> None:
    playback = PlaybackBuffer(1_000)
    assert playback.played is None
    playback.add_audio(bytes(200), "1")
    playback.add_audio(bytes(100), "2")
    playback.take_audio(100)
    assert playback.played == PlaybackPosition("1", 50)
    playback.take_audio(120)
    assert playback.played == PlaybackPosition("2", 10)
    playback.take_audio(1_000)
    assert playback.played == PlaybackPosition("2", 50)


def test_what_the_sound_card_has_not_played_yet_has_not_been_heard() -> None:
    playback = PlaybackBuffer(1_000, latency_ms=30)
    playback.add_audio(bytes(400), "1")
    playback.take_audio(40)
    assert playback.played == PlaybackPosition("1", 0)
    playback.take_audio(60)
    assert playback.played == PlaybackPosition("1", 20)


def test_a_player_falls_silent_when_the_reply_is_cancelled_and_at_nothing_else() -> None:
    playback = PlaybackBuffer(1_000)
    player = ReplyPlayer(FakeConversation(), playback)
    player.handle_message(ReplyAudioMessage("1", bytes(100)))
    player.handle_message(TurnCompletedMessage(0, ""))
    assert playback.waiting_ms == 50
    player.handle_message(CanceledMessage(0, "", "turn_detected"))
    assert playback.waiting_ms == 0


def test_a_server_that_never_stops_does_not_fill_the_memory() -> None:
    playback = PlaybackBuffer(10)
    for _ in range(MOST_S // 10):
        playback.add_audio(bytes(1_000), "1")
    assert playback.waiting_ms == MOST_S * 1_000


async def test_reports_are_sent_while_something_changes() -> None:
    conversation, playback = FakeConversation(), PlaybackBuffer(1_000)
    player = ReplyPlayer(conversation, playback)
    async with asyncio.TaskGroup() as tasks:
        reporting = tasks.create_task(player.report_playback())
        await asyncio.sleep(1)
        assert conversation.sent == []
        player.handle_message(ReplyAudioMessage("1", bytes(1_000)))
        playback.take_audio(100)
        await asyncio.sleep(1)
        playback.take_audio(100)
        await asyncio.sleep(1)
        reporting.cancel()
    assert conversation.sent == [("1", 50), ("1", 100)]


async def test_reports_end_with_the_connection() -> None:
    conversation, playback = FakeConversation(), PlaybackBuffer(1_000)
    conversation.lost = True
    playback.add_audio(bytes(100), "1")
    playback.take_audio(2)
    async with asyncio.timeout(5):
        await ReplyPlayer(conversation, playback).report_playback()
    assert conversation.sent == []


async def test_interrupting_tells_first_what_was_heard() -> None:
    conversation, playback = FakeConversation(), PlaybackBuffer(1_000)
    player = ReplyPlayer(conversation, playback)
    player.handle_message(ReplyAudioMessage("1", bytes(100)))
    playback.take_audio(60)
    await player.interrupt()
    assert conversation.sent == [("1", 30), "cancel"]
    assert playback.waiting_ms == 0


@pytest.mark.parametrize("name", ["", "1"])
async def test_a_reply_without_an_id_cannot_be_reported(name: str) -> None:
    conversation, playback = FakeConversation(), PlaybackBuffer(1_000)
    playback.add_audio(bytes(100), name)
    playback.take_audio(100)
    await ReplyPlayer(conversation, playback).interrupt()
    assert (len(conversation.sent) == 2) is bool(name)
