"""Kokoro in process: its text front end, and a tiny model with Kokoro's inputs."""

from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("misaki", reason="needs misaki (pip install 'voicechat[local]')")

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.interfaces import VoiceOptions
from voicechat.providers.kokoro import RATE_HZ, open_synthesizer
from voicechat.providers.kokoro_phonemes import SYMBOLS, phonemes_of, tokens_of
from voicechat.providers.model_speech import ProcessSynthesizer
from voicechat.testing.conformance import check_synthesizer, leaving_nothing

SAMPLES_PER_TOKEN = 1_200


def phonemes(text: str, voice: str = "af_heart") -> str:
    return phonemes_of(text, voice)


# --- what is spoken -------------------------------------------------------------------


def test_english_numbers_unknown_words_and_possessives_are_spoken() -> None:
    said = phonemes("I have 25 apples and it costs 3.50 dollars. John's xkcd.")
    assert "twˈɛnti fˈIv ˈæpᵊlz" in said
    assert "θɹˈi pYnt fˈIv" in said
    assert "ʤˈɑnz" in said
    assert "ˌɛkskˌA" in said
    assert all(symbol in SYMBOLS for symbol in said)


def test_marks_stay_and_those_within_numbers_are_none() -> None:
    assert phonemes("Really? Yes, at 12:30 (noon).").count("?") == 1
    assert ":" not in phonemes("At 12:30.")
    assert phonemes("It is (really), so.").count("(") == 1


def test_british_english_has_its_own_sounds() -> None:
    assert "nˈQ" in phonemes("no", "bf_emma")
    assert "nˈO" in phonemes("no", "af_heart")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("我有25个苹果，一共3.50元。", "我有二十五个苹果，一共三点五零元。"),
        ("今天是2026年11月30日。", "今天是二零二六年十一月三十日。"),
        ("下午3:45，气温-5℃。", "下午三点四十五分，气温负五摄氏度。"),
        ("利率上升了3.5%。", "利率上升了百分之三点五。"),
        ("体重80kg。", "体重八十千克。"),
        ("速度100km/h。", "速度每小时一百公里。"),
        ("面积12345平方米。", "面积一万二千三百四十五平方米。"),
        ("一共1,234,567元。", "一共一百二十三万四千五百六十七元。"),
        ("一共￥35。", "一共三十五元。"),
        ("2个人。", "两个人。"),
    ],
)
def test_chinese_numbers_dates_and_units_are_read(written: str, read: str) -> None:
    def plain(text: str) -> str:
        return phonemes(text, "zf_xiaobei").replace(" ", "")

    assert plain(written) == plain(read)
    assert not any(char.isdigit() for char in plain(written))


def test_mixed_sentences_are_read_in_both_languages() -> None:
    said = phonemes("我用Python写了3个AI程序。", "zf_xiaobei")
    assert "pˈIθən" in said
    assert "ˌAˈI" in said
    assert "→" in said
    assert "ʂ" not in phonemes("I use Python.", "zf_xiaobei")


def test_a_number_alone_is_read_in_the_voice_s_language() -> None:
    assert phonemes("25", "af_heart") == "twˈɛnti fˈIv"
    assert "ʂɨ" in phonemes("25", "zf_xiaobei")


def test_nothing_is_spoken_of_marks_alone() -> None:
    assert not any(map(str.isalpha, phonemes("...!")))
    assert tokens_of("🙂", "af_heart") == []


# --- the folder -----------------------------------------------------------------------


