"""Synthesis by a VITS model that sherpa-onnx really loads: every character is a tone of
100 ms.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

pytest.importorskip(
    "sherpa_onnx", reason="needs sherpa-onnx and onnx (pip install 'voicechat[test]')"
)

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.providers.sherpa_models import SAMPLES_PER_CHARACTER, SPEECH_RATE_HZ, make_vits
from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.interfaces import VoiceOptions
from voicechat.providers.sherpa_onnx import open_synthesizer
from voicechat.providers.sherpa_speech import MAX_PIECE_CHARACTERS, SherpaSynthesizer

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vits(tmp_path_factory.mktemp("models") / "vits", speakers=3)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def synthesizer(folder: Path) -> AsyncIterator[SherpaSynthesizer]:
    shared = open_synthesizer(model=str(folder), trial=False)
    await shared.start()
    yield shared
    await shared.aclose()


async def speak(
    synthesizer: SherpaSynthesizer, text: str, voice: VoiceOptions | None = None
) -> list[bytes]:
    async with asyncio.timeout(120):
        chunks = [chunk async for chunk in synthesizer.synthesize(text, voice or VoiceOptions())]
    assert {chunk.rate_hz for chunk in chunks} <= {SPEECH_RATE_HZ}
    return [chunk.pcm for chunk in chunks]


def pitch_hz(pcm: bytes) -> float:
    samples = np.frombuffer(pcm, "<i2")
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * SPEECH_RATE_HZ / len(samples))


async def test_a_text_is_spoken_sentence_by_sentence(synthesizer: SherpaSynthesizer) -> None:
    chunks = await speak(synthesizer, "hello world. abc. de")
    characters = [len(chunk) / 2 / SAMPLES_PER_CHARACTER for chunk in chunks]
    assert characters == [len("hello world."), len(" abc."), len(" de")]
    samples = np.frombuffer(chunks[0], "<i2")
    assert 0.45 * 32767 < np.abs(samples).max() < 0.55 * 32767


async def test_a_voice_that_speaks_espeaks_phonemes_is_given_them(tmp_path: Path) -> None:
    synthesizer = open_synthesizer(model=str(make_vits(tmp_path / "piper", piper=True)))
    chunks = await speak(synthesizer, "Hello, world. Fine!")
    await synthesizer.aclose()
    characters = [len(chunk) / 2 / SAMPLES_PER_CHARACTER for chunk in chunks]
    # Between a beginning and an end each phoneme stands with a gap behind it.
    assert characters == [3 + 2 * len("həlˈoʊ, wˈɜːld."), 3 + 2 * len("fˈaɪn!")]


async def test_speakers_are_voices(synthesizer: SherpaSynthesizer) -> None:
    assert synthesizer.voices == ("0", "1", "2")
    (first,) = await speak(synthesizer, "aaaa")
    for voice, times in (("0", 1), ("1", 2), ("2", 4)):
        (chunk,) = await speak(synthesizer, "aaaa", VoiceOptions(voice=voice))
        assert pitch_hz(chunk) == pytest.approx(times * pitch_hz(first), rel=0.02)


async def test_voices_get_names_and_a_default(folder: Path, synthesizer: SherpaSynthesizer) -> None:
    named = open_synthesizer(
        model=str(folder), trial=False, voice="longxiaochun", voices={"longxiaochun": 2}
    )
    assert named.voices == ("longxiaochun", "0", "1", "2")
    assert await speak(named, "aaaa") == await speak(synthesizer, "aaaa", VoiceOptions(voice="2"))
    await named.aclose()
    with pytest.raises(
        ConfigError, match=r"voices\.her: 3 is no speaker of the model; it has 0 to 2"
    ):
        open_synthesizer(model=str(folder), voices={"her": 3})
    with pytest.raises(ConfigError, match="voice: 'her' is not one of 0, 1, 2"):
        open_synthesizer(model=str(folder), voice="her")


async def test_speed_is_the_models_own_matter_and_pitch_is_not(
    synthesizer: SherpaSynthesizer,
) -> None:
    assert synthesizer.shapes_prosody(1.5, 1)
    assert not synthesizer.shapes_prosody(1.5, 1.1)
    assert not synthesizer.shapes_prosody(2.5, 1)
    (usual,) = await speak(synthesizer, "abcd")
    (fast,) = await speak(synthesizer, "abcd", VoiceOptions(speech_rate=2))
    assert len(fast) == len(usual) / 2


@pytest.mark.parametrize("text", ["", "  \n", "...", "😀"])
async def test_nothing_speakable_gives_no_chunk(synthesizer: SherpaSynthesizer, text: str) -> None:
    assert await speak(synthesizer, text) == []


async def test_what_the_model_has_no_sound_for_is_left_out(synthesizer: SherpaSynthesizer) -> None:
    assert await speak(synthesizer, "你好") == []
    assert len(await speak(synthesizer, "a你b")) == 1


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.characters(exclude_categories=[]), max_size=60))
async def test_any_text_is_safe(synthesizer: SherpaSynthesizer, text: str) -> None:
    await speak(synthesizer, text)


async def test_long_text_is_spoken_in_short_pieces(synthesizer: SherpaSynthesizer) -> None:
    chunks = await speak(synthesizer, "x" * 1000)
    assert [len(chunk) // 2 // SAMPLES_PER_CHARACTER for chunk in chunks] == [
        MAX_PIECE_CHARACTERS
    ] * 5


async def test_sentences_at_once_are_each_their_own(synthesizer: SherpaSynthesizer) -> None:
    texts = [f"{chr(97 + index) * (index + 1)}. {chr(98 + index)}" for index in range(12)]
    alone = [await speak(synthesizer, text) for text in texts]
    assert await asyncio.gather(*(speak(synthesizer, text) for text in texts)) == alone


async def test_an_unknown_voice_is_rejected(synthesizer: SherpaSynthesizer) -> None:
    with pytest.raises(ProviderError) as caught:
        await speak(synthesizer, "hello", VoiceOptions(voice="longnobody"))
    assert caught.value.kind is FailureKind.REJECTED


class GatedModel:
    """Makes endless sentences, each when ``gate`` lets it; in place of sherpa-onnx's
    own.
    """

    sample_rate = SPEECH_RATE_HZ

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.began: list[str] = []
        self.stopped: list[str] = []
        self.at_once = self.most_at_once = 0

    def generate(self, text: str, sid: int, speed: float, callback: object) -> None:
        assert callable(callback)
        self.began.append(text)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        while True:
            assert self.gate.acquire(timeout=30)
            if not callback(np.zeros(80, np.float32), 0.5):
                break
        self.stopped.append(text)
        self.at_once -= 1


def gated(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sentences: int
) -> tuple[SherpaSynthesizer, GatedModel]:
    model = GatedModel()
    monkeypatch.setattr("voicechat.providers.sherpa_speech.load_synthesizer", lambda _: model)
    return open_synthesizer(model=str(folder), trial=False, sentences=sentences), model


async def test_leaving_stops_the_model_at_its_next_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesizer, model = gated(folder, monkeypatch, 1)
    before = asyncio.all_tasks()
    for text in ("first", "second"):
        speech = synthesizer.synthesize(text, VoiceOptions())
        model.gate.release()
        assert (await anext(speech)).pcm == bytes(160)
        await speech.aclose()
        assert asyncio.all_tasks() == before
        model.gate.release()
    await synthesizer.aclose()
    while len(model.stopped) < 2:  # noqa: ASYNC110 - threads end when they end
        await asyncio.sleep(0.001)
    assert model.stopped == ["first", "second"]


async def test_no_more_are_spoken_at_once_than_configured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesizer, model = gated(folder, monkeypatch, 2)
    await synthesizer.start()
    tasks = [
        asyncio.get_running_loop().create_task(speak(synthesizer, f"text {index}"))
        for index in range(5)
    ]
    while len(model.began) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    for task in tasks[2:]:
        task.cancel()
    await asyncio.wait(tasks[2:])
    for task in tasks[:2]:
        task.cancel()
    await asyncio.wait(tasks)
    model.gate.release(10)
    await synthesizer.aclose()
    while len(model.stopped) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert model.most_at_once == 2
    assert sorted(model.began) == ["text 0", "text 1"]


async def test_closing_fails_what_waits_and_refuses_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesizer, model = gated(folder, monkeypatch, 1)
    await synthesizer.start()
    loop = asyncio.get_running_loop()
    speaking, waiting = (
        loop.create_task(speak(synthesizer, text)) for text in ("speaking", "waiting")
    )
    while not model.began:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await synthesizer.aclose()
    with pytest.raises(ProviderError) as caught:
        await waiting
    assert caught.value.kind is FailureKind.CONNECTIVITY
    speaking.cancel()
    await asyncio.wait([speaking])
    model.gate.release(10)
    with pytest.raises(ProviderError):
        await speak(synthesizer, "more")


async def test_a_model_that_fails_is_broken_and_says_nothing_of_the_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesizer, model = gated(folder, monkeypatch, 1)

    def fail(text: str, **_: object) -> None:
        raise RuntimeError(f"cannot say {text}")

    monkeypatch.setattr(model, "generate", fail)
    with pytest.raises(ProviderError) as caught:
        await speak(synthesizer, "secret")
    assert caught.value.kind is FailureKind.BROKEN
    assert "secret" not in str(caught.value)
    await synthesizer.aclose()
