"""``talk`` without a button: the person is a recording, or a fake microphone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.voice.sounds import RATE_HZ, silence, speak, to_pcm
from voicechat.audio.wav import wav_header
from voicechat.cli import main
from voicechat.cli.command import CommandError
from voicechat.cli.hands_free import HandsFreeConversation, RecordedPerson
from voicechat.client import (
    CanceledMessage,
    ClientConversation,
    CompletedMessage,
    PlaybackBuffer,
    ReplyAudioMessage,
    ReplyTextMessage,
    ServerMessage,
    SpeechStartedMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    UpdatedMessage,
)


class FakeConversation(ClientConversation):
    """Says what the test puts in ``coming``, and keeps what it is sent."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[ServerMessage] = asyncio.Queue()
        self.sent: list[bytes] = []
        self.reports: list[tuple[str, int]] = []

    async def update(self, settings: object) -> None:
        pass

    async def send_audio(self, audio: bytes) -> None:
        self.sent.append(audio)

    async def report_played(self, reply_id: str, played_ms: int) -> None:
        self.reports.append((reply_id, played_ms))

    async def receive(self) -> ServerMessage:
        return await self.coming.get()


class Devices:
    """A microphone that is open for ``length_s``."""

    def __init__(self, playback: PlaybackBuffer | None, length_s: float) -> None:
        self.playback = playback
        self.length_s = length_s

    async def record(self) -> AsyncIterator[bytes]:
        for _ in range(round(self.length_s * 10)):
            await asyncio.sleep(0.1)
            yield bytes(3200)


async def test_the_answer_is_played_and_silenced_when_the_server_says_so() -> None:
    conversation, playback, screen = FakeConversation(), PlaybackBuffer(16_000), list[str]()
    for message in (
        CompletedMessage(0, "", "turn_detected"),
        TranscriptMessage("hello", 0, 900),
        ReplyTextMessage("c-1", "Hi there"),
        ReplyAudioMessage("1", bytes(32_000)),
    ):
        conversation.coming.put_nowait(message)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            HandsFreeConversation(conversation, Devices(playback, 3), screen.append).run({})
        )
        await asyncio.sleep(1)
        assert playback.waiting_ms == 1_000
        playback.take_audio(3_200)
        conversation.coming.put_nowait(CanceledMessage(0, "", "turn_detected"))
        await asyncio.sleep(0.5)
        assert playback.waiting_ms == 0
    assert conversation.reports == [("1", 100)]
    assert len(conversation.sent) == 30
    assert "".join(screen) == "you:    hello\nanswer: Hi there\n(interrupted)\n"


async def test_without_a_loudspeaker_the_answer_is_shown() -> None:
    conversation, screen = FakeConversation(), list[str]()
    for message in (
        ReplyTextMessage("c-1", "Hi"),
        ReplyAudioMessage("1", bytes(3200)),
        TurnCompletedMessage(0, ""),
    ):
        conversation.coming.put_nowait(message)
    await HandsFreeConversation(conversation, Devices(None, 1), screen.append).run({})
    assert "".join(screen) == "answer: Hi"
    assert conversation.reports == []


async def test_a_server_that_refuses_ends_the_conversation_with_its_words() -> None:
    conversation = FakeConversation()
    conversation.coming.put_nowait(
        UpdatedMessage(40003, "turn_detection: this server detects no voice")
    )
    with pytest.raises(ExceptionGroup) as raised:
        await HandsFreeConversation(conversation, Devices(None, 60), lambda _: None).run({})
    assert raised.group_contains(CommandError, match="detects no voice")


async def test_a_recording_is_spoken_in_real_time_and_then_there_is_silence_until_all_is_said() -> (
    None
):
    person = RecordedPerson(b"\1\0" * 4_000, 16_000)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    answered = False
    person.answered = lambda: answered
    blocks = []
    async for block in person.record():
        blocks.append(block)
        if len(blocks) == 50:
            person.playback.add_audio(bytes(32_000), "1")
            answered = True
    assert b"".join(blocks)[:8_000] == b"\1\0" * 4_000
    assert {len(block) for block in blocks} == {3_200}
    assert len(person.heard) == 32_000
    assert loop.time() - began_s == pytest.approx(5 + 1 + 3, abs=0.3)


async def test_the_conversation_is_busy_from_the_first_word_to_the_end_of_the_answer() -> None:
    conversation = FakeConversation()
    talk = HandsFreeConversation(conversation, Devices(None, 1), lambda _: None)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(talk.run({}))
        conversation.coming.put_nowait(SpeechStartedMessage(100))
        await asyncio.sleep(0.3)
        assert talk.busy
        conversation.coming.put_nowait(TurnCompletedMessage(0, ""))
        await asyncio.sleep(0.3)
        assert not talk.busy


@pytest.mark.real_time
@pytest.mark.long
def test_talk_sends_a_recording_hands_free_and_shows_what_happens(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pcm = to_pcm(speak("go forward ten meters")) + to_pcm(silence(100))
    (directory / "spoken.wav").write_bytes(wav_header(RATE_HZ, len(pcm)) + pcm)
    assert main(["talk", "spoken.wav", "--hands-free", "-o", "heard.wav"]) == 0
    shown = capsys.readouterr().out
    steps = (
        "(you speak)",
        "(you pause)",
        "(your turn has ended)",
        "you:    go forward ten meters",
        "answer: Ten meters",
    )
    places = [shown.index(step) for step in (*steps, "(the turn is over)", "is in heard.wav")]
    assert places == sorted(places)
    assert (directory / "heard.wav").stat().st_size > 20_000