def make_kokoro(folder: Path, *, voices: tuple[str, ...] = ("af_one", "zf_two")) -> Path:
    """A model of which every token is a tone of 50 ms; the style is its loudness."""
    frequencies = 200 + 10 * np.arange(200, dtype=np.float32)
    constants: dict[str, NDArray[Any]] = {
        "frequencies": frequencies,
        "samples": np.array([SAMPLES_PER_TOKEN], np.float32),
        "start": np.array(0, np.float32), "step": np.array(1, np.float32),
        "turn": np.array(2 * np.pi / RATE_HZ, np.float32),
        "scalar": np.array([], np.int64), "row": np.array([1, -1], np.int64),
        "column": np.array([-1, 1], np.int64), "flat": np.array([-1], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Div", ["samples", "speed"], ["length"]),
        helper.make_node("Reshape", ["length", "scalar"], ["limit"]),
        helper.make_node("Range", ["start", "limit", "step"], ["times"]),
        helper.make_node("Reshape", ["times", "row"], ["times_row"]),
        helper.make_node("Gather", ["frequencies", "tokens"], ["pitches"], axis=0),
        helper.make_node("Reshape", ["pitches", "column"], ["pitches_column"]),
        helper.make_node("Mul", ["pitches_column", "turn"], ["speeds"]),
        helper.make_node("Mul", ["speeds", "times_row"], ["phases"]),
        helper.make_node("Sin", ["phases"], ["waves"]),
        helper.make_node("ReduceMax", ["style"], ["loudness"], keepdims=0),
        helper.make_node("Mul", ["waves", "loudness"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["audio"]),
    ]
    values = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "kokoro",
        [
            values("tokens", TensorProto.INT64, [1, "L"]),
            values("style", TensorProto.FLOAT, [1, 256]),
            values("speed", TensorProto.FLOAT, [1]),
        ],
        [values("audio", TensorProto.FLOAT, ["samples_made"])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "voices").mkdir(parents=True)
    onnx.save(model, str(folder / "kokoro.onnx"))
    for loudness, name in enumerate(voices, 1):
        style = np.full((510, 1, 256), 0.2 * loudness, "<f4")
        style.tofile(folder / "voices" / f"{name}.bin")
    return folder


def test_the_first_voice_is_the_default_and_other_languages_are_left_out(tmp_path: Path) -> None:
    folder = make_kokoro(tmp_path / "model", voices=("jf_alpha", "zf_xiaobei", "af_heart"))
    assert open_synthesizer(model=str(folder)).voices == ("af_heart", "zf_xiaobei")
    assert open_synthesizer(model=str(folder), voice="zf_xiaobei").voices[0] == "zf_xiaobei"
    with pytest.raises(ConfigError, match="voice: 'nobody' is not one of af_heart, zf_xiaobei"):
        open_synthesizer(model=str(folder), voice="nobody")


def test_an_archive_of_voices_is_read(tmp_path: Path) -> None:
    folder = make_kokoro(tmp_path / "model")
    for file in (folder / "voices").iterdir():
        file.unlink()
    (folder / "voices").rmdir()
    with (folder / "voices-v1.0.bin").open("wb") as archive:
        np.savez(archive, bf_emma=np.zeros((510, 1, 256), np.float32))
    assert open_synthesizer(model=str(folder)).voices == ("bf_emma",)


def test_a_folder_without_voices_or_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must hold one \.onnx file; it holds none"):
        open_synthesizer(model=str(tmp_path))
    (tmp_path / "kokoro.onnx").touch()
    with pytest.raises(ConfigError, match="has no voices"):
        open_synthesizer(model=str(tmp_path))


# --- the process ----------------------------------------------------------------------


async def spoken(synthesizer: ProcessSynthesizer, text: str, **options: object) -> list[bytes]:
    voice = VoiceOptions(**options)  # type: ignore[arg-type]
    async with aclosing(synthesizer.synthesize(text, voice)) as chunks:
        return [chunk.pcm async for chunk in chunks]


@pytest.mark.long
@pytest.mark.real_time
async def test_a_tiny_model(tmp_path: Path) -> None:
    async with leaving_nothing():
        synthesizer = open_synthesizer(model=str(make_kokoro(tmp_path / "model")))
        await synthesizer.start()

        tones = len(tokens_of("Hello", "af_one")) + 2
        pcm = b"".join(await spoken(synthesizer, "Hello"))
        assert len(pcm) // 2 == pytest.approx(tones * SAMPLES_PER_TOKEN, abs=2_000)
        fast = b"".join(await spoken(synthesizer, "Hello", speech_rate=2.0))
        assert len(fast) == pytest.approx(len(pcm) / 2, abs=3_000)
        loud = b"".join(await spoken(synthesizer, "Hello", voice="zf_two"))
        assert max(np.frombuffer(loud, "<i2")) > 1.5 * max(np.frombuffer(pcm, "<i2"))
        # Each clause is heard as soon as it is made.
        text = "The first part of it all, the second part of it all, and the last one."
        assert len([pcm for pcm in await spoken(synthesizer, text) if any(pcm)]) == 3

        assert synthesizer.real_time_factor > 0
        await check_synthesizer(synthesizer)
        await synthesizer.aclose()


@pytest.mark.long
@pytest.mark.real_time
async def test_a_voice_that_loses_the_tones_gets_the_prosody_of_another(tmp_path: Path) -> None:
    folder = make_kokoro(tmp_path / "model", voices=("zf_xiaoni", "zf_xiaoxiao"))
    synthesizer = open_synthesizer(model=str(folder))

    async def loudness(voice: str) -> int:
        pcm = b"".join(await spoken(synthesizer, "一", voice=voice))
        return int(max(np.frombuffer(pcm, "<i2")))

    # The tiny model takes the largest number of a style.
    assert await loudness("zf_xiaoni") == await loudness("zf_xiaoxiao")
    await synthesizer.aclose()
    (folder / "voices" / "zf_xiaoxiao.bin").unlink()
    synthesizer = open_synthesizer(model=str(folder))
    assert 0 < await loudness("zf_xiaoni") < 0.3 * 32767
    await synthesizer.aclose()


@pytest.mark.long
@pytest.mark.real_time
async def test_another_model_is_refused(tmp_path: Path) -> None:
    folder = make_kokoro(tmp_path / "model")
    model = onnx.load(str(folder / "kokoro.onnx"))
    model.graph.input[2].name = "tempo"
    model.graph.node[0].input[1] = "tempo"
    onnx.save(model, str(folder / "kokoro.onnx"))
    synthesizer = open_synthesizer(model=str(folder))
    with pytest.raises(ProviderError, match="no Kokoro model: its inputs are") as failure:
        await synthesizer.start()
    assert failure.value.kind is FailureKind.BROKEN
    await synthesizer.aclose()
