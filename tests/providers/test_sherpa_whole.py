"""Recognition of whole utterances by a model that sherpa-onnx really loads, behind real
voice detection.

Voice detection takes no tone for speech, so the notes of `sherpa_models.melody` stand
in a hummed vowel, which the model hears as the token of its formant.
"""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

pytest.importorskip(
    "sherpa_onnx", reason="needs sherpa-onnx and onnx (pip install 'voicechat[test]')"
)

from tests.providers.humming import silence, voice
from tests.providers.sherpa_models import make_ct_punctuation, make_sense_voice, melody
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.providers.sherpa_onnx import open_recognizer
from voicechat.providers.sherpa_whole import SherpaWholeRecognizer
from voicechat.session.types import Transcript

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]

OPTIONS = RecognitionOptions()


def sung(*bands: int) -> bytes:
    """For each note 240 ms of a vowel, which voice detection takes for speech, and 240
    ms of the note over it.
    """
    hum = np.frombuffer(voice(240), "<i2").astype(np.int32)
    notes = [np.frombuffer(melody((band,), 240), "<i2").astype(np.int32) // 2 for band in bands]
    samples = np.concatenate([part for note in notes for part in (hum, note + hum)])
    return bytes(np.clip(samples, -32768, 32767).astype("<i2").tobytes())


def opened(folder: Path, **settings: object) -> SherpaWholeRecognizer:
    recognizer = open_recognizer(model=str(folder), trial=False, **settings)  # type: ignore[arg-type]
    assert isinstance(recognizer, SherpaWholeRecognizer)
    return recognizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sense_voice(tmp_path_factory.mktemp("models") / "sense-voice")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recognizer(folder: Path) -> AsyncIterator[SherpaWholeRecognizer]:
    shared = opened(folder)
    await shared.start()
    yield shared
    await shared.aclose()


async def pieces(pcm: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(pcm), 3200):
        yield pcm[start : start + 3200]


async def transcribe(recognizer: SherpaWholeRecognizer, pcm: bytes) -> list[Transcript]:
    async with asyncio.timeout(120):
        return [found async for found in recognizer.recognize(pieces(pcm), OPTIONS)]


async def finals(recognizer: SherpaWholeRecognizer, pcm: bytes) -> list[str]:
    return [found.text for found in await transcribe(recognizer, pcm) if found.final]


TWO_UTTERANCES = (
    silence(400) + sung(4, 5, 4, 5, 6) + silence(1200) + sung(6, 7, 6, 5) + silence(400)
)


async def test_utterances_are_cut_at_the_pause_and_recognised_whole(
    recognizer: SherpaWholeRecognizer,
) -> None:
    first, second = (found for found in await transcribe(recognizer, TWO_UTTERANCES) if found.final)
    assert (first.text, second.text) == ("rightft redft rightft redft你", "你ft好ft你ft red")
    # The first utterance is from 400 to 2800, the second from 4000 on.
    begins_ms = [word.begin_ms for word in first.words]
    assert begins_ms == pytest.approx([640, 1120, 1600, 2080, 2560], abs=60)
    assert first.end_ms == pytest.approx(2800, abs=60)
    assert second.begin_ms == pytest.approx(4240, abs=60)
    assert all(word.fixed for word in (*first.words, *second.words))


async def test_partial_results_come_while_the_utterance_goes_on(folder: Path) -> None:
    recognizer = opened(folder, partial_every_ms=100)

    async def spoken() -> AsyncIterator[bytes]:
        # Of audio that comes more than twice as fast as it was spoken no partial
        # results are made.
        async for piece in pieces(sung(*[4, 5] * 3) + silence(1000)):
            yield piece
            await asyncio.sleep(0.08)

    found = [one async for one in recognizer.recognize(spoken(), OPTIONS)]
    await recognizer.aclose()
    partials = [one.text for one in found if not one.final]
    assert len(partials) > 2
    assert all(other.startswith(one) for one, other in pairwise(partials))
    assert [one.text for one in found if one.final] == [
        " ".join(["rightft redft"] * 3).removesuffix("ft")
    ]


async def test_utterances_decoded_together_get_what_they_get_alone(folder: Path) -> None:
    recognizer = opened(folder, partial_every_ms=0)
    # Of one length, so that different ones end together and share a call of the model.
    audio = [
        silence(200) + sung(*bands) + silence(900)
        for bands in ((4, 5, 6), (5, 4, 7), (6, 7, 6), (7, 5, 4))
    ]
    alone = [await transcribe(recognizer, pcm) for pcm in audio]
    batches, decoded = recognizer.batching.batches, recognizer.batching.decoded
    together = await asyncio.gather(*(transcribe(recognizer, pcm) for pcm in audio * 8))
    batches, decoded = recognizer.batching.batches - batches, recognizer.batching.decoded - decoded
    await recognizer.aclose()
    assert together == alone * 8
    assert len({found[-1].text for found in alone}) == 4
    assert decoded / batches > 1.5


async def test_silence_gives_nothing(recognizer: SherpaWholeRecognizer) -> None:
    assert await transcribe(recognizer, silence(5000)) == []
    assert await transcribe(recognizer, b"") == []


async def test_leaving_forgets_what_waits(recognizer: SherpaWholeRecognizer) -> None:
    async def unending() -> AsyncIterator[bytes]:
        while True:
            yield sung(4, 5, 4, 5)
            await asyncio.sleep(0)

    before = asyncio.all_tasks()
    results = recognizer.recognize(unending(), OPTIONS)
    await anext(results)
    await results.aclose()
    assert asyncio.all_tasks() - before <= {
        task for task in asyncio.all_tasks() if "BatchScheduler" in repr(task)
    }
    assert await finals(recognizer, TWO_UTTERANCES) == await finals(recognizer, TWO_UTTERANCES)


async def test_final_texts_get_their_punctuation(folder: Path, tmp_path: Path) -> None:
    recognizer = opened(folder, punctuation=str(make_ct_punctuation(tmp_path / "punctuation")))
    (text,) = await finals(recognizer, silence(200) + sung(6, 7, 6, 7) + silence(300))
    await recognizer.aclose()
    assert text.endswith("好。")


async def test_closing_fails_the_stream_with_its_next_utterance(folder: Path) -> None:
    recognizer = opened(folder)
    gate = asyncio.Event()

    async def audio() -> AsyncIterator[bytes]:
        yield silence(200) + sung(6, 7) + silence(1000)
        await gate.wait()
        yield sung(6, 7) + silence(1000)

    results = recognizer.recognize(audio(), OPTIONS)
    assert (await anext(results)).final
    await recognizer.aclose()
    gate.set()
    with pytest.raises(ProviderError) as caught:
        await anext(results)
    assert caught.value.kind is FailureKind.CONNECTIVITY
