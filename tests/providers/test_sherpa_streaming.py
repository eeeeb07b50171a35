"""Streaming recognition by models that sherpa-onnx really loads; see sherpa_models.py
for why the texts are known.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

pytest.importorskip(
    "sherpa_onnx", reason="needs sherpa-onnx and onnx (pip install 'voicechat[test]')"
)

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.providers.sherpa_models import (
    make_ct_punctuation,
    make_zipformer_ctc,
    make_zipformer_transducer,
    melody,
)
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.providers.sherpa_onnx import open_recognizer
from voicechat.providers.sherpa_streaming import (
    MAX_RESULTS,
    WINDOW_BYTES,
    SherpaStreamingRecognizer,
)
from voicechat.session.types import Transcript

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]

OPTIONS = RecognitionOptions()
PAUSE = (None, None, None, None)
TWO_SENTENCES = melody((None, 0, None, 1, None, 2, None, 3, *PAUSE, 4, None, 0))


def opened(folder: Path, **settings: object) -> SherpaStreamingRecognizer:
    recognizer = open_recognizer(model=str(folder), trial=False, **settings)  # type: ignore[arg-type]
    assert isinstance(recognizer, SherpaStreamingRecognizer)
    return recognizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zipformer_ctc(tmp_path_factory.mktemp("models") / "ctc")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recognizer(folder: Path) -> AsyncIterator[SherpaStreamingRecognizer]:
    shared = opened(folder, streams=64)
    await shared.start()
    yield shared
    await shared.aclose()


async def pieces(pcm: bytes, piece_bytes: int = 3200) -> AsyncIterator[bytes]:
    for start in range(0, len(pcm), piece_bytes):
        yield pcm[start : start + piece_bytes]


async def transcribe(
    recognizer: SherpaStreamingRecognizer, pcm: bytes, piece_bytes: int = 3200
) -> list[Transcript]:
    async with asyncio.timeout(120):
        return [found async for found in recognizer.recognize(pieces(pcm, piece_bytes), OPTIONS)]


def texts(found: Sequence[Transcript]) -> list[str]:
    return [transcript.text for transcript in found if transcript.final]


@pytest.mark.parametrize("make", [make_zipformer_ctc, make_zipformer_transducer])
async def test_two_sentences_grow_and_are_closed_by_the_pause_and_by_the_end(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    recognizer = opened(make(tmp_path / "model"))
    found = await transcribe(recognizer, TWO_SENTENCES)
    await recognizer.aclose()
    assert texts(found)[0] == "go stop left"
    assert texts(found)[1].startswith("right")
    assert texts(found)[1].endswith("go")
    assert [one.text for one in found[:4]] == ["go", "go stop", "go stop le", "go stop left"]
    assert all(one.text != other.text for one, other in pairwise(found) if not other.final)
    assert all(word.fixed == transcript.final for transcript in found for word in transcript.words)


async def test_words_have_the_times_of_their_notes(recognizer: SherpaStreamingRecognizer) -> None:
    first, second = (found for found in await transcribe(recognizer, TWO_SENTENCES) if found.final)
    assert [word.text for word in (*first.words, *second.words)] == [
        "go",
        "stop",
        "left",
        "right",
        "go",
    ]
    # Notes of 320 ms: the first two begin at 320 and 960, "le" and "ft" at 1600 and
    # 2240, and the rest from 3840 on.
    begins_ms = [word.begin_ms for word in (*first.words, *second.words)]
    assert begins_ms == pytest.approx([320, 960, 1600, 3840, 4480], abs=60)
    assert first.begin_ms == first.words[0].begin_ms
    assert first.end_ms == pytest.approx(2240 + 280, abs=60)
    assert second.begin_ms == pytest.approx(3840, abs=60)
    assert second.end_ms is not None
    assert second.end_ms <= len(TWO_SENTENCES) // 32


@pytest.mark.parametrize("piece_bytes", [2, 642, 16_000, len(TWO_SENTENCES)])
async def test_the_same_samples_give_the_same_results_however_they_are_cut(
    recognizer: SherpaStreamingRecognizer, piece_bytes: int
) -> None:
    pcm = TWO_SENTENCES if piece_bytes > 2 else TWO_SENTENCES[:32_000]
    assert await transcribe(recognizer, pcm, piece_bytes) == await transcribe(recognizer, pcm)


async def test_silence_gives_nothing(recognizer: SherpaStreamingRecognizer) -> None:
    assert await transcribe(recognizer, bytes(160_000)) == []
    assert await transcribe(recognizer, b"") == []
    assert await transcribe(recognizer, b"\0\0") == []
    assert await transcribe(recognizer, b"\0\0\0") == []


async def test_what_is_said_up_to_the_last_sample_is_heard(
    recognizer: SherpaStreamingRecognizer,
) -> None:
    # The last 80 ms are no whole chunk of the model.
    assert texts(
        await transcribe(recognizer, melody((None, 0, None)) + melody((1,), note_ms=80))
    ) == ["go stop"]


async def test_chinese_characters_are_words_of_their_own(
    recognizer: SherpaStreamingRecognizer,
) -> None:
    (final,) = (
        found for found in await transcribe(recognizer, melody((None, 6, None, 7))) if found.final
    )
    assert final.text == "你好"
    assert [word.text for word in final.words] == ["你", "好"]


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.lists(st.one_of(st.none(), st.integers(0, 7)), max_size=12),
            st.sampled_from([320, 3200, 10_000]),
        ),
        min_size=2,
        max_size=12,
    )
)
async def test_decoded_together_each_stream_gets_what_it_gets_alone(
    recognizer: SherpaStreamingRecognizer, streams: list[tuple[list[int | None], int]]
) -> None:
    audio = [(melody(bands), piece_bytes) for bands, piece_bytes in streams]
    alone = [await transcribe(recognizer, *each) for each in audio]
    assert await asyncio.gather(*(transcribe(recognizer, *each) for each in audio)) == alone


async def test_streams_that_are_ready_share_a_call_of_the_model(
    recognizer: SherpaStreamingRecognizer,
) -> None:
    batches, decoded = recognizer.batching.batches, recognizer.batching.decoded
    await asyncio.gather(*(transcribe(recognizer, TWO_SENTENCES) for _ in range(20)))
    batches, decoded = recognizer.batching.batches - batches, recognizer.batching.decoded - decoded
    assert decoded / batches > 10


async def test_a_stream_too_many_is_told_to_come_back_later(folder: Path) -> None:
    recognizer = opened(folder, streams=2, wait_ms=30)
    gate = asyncio.Event()

    async def audio() -> AsyncIterator[bytes]:
        await gate.wait()
        yield melody((None, 0))

    async def read() -> list[str]:
        return texts([found async for found in recognizer.recognize(audio(), OPTIONS)])

    async with asyncio.TaskGroup() as group:
        reading = [group.create_task(read()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ProviderError) as caught:
            await transcribe(recognizer, b"")
        gate.set()
    assert caught.value.kind is FailureKind.RATE_LIMIT
    assert [task.result() for task in reading] == [["go"], ["go"]]
    assert texts(await transcribe(recognizer, melody((None, 0)))) == ["go"]
    await recognizer.aclose()


async def test_leaving_frees_everything_at_once(recognizer: SherpaStreamingRecognizer) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield TWO_SENTENCES
            await asyncio.sleep(0)

    await transcribe(recognizer, b"")
    before = asyncio.all_tasks()
    for _ in range(5):
        results = recognizer.recognize(endless(), OPTIONS)
        await anext(results)
        await results.aclose()
        assert asyncio.all_tasks() == before
        assert recognizer.open_streams == 0
    # Nobody is left in the batches: the others go on undisturbed.
    assert texts(await transcribe(recognizer, melody((None, 0)))) == ["go"]


async def test_cancelling_the_task_that_waits_frees_everything(
    recognizer: SherpaStreamingRecognizer,
) -> None:
    async def silent() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async def read() -> None:
        async for _ in recognizer.recognize(silent(), OPTIONS):
            pass

    before = asyncio.all_tasks()
    task = asyncio.get_running_loop().create_task(read())
    while recognizer.open_streams == 0:  # noqa: ASYNC110 - one turn of the loop, in fact
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert recognizer.open_streams == 0
    assert asyncio.all_tasks() == before


async def test_what_the_audio_raises_passes_through(recognizer: SherpaStreamingRecognizer) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield melody((None, 0))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async for _ in recognizer.recognize(broken(), OPTIONS):
            pass
    assert recognizer.open_streams == 0


async def test_who_does_not_read_is_not_fed(recognizer: SherpaStreamingRecognizer) -> None:
    tune = melody((0, 1, 2, 3, 4, 5), note_ms=160)  # every chunk of 160 ms changes the text
    given_bytes = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given_bytes
        while True:
            for start in range(0, len(tune), 5120):
                given_bytes += 5120
                yield tune[start : start + 5120]

    results = recognizer.recognize(endless(), OPTIONS)
    await anext(results)
    async with asyncio.timeout(120):
        while given_bytes <= MAX_RESULTS * 5120:  # noqa: ASYNC110 - a thread takes it
            await asyncio.sleep(0.001)
    before_bytes = -1
    while before_bytes != given_bytes:
        before_bytes = given_bytes
        await asyncio.sleep(0.05)
    assert given_bytes < (MAX_RESULTS + 6) * 5120 + WINDOW_BYTES
    async with asyncio.timeout(120):
        while given_bytes == before_bytes:
            await anext(results)
    await results.aclose()


async def test_closing_fails_the_streams_that_are_open(folder: Path) -> None:
    before = set(threading.enumerate())
    recognizer = opened(folder)

    async def silent() -> AsyncIterator[bytes]:
        yield melody((None, 0))
        await asyncio.Event().wait()

    async def idle() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    results = recognizer.recognize(silent(), OPTIONS)
    assert (await anext(results)).text == "go"
    waiting = asyncio.get_running_loop().create_task(anext(recognizer.recognize(idle(), OPTIONS)))
    while recognizer.open_streams < 2:  # noqa: ASYNC110 - one turn of the loop, in fact
        await asyncio.sleep(0)
    await recognizer.aclose()
    for last in (anext(results), waiting):
        async with asyncio.timeout(120):
            with pytest.raises(ProviderError) as caught:
                await last
        assert caught.value.kind is FailureKind.CONNECTIVITY
    with pytest.raises(ProviderError):
        await transcribe(recognizer, b"")
    await recognizer.aclose()
    assert set(threading.enumerate()) <= before


async def test_final_texts_get_their_punctuation(folder: Path, tmp_path: Path) -> None:
    recognizer = opened(folder, punctuation=str(make_ct_punctuation(tmp_path / "punctuation")))
    found = await transcribe(recognizer, melody((None, 6, None, 7)))
    await recognizer.aclose()
    assert [(one.text, one.final) for one in found][-1] == ("你好。", True)
    assert "。" not in "".join(one.text for one in found[:-1])
    assert [(word.text, word.punctuation) for word in found[-1].words] == [("你", ""), ("好", "。")]
