"""What a user waits for comes first: the order of work within a turn, not how long it
takes.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from voicechat.audio import encode
from voicechat.audio.formats import parse_output_format
from voicechat.audio.resample import Resampler
from voicechat.providers.interfaces import (
    AudioChunk,
    ChatRequest,
    ReplyPart,
    TextDelta,
    VoiceOptions,
)
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.reply_task import IN_HAND_S, PIECES_AT_ONCE, ReplyTask
from voicechat.session.commands import CommitTurn
from voicechat.session.effects import StartReply
from voicechat.session.events import Event, ReplyFailed, ReplyTextArrived
from voicechat.session.notices import Notice, ReplyAudio, ReplyText, TurnCompleted, UserSaid
from voicechat.session.types import PIECE_MS, ChatSettings, Settings, VoiceSettings
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.scripted import Failure, ScriptedModel, ScriptedSynthesizer

MP3_NAME = "MP3_22050HZ_MONO_64KBPS"
MP3 = parse_output_format(MP3_NAME)
PCM = parse_output_format("PCM_16000HZ_MONO_16BIT")
PIECE = bytes(22_050 // 10 * 2)


class Answers(ScriptedModel):
    """Notes what had been written when it was asked."""

    written: list[Notice]
    stage: ScriptedHarness

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        self.written = self.stage.notices
        async for part in super().reply(request):
            yield part


class Speaks(ScriptedSynthesizer):
    """Notes what had been written when it was asked."""

    written: list[Notice]
    stage: ScriptedHarness

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        self.written = self.stage.notices
        async for chunk in super().synthesize(text, voice):
            yield chunk


async def test_services_are_asked_before_the_client_is_told_what_they_are_asked() -> None:
    model, synthesizer = Answers([["Hello there. "]], first_ms=10), Speaks(first_ms=10)
    stage = model.stage = synthesizer.stage = ScriptedHarness(model=model, synthesizer=synthesizer)
    async with stage:
        stage.send_audio(bytes(300 * 32))
        stage.send(CommitTurn())
        await stage.notice(TurnCompleted)
    assert not [told for told in model.written if isinstance(told, UserSaid)]
    assert not [told for told in synthesizer.written if isinstance(told, ReplyText)]
    kinds = [type(told) for told in stage.notices]
    assert kinds.index(UserSaid) < kinds.index(ReplyText) < kinds.index(ReplyAudio)


@pytest.mark.real_time
async def test_the_first_piece_of_a_reply_does_not_queue_for_a_thread() -> None:
    threads, release = EncodingThreads(1), threading.Event()
    encoder = await threads.open(MP3)
    held = asyncio.get_running_loop().run_in_executor(threads._pool, release.wait)
    async with asyncio.timeout(120):  # it would wait for ever
        first = await threads.encode(encoder, [PIECE], 22_050, at_once=True)
    waiting = asyncio.get_running_loop().create_task(threads.encode(encoder, [PIECE], 22_050))
    await asyncio.sleep(0)
    assert all(first)
    assert not waiting.done()
    release.set()
    await held
    assert await waiting
    threads.close()


@pytest.mark.real_time
async def test_a_replys_resampler_is_opened_before_its_audio_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first reply at a rate teaches it; the next one finds its resampler open."""
    opened: list[int] = []

    def noting(self: Resampler, in_rate_hz: int, out_rate_hz: int) -> None:
        opened.append(in_rate_hz)
        init(self, in_rate_hz, out_rate_hz)

    init = Resampler.__init__
    monkeypatch.setattr(Resampler, "__init__", noting)
    threads = EncodingThreads()
    assert await threads.encode(await threads.open(PCM), [PIECE], 22_050, at_once=True)
    opened.clear()
    encoder = await threads.open(PCM)
    assert opened.count(22_050) == 1
    assert await threads.encode(encoder, [PIECE], 22_050, at_once=True)
    assert opened.count(22_050) == 1
    threads.close()


def test_an_encoder_that_expected_another_rate_makes_the_same() -> None:
    tone = bytes(range(256)) * 200
    expected = encode.open_encoder(PCM, 48_000)
    plain = encode.open_encoder(PCM)
    assert (
        expected.encode(tone, 22_050) + expected.finish_stream()
        == plain.encode(tone, 22_050) + plain.finish_stream()
    )


