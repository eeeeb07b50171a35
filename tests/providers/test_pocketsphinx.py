import asyncio
import os
import wave
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from voicechat.audio.resample import Resampler
from voicechat.errors import FailureKind, ProviderError
from voicechat.processes.pool import WorkerPool
from voicechat.providers.espeak import open_synthesizer
from voicechat.providers.interfaces import RecognitionOptions, VoiceOptions
from voicechat.providers.pocketsphinx import PocketSphinxRecognizer, open_recognizer
from voicechat.session.types import Transcript

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]
OPTIONS = RecognitionOptions()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recognizer() -> AsyncIterator[PocketSphinxRecognizer]:
    """One warm process with two decoders for the whole module: loading takes a
    second.
    """
    opened = open_recognizer(workers=1, streams_per_worker=2, wait_ms=50)
    await opened.start()
    yield opened
    await opened.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def synthetic() -> bytes:
    """A synthetic voice saying two sentences, 16 kHz."""
    synthesizer = open_synthesizer()
    resampler = Resampler(22050, 16000)
    pcm = b""
    for text in ("go forward", "hello world"):
        async for chunk in synthesizer.synthesize(text, VoiceOptions()):
            pcm += resampler.push_audio(chunk.pcm)
        pcm += resampler.push_audio(bytes(22050 * 2))
    await synthesizer.aclose()
    return pcm + resampler.finish_stream()


async def pieces(pcm: bytes, piece_bytes: int = 3200) -> AsyncIterator[bytes]:
    for start in range(0, len(pcm), piece_bytes):
        yield pcm[start : start + piece_bytes]


async def transcribe(
    recognizer: PocketSphinxRecognizer,
    pcm: bytes,
    piece_bytes: int = 3200,
    options: RecognitionOptions = OPTIONS,
) -> list[Transcript]:
    async with asyncio.timeout(600):
        return [found async for found in recognizer.recognize(pieces(pcm, piece_bytes), options)]


def samples(recording: Path) -> bytes:
    with wave.open(str(recording)) as opened:
        assert opened.getframerate() == 16000
        pcm: bytes = opened.readframes(opened.getnframes())
    return pcm


def texts(found: list[Transcript]) -> list[str]:
    return [transcript.text for transcript in found if transcript.final]


async def test_a_command_is_recognised_exactly(
    recognizer: PocketSphinxRecognizer, recordings: Path
) -> None:
    pcm = samples(recordings / "goforward.wav")
    assert texts(await transcribe(recognizer, pcm)) == ["go forward ten meters"]
    assert texts(await transcribe(recognizer, pcm, len(pcm))) == ["go forward ten meters"]
    (final,) = [found for found in await transcribe(recognizer, pcm, 640) if found.final]
    assert [word.text for word in final.words] == ["go", "forward", "ten", "meters"]
    assert all(one.begin_ms < one.end_ms <= other.begin_ms for one, other in pairwise(final.words))


async def test_a_command_over_the_telephone_is_recognised(
    recognizer: PocketSphinxRecognizer, recordings: Path
) -> None:
    down, up = Resampler(16000, 8000), Resampler(8000, 16000)
    narrow = down.push_audio(samples(recordings / "goforward.wav")) + down.finish_stream()
    pcm = up.push_audio(narrow) + up.finish_stream()
    telephone = RecognitionOptions(source_rate_hz=8000)
    assert texts(await transcribe(recognizer, pcm, options=telephone)) == ["go forward ten meters"]
    assert texts(await transcribe(recognizer, pcm)) != ["go forward ten meters"]


