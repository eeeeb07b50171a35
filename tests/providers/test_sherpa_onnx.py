"""The settings: which model lies in a folder, how it is loaded, and what is said when
something is wrong.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

pytest.importorskip(
    "sherpa_onnx", reason="needs sherpa-onnx and onnx (pip install 'voicechat[test]')"
)

import onnx
import sherpa_onnx
from onnx import helper

from tests.providers.sherpa_models import (
    make_sense_voice,
    make_vits,
    make_zipformer_ctc,
    make_zipformer_transducer,
)
from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers import sherpa_loading
from voicechat.providers.registry import find_factory
from voicechat.providers.sherpa_files import KINDS, ModelFiles, find_model
from voicechat.providers.sherpa_loading import (
    RecognizerOptions,
    plan_speech,
    plan_streaming,
    plan_whole,
)
from voicechat.providers.sherpa_onnx import open_recognizer, open_synthesizer

EVERY_TASK = frozenset({"streaming", "whole", "speech"})

Files = Mapping[str, Mapping[str, str]]

FOLDERS: dict[str, Files] = {
    # Names and metadata as the published models and sherpa-onnx's export scripts have
    # them.
    "streaming-transducer": {
        "encoder-epoch-99-avg-1.onnx": {"model_type": "zipformer", "decode_chunk_len": "32"},
        "encoder-epoch-99-avg-1.int8.onnx": {"model_type": "zipformer", "decode_chunk_len": "32"},
        "decoder-epoch-99-avg-1.onnx": {}, "decoder-epoch-99-avg-1.int8.onnx": {},
        "joiner-epoch-99-avg-1.onnx": {}, "joiner-epoch-99-avg-1.int8.onnx": {},
        "with-state-epoch-99-avg-1.onnx": {},
    },
    "streaming-paraformer": {
        "encoder.onnx": {"model_type": "paraformer", "decoder_num_blocks": "16"}, "encoder.int8.onnx": {
            "model_type": "paraformer"}, "decoder.onnx": {}, "decoder.int8.onnx": {},
    },
    "streaming-zipformer2-ctc": {
        "ctc-epoch-20-avg-1-chunk-16-left-128.int8.onnx": {"model_type": "zipformer2", "decode_chunk_len": "32"},
        "ctc-epoch-20-avg-1-chunk-16-left-128.onnx": {"model_type": "zipformer2", "decode_chunk_len": "32"},
    },
    "streaming-nemo-ctc": {"model.onnx": {"model_type": "EncDecHybridRNNTCTCBPEModel", "chunk_shift": "8"}},
    "transducer": {
        "encoder-epoch-99-avg-1.onnx": {"model_type": "zipformer2", "comment": "non-streaming zipformer2"},
        "decoder-epoch-99-avg-1.onnx": {}, "joiner-epoch-99-avg-1.onnx": {},
    },
    "nemo-transducer": {
        "encoder.int8.onnx": {"model_type": "EncDecRNNTBPEModel"}, "decoder.int8.onnx": {}, "joiner.int8.onnx": {},
    },
    "sense-voice": {"model.int8.onnx": {"model_type": "sense_voice_ctc"}, "model.onnx": {
        "model_type": "sense_voice_ctc", "lfr_window_size": "7"}},
    "paraformer": {"model.int8.onnx": {"lfr_window_size": "7", "vocab_size": "8404"}},
    "whisper": {
        "tiny.en-encoder.onnx": {"model_type": "whisper-tiny.en"}, "tiny.en-encoder.int8.onnx": {
            "model_type": "whisper-tiny.en"}, "tiny.en-decoder.onnx": {}, "tiny.en-decoder.int8.onnx": {},
    },
    "moonshine": {
        "preprocess.onnx": {}, "encode.int8.onnx": {}, "uncached_decode.int8.onnx": {}, "cached_decode.int8.onnx": {},
    },
    "zipformer-ctc": {"model.int8.onnx": {"model_type": "zipformer2_ctc"}},
    "nemo-ctc": {"model.onnx": {"model_type": "EncDecCTCModelBPE"}},
    "wenet-ctc": {"model.onnx": {"model_type": "wenet_ctc"}, "model-streaming.onnx": {"model_type": "wenet_ctc"}},
    "vits": {"en_US-amy-low.onnx": {"model_type": "vits", "n_speakers": "1"}},
    "kokoro": {"model.onnx": {"model_type": "kokoro", "n_speakers": "2", "speaker2id": "af_alloy->0,zf_xiaobei->1"}},
    "kitten": {"model.fp16.onnx": {"model_type": "kitten-tts", "n_speakers": "8"}},
    "matcha": {"model-steps-3.onnx": {"model_type": "matcha-tts", "n_speakers": "1"}, "vocos-22khz-univ.onnx": {}},
}  # fmt: skip
OTHERS = {"kokoro": ("voices.bin",), "kitten": ("voices.bin",), "whisper": ("tiny.en-tokens.txt",)}


def labelled(folder: Path, files: Files, others: tuple[str, ...] = ()) -> Path:
    """Models that consist of their metadata."""
    folder.mkdir(parents=True)
    for name, metadata in files.items():
        graph = helper.make_graph([], "nothing", [], [])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        helper.set_model_props(model, dict(metadata))
        onnx.save(model, str(folder / name))
    for name in others or ("tokens.txt",):
        (folder / name).touch()
    return folder


def laid_out(tmp_path: Path, kind: str) -> Path:
    others = OTHERS.get(kind, ())
    if kind != "whisper":
        others = (*others, "tokens.txt")
    return labelled(tmp_path / kind, FOLDERS[kind], others)


def found(folder: Path, *, int8: bool = True, kind: str | None = None) -> ModelFiles:
    return find_model(str(folder), kind=kind, int8=int8, models_dir="", tasks=EVERY_TASK)


@pytest.mark.parametrize("kind", FOLDERS)
def test_the_files_tell_what_they_are(tmp_path: Path, kind: str) -> None:
    assert found(laid_out(tmp_path, kind)).kind == kind


def test_every_kind_but_one_is_told_by_its_files() -> None:
    # A streaming WeNet model lies in one folder with its twin for whole utterances:
    # kind has to be set.
    assert set(KINDS) - set(FOLDERS) == {"streaming-wenet-ctc"}


@pytest.mark.parametrize("kind", KINDS)
def test_sherpa_onnx_takes_the_arguments_that_are_planned(tmp_path: Path, kind: str) -> None:
    folder = laid_out(tmp_path, "wenet-ctc" if kind == "streaming-wenet-ctc" else kind)
    (folder / "hotwords.txt").touch()
    (folder / "espeak-ng-data").mkdir()
    (folder / "lexicon.txt").touch()
    model = found(folder, kind=kind)
    options = RecognizerOptions(
        hotwords_file=str(folder / "hotwords.txt"), language="en", modeling_unit="bpe"
    )
    match KINDS[kind].task:
        case "streaming":
            plan = plan_streaming(model, options)
            inspect.signature(getattr(sherpa_onnx.OnlineRecognizer, plan.method)).bind(
                **plan.arguments
            )
        case "whole":
            plan = plan_whole(model, options)
            inspect.signature(getattr(sherpa_onnx.OfflineRecognizer, plan.method)).bind(
                **plan.arguments
            )
        case _:
            plan = plan_speech(model, threads=1)
            config = sherpa_loading.speech_config(plan)
            assert str(folder / "tokens.txt") in str(config)
    for path in model.paths.values():
        assert all(Path(each).exists() for each in path.split(","))


def test_eight_bits_are_preferred_but_for_the_decoder_of_a_transducer(tmp_path: Path) -> None:
    folder = laid_out(tmp_path, "streaming-transducer")
    names = {role: Path(path).name for role, path in found(folder).paths.items()}
    assert names == {
        "encoder": "encoder-epoch-99-avg-1.int8.onnx", "decoder": "decoder-epoch-99-avg-1.onnx",
        "joiner": "joiner-epoch-99-avg-1.int8.onnx", "tokens": "tokens.txt",
    }  # fmt: skip
    assert not any("int8" in path for path in found(folder, int8=False).paths.values())


def test_the_rules_of_a_chinese_voice_stand_in_their_order(tmp_path: Path) -> None:
    files = (
        "tokens.txt",
        "lexicon.txt",
        "date.fst",
        "number.fst",
        "phone.fst",
        "new_heteronym.fst",
        "rule.far",
    )
    folder = labelled(tmp_path / "aishell3", {"model.onnx": {"model_type": "vits"}}, files)
    rules = plan_speech(found(folder), threads=1).arguments["rules"]
    assert [Path(path).name for path in rules["rule_fsts"].split(",")] == [
        "phone.fst", "date.fst", "number.fst", "new_heteronym.fst",
    ]  # fmt: skip
    assert rules["rule_fars"] == str(folder / "rule.far")


def test_a_second_english_lexicon_is_left_out(tmp_path: Path) -> None:
    lexicons = ("lexicon-gb-en.txt", "lexicon-us-en.txt", "lexicon-zh.txt")
    folder = labelled(
        tmp_path / "kokoro", FOLDERS["kokoro"], ("tokens.txt", "voices.bin", *lexicons)
    )
    names = [Path(path).name for path in found(folder).paths["lexicon"].split(",")]
    assert names == ["lexicon-us-en.txt", "lexicon-zh.txt"]


def test_a_models_own_names_of_its_voices_are_used(tmp_path: Path) -> None:
    synthesizer = open_synthesizer(model=str(laid_out(tmp_path, "kokoro")), voice="zf_xiaobei")
    assert synthesizer.voices == ("zf_xiaobei", "af_alloy")


def test_a_pulled_model_is_found_by_its_name(tmp_path: Path) -> None:
    make_zipformer_ctc(tmp_path / "models" / "some-model")
    factory = find_factory("asr", "sherpa_onnx")
    factory(model="some-model", models_dir=str(tmp_path / "models"))
    with pytest.raises(
        ConfigError,
        match=r"model: there is no folder 'other', nor in .*'voicechat models pull NAME'",
    ):
        factory(model="other", models_dir=str(tmp_path / "models"))
    with pytest.raises(ConfigError, match=r"model: there is no folder '\.\./models/some-model'"):
        factory(model="../models/some-model", models_dir=str(tmp_path / "models"))


@pytest.mark.parametrize(
    ("make", "settings", "complaint"),
    [
        (
            make_zipformer_ctc,
            {"kind": "zipformer"},
            "kind: 'zipformer' is not one of streaming-transducer, ",
        ),
        (
            make_vits,
            {},
            "model: .* is of the kind 'vits', which cannot be used here; allowed: "
            "streaming-transducer",
        ),
        (
            make_zipformer_ctc,
            {"kind": "whisper"},
            r"model: .* lacks \*encoder\*.onnx; .*, or set kind",
        ),
        (
            make_zipformer_ctc,
            {"language": "zh"},
            "language: a model of the kind 'streaming-zipformer2-ctc' knows",
        ),
        (
            make_zipformer_ctc,
            {"hotwords": "h.txt"},
            "hotwords: .* takes none; streaming-transducer and transducer do",
        ),
        (make_zipformer_transducer, {"hotwords": "/none"}, "hotwords: there is no file '/none'"),
        (make_zipformer_ctc, {"punctuation": "none"}, "punctuation: there is no folder 'none'"),
        (make_zipformer_ctc, {"threads": 0}, "threads: Input should be greater than or equal to 1"),
        (make_zipformer_ctc, {"colour": 1}, "colour: unknown key"),
    ],
)
def test_a_wrong_setting_is_named(
    tmp_path: Path, make: Callable[[Path], Path], settings: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        find_factory("asr", "sherpa_onnx")(model=str(make(tmp_path / "model")), **settings)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = make_zipformer_transducer(tmp_path / "model")
    (folder / "tokens.txt").unlink()
    with pytest.raises(
        ConfigError, match=r"model: .*model lacks tokens.txt or \*-tokens.txt; fetch it again"
    ):
        open_recognizer(model=str(folder))


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    folder = make_sense_voice(tmp_path / "model")
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:500])
    with pytest.raises(
        ConfigError, match=r"model: .*model.onnx is no whole ONNX model.* fetch it again"
    ):
        open_recognizer(model=str(folder))


def test_more_than_one_model_is_a_persons_choice(tmp_path: Path) -> None:
    two = {
        f"ctc-chunk-{length}.onnx": {"model_type": "zipformer2", "decode_chunk_len": "32"}
        for length in (16, 32)
    }
    with pytest.raises(ConfigError, match=r"holds ctc-chunk-16.onnx, ctc-chunk-32.onnx; leave one"):
        open_recognizer(model=str(labelled(tmp_path / "two", two)))


def test_what_does_not_tell_its_kind_must_be_told(tmp_path: Path) -> None:
    folder = labelled(tmp_path / "strange", {"model.onnx": {}})
    with pytest.raises(
        ConfigError, match=r"kind: the files in .* do not tell .*; set kind to one of streaming-"
    ):
        open_recognizer(model=str(folder))


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"'sherpa_onnx' needs a package: pip install 'voicechat\[sherpa\]'"
    ):
        open_recognizer(model=str(make_zipformer_ctc(tmp_path / "model")))


@pytest.mark.real_time
async def test_a_file_that_would_end_the_process_ends_only_the_trial(tmp_path: Path) -> None:
    folder = make_zipformer_ctc(tmp_path / "model")
    (path,) = folder.glob("*.onnx")
    model = onnx.load(str(path))
    helper.set_model_props(model, {"model_type": "zipformer2", "decode_chunk_len": "16"})
    onnx.save(model, str(path))
    recognizer = open_recognizer(model=str(folder))
    with pytest.raises(ProviderError, match="encoder_dims") as caught:
        await recognizer.start()
    assert caught.value.kind is FailureKind.BROKEN
    await recognizer.aclose()


@pytest.mark.real_time
async def test_a_model_that_works_passes_its_trial(tmp_path: Path) -> None:
    recognizer = open_recognizer(model=str(make_zipformer_ctc(tmp_path / "model")))
    await recognizer.start()
    await recognizer.aclose()