async def test_what_waits_is_encoded_together_but_for_the_first_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A synthesiser that gives 60 ms at a time, all at once: pieces are of 100 ms, and
    few are encoded alone.
    """
    calls: list[list[int]] = []

    async def noting(
        self: EncodingThreads,
        encoder: encode.Encoder,
        pieces: Sequence[bytes],
        rate_hz: int,
        *,
        at_once: bool = False,
    ) -> list[encode.Packets]:
        calls.append([len(pcm) // 32 for pcm in pieces])
        assert at_once is (len(calls) == 1)
        return [encoder.encode(pcm, rate_hz) for pcm in pieces]

    monkeypatch.setattr(EncodingThreads, "encode", noting)
    synthesizer = ScriptedSynthesizer(chunk_ms=60, ms_per_character=100)
    stage = ScriptedHarness(model=ScriptedModel([["Sixteen letters. "]]), synthesizer=synthesizer)
    async with stage:
        stage.send_audio(bytes(300 * 32))
        stage.send(CommitTurn())
        await stage.notice(TurnCompleted)
    assert calls[0] == [100]
    assert max(len(call) for call in calls) == PIECES_AT_ONCE
    assert sum(sum(call) for call in calls) == 1_600
    assert len(calls) <= 5


async def test_a_compressed_reply_begins_with_what_its_codec_needs_and_the_rest_follows_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Encoded on the event loop: a shorter first piece, and the one that follows it;
    the first has left before that.
    """
    calls: list[tuple[int, bool, int]] = []
    stage = ScriptedHarness(
        synthesizer=ScriptedSynthesizer(rate_hz=22_050, chunk_delay_ms=20),
        settings=Settings(voice=VoiceSettings(format=MP3_NAME)),
    )

    async def noting(
        self: EncodingThreads,
        encoder: encode.Encoder,
        pieces: Sequence[bytes],
        rate_hz: int,
        *,
        at_once: bool = False,
    ) -> list[encode.Packets]:
        calls.append((len(pieces[0]) * 1000 // 44_100, at_once, len(stage.of(ReplyAudio))))
        return [encoder.encode(pcm, rate_hz) for pcm in pieces]

    monkeypatch.setattr(EncodingThreads, "encode", noting)
    async with stage:
        stage.send_audio(bytes(300 * 32))
        stage.send(CommitTurn())
        await stage.notice(TurnCompleted)
    assert encode.open_encoder(MP3).first_ms == 53
    assert calls[:3] == [(52, True, 0), (47, True, 1), (100, False, 2)]


async def pieces_of(synthesizer: ScriptedSynthesizer) -> list[tuple[float, float]]:
    """When each piece of a reply of 2 s leaves, in seconds since the first, and how
    long it is in milliseconds.
    """
    stage = ScriptedHarness(
        model=ScriptedModel([["Twenty letters long. "]]), synthesizer=synthesizer
    )
    async with stage:
        stage.send_audio(bytes(300 * 32))
        stage.send(CommitTurn())
        await stage.notice(TurnCompleted)
    times_s = stage.times_s(ReplyAudio)
    lengths_ms = [len(told.payload) / 32 for told in stage.of(ReplyAudio)]
    assert sum(lengths_ms) == 2_000
    return [
        (at_s - times_s[0], length_ms) for at_s, length_ms in zip(times_s, lengths_ms, strict=True)
    ]


async def test_small_chunks_of_speech_leave_in_pieces_once_there_is_enough_to_hear() -> None:
    pieces = await pieces_of(
        ScriptedSynthesizer(chunk_ms=20, chunk_delay_ms=4, ms_per_character=100)
    )
    assert pieces[0] == (0, 20), "the first leaves at once"
    made_ms = 0.0
    for at_s, length_ms in pieces[:-1]:
        in_hand_ms = made_ms - at_s * 1000
        assert length_ms == 20 or in_hand_ms >= IN_HAND_S * 1000 - PIECE_MS
        assert length_ms == PIECE_MS or in_hand_ms < IN_HAND_S * 1000
        made_ms += length_ms
    assert len(pieces) < 40


async def test_speech_that_comes_no_faster_than_it_is_heard_never_waits() -> None:
    pieces = await pieces_of(
        ScriptedSynthesizer(chunk_ms=20, chunk_delay_ms=20, ms_per_character=100)
    )
    assert [length_ms for _, length_ms in pieces] == [20] * 100
    assert all(
        at_s == pytest.approx(0.02 * number, abs=0.005) for number, (at_s, _) in enumerate(pieces)
    )


class Lingers(ScriptedModel):
    """Takes its time to end when it is cancelled."""

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        try:
            yield TextDelta("One. ")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.5)


async def test_no_sentence_is_begun_after_the_voice_has_failed() -> None:
    """The reply's text may be hurried on by a timer while the model is still being
    stopped.
    """
    synthesizer, events = ScriptedSynthesizer(failure=Failure()), list[Event]()

    async def room() -> None:
        """There is always room."""

    start = StartReply(1, (), ChatSettings(), VoiceSettings(format="PCM_16000HZ_MONO_16BIT"))
    turn = ReplyTask(
        start, Lingers(), synthesizer, threads=EncodingThreads(), post=events.append, room=room
    )
    running = asyncio.get_running_loop().create_task(turn.run())
    await asyncio.sleep(0.1)
    turn.speak(0, "One.")
    await asyncio.sleep(0.1)
    assert not running.done()
    turn.speak(1, "Two.")
    await running
    assert synthesizer.texts == ["One."]
    assert [type(event) for event in events] == [ReplyTextArrived, ReplyFailed]