@pytest.mark.long
async def test_speech_without_a_pause_is_recognised_to_its_end(
    recognizer: PocketSphinxRecognizer, recordings: Path
) -> None:
    wav = samples(recordings / "goforward.wav")
    spoken = wav[16_000 * 2 * 4 // 10 : -16_000 * 2 * 4 // 10]
    found = texts(await transcribe(recognizer, spoken * (40_000 * 32 // len(spoken))))
    assert len(found) >= 2
    assert sum(text.count("go forward ten meters") for text in found) >= 8


async def test_one_stream_does_not_colour_the_next(
    recognizer: PocketSphinxRecognizer, recordings: Path
) -> None:
    pcm = samples(recordings / "something.wav")
    alone = await transcribe(recognizer, pcm)
    await transcribe(recognizer, samples(recordings / "austen-0880.wav"))
    await transcribe(recognizer, samples(recordings / "goforward.wav"))
    assert await transcribe(recognizer, pcm) == alone
    assert texts(alone) == ["go somewhere and do something"]


async def test_a_synthetic_voice_gives_two_sentences_that_grow(
    recognizer: PocketSphinxRecognizer, synthetic: bytes
) -> None:
    found = await transcribe(recognizer, synthetic)
    assert len(texts(found)) == 2
    assert not found[0].final
    assert all(one.text != other.text for one, other in pairwise(found) if not other.final)
    assert not any(char in transcript.text for transcript in found for char in "<>[]()+")
    assert all(word.fixed for transcript in found if transcript.final for word in transcript.words)


async def test_silence_gives_nothing(recognizer: PocketSphinxRecognizer) -> None:
    assert await transcribe(recognizer, bytes(64_000)) == []
    assert await transcribe(recognizer, b"") == []


async def test_two_streams_at_once_get_the_same_as_one_alone(
    recognizer: PocketSphinxRecognizer, synthetic: bytes
) -> None:
    alone = await transcribe(recognizer, synthetic)
    assert await asyncio.gather(*[transcribe(recognizer, synthetic) for _ in range(2)]) == [
        alone,
        alone,
    ]


async def test_a_third_stream_is_told_to_come_back_later(
    recognizer: PocketSphinxRecognizer,
) -> None:
    endless = asyncio.Event()

    async def audio() -> AsyncIterator[bytes]:
        await endless.wait()
        yield b""

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(drain(recognizer, audio()))
        while recognizer.pool.open_channels < 2:  # noqa: ASYNC110 - one turn of the loop, in fact
            await asyncio.sleep(0)
        with pytest.raises(ProviderError) as caught:
            await transcribe(recognizer, b"")
        endless.set()
    assert caught.value.kind is FailureKind.RATE_LIMIT


async def drain(recognizer: PocketSphinxRecognizer, audio: AsyncIterator[bytes]) -> None:
    async for _ in recognizer.recognize(audio, OPTIONS):
        pass


async def test_cancelling_frees_the_decoder_and_leaves_no_task(
    recognizer: PocketSphinxRecognizer,
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(3200)
            await asyncio.sleep(0)

    before = asyncio.all_tasks()
    for _ in range(5):
        task = asyncio.get_running_loop().create_task(drain(recognizer, endless()))
        while recognizer.pool.open_channels == 0:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert recognizer.pool.open_channels == 0
        assert asyncio.all_tasks() == before


async def test_what_the_audio_raises_passes_through(
    recognizer: PocketSphinxRecognizer, synthetic: bytes
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield synthetic[:3200]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await drain(recognizer, broken())
    assert recognizer.pool.open_channels == 0


async def test_the_death_of_the_process_is_told_and_may_be_tried_again() -> None:
    recognizer = open_recognizer(workers=1, streams_per_worker=1)
    await recognizer.start()

    async def audio() -> AsyncIterator[bytes]:
        yield bytes(3200)
        os.kill(recognizer.pool.pids[0], 9)
        await asyncio.Event().wait()

    async with asyncio.timeout(600):
        with pytest.raises(ProviderError) as caught:
            await drain(recognizer, audio())
        assert caught.value.kind is FailureKind.CONNECTIVITY
        assert caught.value.retryable
        assert not caught.value.of_service, "its audio may have ended the process"
        await recognizer.aclose()
        with pytest.raises(ProviderError):
            await transcribe(recognizer, b"")


async def test_processes_that_do_not_start_are_a_provider_error() -> None:
    recognizer = PocketSphinxRecognizer(WorkerPool(["/nonexistent"], size=1), wait_ms=0)
    async with asyncio.timeout(600):
        with pytest.raises(ProviderError):
            await recognizer.start()
        await recognizer.aclose()
