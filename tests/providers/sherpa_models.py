"""Tiny models that sherpa-onnx really loads and runs, and audio whose text is known
beforehand.

Nothing is trained: the graphs hear which of eight bands of the spectrum is loudest, and
each band is a token. A melody of tones is therefore a sentence, and silence is the
blank. What a stream heard last goes through the model's state, so that a state given to
the wrong stream changes the text.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

RATE_HZ = 16000
WORDS = ("▁go", "▁stop", "▁le", "ft", "▁right", "▁red", "你", "好")
"""The token of each band, from the lowest to the highest; the blank is token 0, so the
first band's is 1.
"""
BANDS = len(WORDS)
CHUNK_FRAMES = 16
"""Frames of 10 ms in one call of the streaming models: 160 ms, and four results of
them.
"""
SPEECH_RATE_HZ = 8000
SAMPLES_PER_CHARACTER = 800
PIPER_PHONEMES = "abdefhijklmnoprstuvwzæðŋɐɑɔəɚɛɜɡɪɹʃʊʌʒθˈˌː"

QUIET = 1.0
"""Loudness (logarithm of a mel filter's energy) below which nothing is heard.

A steady note has 2.5 to 9, the bands beside it have less than 0."""

_MELS_PER_BAND = 10
_EMBED = 128 * 3 * 19


def tone_hz(band: int) -> float:
    """The frequency in the middle of a band (kaldi's mel scale, 80 filters from 20 to
    7600 Hz).
    """
    low, high = (1127 * np.log(1 + hz / 700) for hz in (20, 7600))
    mel = low + (band * _MELS_PER_BAND + (_MELS_PER_BAND + 1) / 2) * (high - low) / 81
    return float(700 * (np.exp(mel / 1127) - 1))


def melody(bands: Sequence[int | None], note_ms: int = 320) -> bytes:
    """One note for each band, None for silence; s16le mono 16 kHz."""
    times = np.arange(RATE_HZ * note_ms // 1000) / RATE_HZ
    notes = [
        np.zeros_like(times) if band is None else np.sin(2 * np.pi * tone_hz(band) * times)
        for band in bands
    ]
    samples = np.concatenate(notes) if notes else np.zeros(0)
    return (samples * 0.6 * 32767).astype("<i2").tobytes()


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, object],
) -> None:
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    onnx.save(model, str(path))


def _value(
    name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def _tokens(folder: Path, *, first: Sequence[str] = ("<blk>",), then: Sequence[str] = ()) -> None:
    symbols = [*first, *WORDS, *then]
    (folder / "tokens.txt").write_text(
        "".join(f"{symbol} {index}\n" for index, symbol in enumerate(symbols))
    )


_STATES: dict[str, tuple[list[int | str], int]] = {
    "cached_key": ([2, "N", 4], TensorProto.FLOAT),
    "cached_nonlin_attn": ([1, "N", 2, 3], TensorProto.FLOAT),
    "cached_val1": ([2, "N", 4], TensorProto.FLOAT),
    "cached_val2": ([2, "N", 4], TensorProto.FLOAT),
    "cached_conv1": (["N", 4, 1], TensorProto.FLOAT),
    "cached_conv2": (["N", 4, 1], TensorProto.FLOAT),
    "embed_states": (["N", 128, 3, 19], TensorProto.FLOAT),
    "processed_lens": (["N"], TensorProto.INT64),
}
"""What one zipformer layer keeps (sherpa-onnx/csrc/online-zipformer2-ctc-model.cc,
InitStates).
"""

_ZIPFORMER = {
    "model_type": "zipformer2",
    "encoder_dims": 4, "query_head_dims": 4, "value_head_dims": 4, "num_heads": 1, "num_encoder_layers": 1,
    "cnn_module_kernels": 3, "left_context_len": 2, "T": CHUNK_FRAMES, "decode_chunk_len": CHUNK_FRAMES,
}  # fmt: skip


def _zipformer(path: Path, weight_columns: int = 0) -> None:
    """Loudness of the blank (0) and of each band for every 40 ms, one result late: the
    last one is the state.

    ``weight_columns`` adds two matrices of 1280 rows whose product does not matter:
    work like that of a real model.
    """
    constants: dict[str, NDArray[Any]] = {
        "bands": np.array([0, 4, 4, BANDS, _MELS_PER_BAND], np.int64),
        "flat": np.array([0, -1], np.int64),
        "row": np.array([0, 1, -1], np.int64),
        "state_shape": np.array([0, 128, 3, 19], np.int64),
        "zero": np.array([0], np.int64), "one": np.array([1], np.int64), "three": np.array([3], np.int64),
        "four": np.array([4], np.int64), "many": np.array([BANDS], np.int64), "axis1": np.array([1], np.int64),
        "pads": np.array([0, 0, 0, _EMBED - BANDS], np.int64),
        "nothing": np.array(0, np.float32), "quiet": np.array(QUIET, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Reshape", ["x", "bands"], ["by_band"]),
        helper.make_node("ReduceMax", ["by_band"], ["loudness"], axes=[2, 4], keepdims=0),
        helper.make_node("Reshape", ["embed_states", "flat"], ["kept"]),
        helper.make_node("Slice", ["kept", "zero", "many", "axis1"], ["last"]),
        helper.make_node("Reshape", ["last", "row"], ["last_row"]),
        helper.make_node("Slice", ["loudness", "zero", "three", "axis1"], ["early"]),
        helper.make_node("Concat", ["last_row", "early"], ["late"], axis=1),
        helper.make_node("Slice", ["late", "zero", "one", "axis2"], ["column"]),
        helper.make_node("Mul", ["column", "nothing"], ["nothings"]),
        helper.make_node("Add", ["nothings", "quiet"], ["blank"]),
        helper.make_node("Concat", ["blank", "late"], ["heard"], axis=2),
        helper.make_node("Slice", ["loudness", "three", "four", "axis1"], ["newest"]),
        helper.make_node("Reshape", ["newest", "flat"], ["newest_row"]),
        helper.make_node("Pad", ["newest_row", "pads"], ["padded"]),
        helper.make_node("Reshape", ["padded", "state_shape"], ["new_embed_states"]),
    ]
    constants["axis2"] = np.array([2], np.int64)
    result = "heard"
    if weight_columns:
        random = np.random.default_rng(0)
        constants["up"] = random.standard_normal((1280, weight_columns)).astype(np.float32)
        constants["down"] = random.standard_normal((weight_columns, 1)).astype(np.float32)
        constants["all_shape"] = np.array([0, 1, 1280], np.int64)
        nodes += [
            helper.make_node("Reshape", ["x", "all_shape"], ["all"]),
            helper.make_node("MatMul", ["all", "up"], ["wide"]),
            helper.make_node("MatMul", ["wide", "down"], ["narrow"]),
            helper.make_node("Mul", ["narrow", "nothing"], ["no_matter"]),
            helper.make_node("Add", ["heard", "no_matter"], ["weighed"]),
        ]
        result = "weighed"
    nodes += [
        helper.make_node("Identity", [name], [f"new_{name}"])
        for name in _STATES
        if name != "embed_states"
    ]
    nodes.append(helper.make_node("Identity", [result], ["log_probs"]))
    _save(
        path, nodes,
        [_value("x", ["N", CHUNK_FRAMES, 80]), *(_value(name, *kind) for name, kind in _STATES.items())],
        [_value("log_probs", ["N", 4, BANDS + 1]), *(_value(f"new_{name}", *kind) for name, kind in _STATES.items())],
        constants, _ZIPFORMER,
    )  # fmt: skip


def make_zipformer_ctc(folder: Path, weight_columns: int = 0) -> Path:
    """A streaming zipformer2 with a CTC head."""
    folder.mkdir(parents=True)
    _zipformer(folder / "ctc-epoch-1-avg-1-chunk-16-left-2.onnx", weight_columns)
    _tokens(folder)
    return folder


def make_zipformer_transducer(folder: Path) -> Path:
    """A streaming zipformer2 transducer: its decoder forbids to say the last two tokens
    again.
    """
    folder.mkdir(parents=True)
    _zipformer(folder / "encoder-epoch-99-avg-1.onnx")
    forbidding = -1000 * np.eye(BANDS + 1, dtype=np.float32)
    forbidding[0] = 0
    _save(
        folder / "decoder-epoch-99-avg-1.onnx",
        [
            helper.make_node("Gather", ["forbidding", "y"], ["each"], axis=0),
            helper.make_node("ReduceSum", ["each", "axis1"], ["decoder_out"], keepdims=0),
        ],
        [_value("y", ["N", 2], TensorProto.INT64)], [_value("decoder_out", ["N", BANDS + 1])],
        {"axis1": np.array([1], np.int64), "forbidding": forbidding}, {"context_size": 2, "vocab_size": BANDS + 1},
    )  # fmt: skip
    _save(
        folder / "joiner-epoch-99-avg-1.onnx",
        [helper.make_node("Add", ["encoder_out", "decoder_out"], ["logit"])],
        [_value("encoder_out", ["N", BANDS + 1]), _value("decoder_out", ["N", BANDS + 1])],
        [_value("logit", ["N", BANDS + 1])], {}, {"joiner_dim": BANDS + 1},
    )  # fmt: skip
    _tokens(folder)
    return folder


_MARKS = ("<|zh|>", "<|en|>", "<|NEUTRAL|>", "<|Speech|>", "<|withitn|>", "<|woitn|>")


def make_sense_voice(folder: Path) -> Path:
    """A SenseVoice: four marks (language, mood, event, normalised or not), then a
    result for every 40 ms.
    """
    folder.mkdir(parents=True)
    classes = BANDS + 1 + len(_MARKS)
    zh, en, mood, event, normal, raw = range(BANDS + 1, classes)
    constants: dict[str, NDArray[Any]] = {
        "bands": np.array([0, -1, 4, BANDS, _MELS_PER_BAND], np.int64), "nothing": np.array(0, np.float32),
        "quiet": np.array(QUIET, np.float32), "zero": np.array([0], np.int64), "one": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
        "pads": np.array([0, 0, 0, 0, 0, len(_MARKS)], np.int64), "lowest": np.array(-1000, np.float32),
        "marks": 1000 * np.eye(classes, dtype=np.float32),
        "column": np.array([0, 1], np.int64), "fixed": np.array([[mood, event]], np.int64),
        "none": np.array(0, np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Reshape", ["x", "bands"], ["by_band"]),
        helper.make_node("ReduceMax", ["by_band"], ["loudness"], axes=[2, 4], keepdims=0),
        helper.make_node("Slice", ["loudness", "zero", "one", "axis2"], ["first"]),
        helper.make_node("Mul", ["first", "nothing"], ["nothings"]),
        helper.make_node("Add", ["nothings", "quiet"], ["blank"]),
        helper.make_node("Concat", ["blank", "loudness"], ["heard"], axis=2),
        helper.make_node("Pad", ["heard", "pads", "lowest"], ["results"]),
        helper.make_node("Cast", ["language"], ["language64"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["language64", "minus_column"], ["language_column"]),
        helper.make_node("Cast", ["text_norm"], ["norm64"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["norm64", "minus_column"], ["norm_column"]),
        helper.make_node("Mul", ["language_column", "none"], ["zeros"]),
        helper.make_node("Add", ["zeros", "fixed"], ["fixed_columns"]),
        helper.make_node(
            "Concat", ["language_column", "fixed_columns", "norm_column"], ["ids"], axis=1
        ),
        helper.make_node("Gather", ["marks", "ids"], ["marked"], axis=0),
        helper.make_node("Concat", ["marked", "results"], ["logits"], axis=1),
        helper.make_node("Identity", ["x_length"], ["unused"]),
    ]
    constants["minus_column"] = np.array([-1, 1], np.int64)
    _save(
        folder / "model.onnx", nodes,
        [_value("x", ["N", "T", 320]), *(_value(name, ["N"], TensorProto.INT32) for name in
                                         ("x_length", "language", "text_norm"))],
        [_value("logits", ["N", "T4", classes])], constants,
        {"model_type": "sense_voice_ctc", "comment": "tiny", "vocab_size": classes, "lfr_window_size": 4,
         "lfr_window_shift": 4, "normalize_samples": 1, "with_itn": normal, "without_itn": raw, "lang_auto": en,
         "lang_zh": zh, "lang_en": en, "lang_ja": en, "lang_ko": en, "lang_yue": zh,
         "neg_mean": ",".join(["0"] * 320), "inv_stddev": ",".join(["1"] * 320)},
    )  # fmt: skip
    _tokens(folder, then=_MARKS)
    return folder


def make_vits(folder: Path, speakers: int = 2, *, piper: bool = False) -> Path:
    """A VITS voice: every character is a tone of 100 ms, every speaker speaks an octave
    above the one before.

    ``piper``: its characters are espeak-ng's phonemes.
    """
    folder.mkdir(parents=True)
    letters = " .abcdefghijklmnopqrstuvwxyz"
    if piper:
        letters = "_^$ .,?!" + PIPER_PHONEMES
        (folder / "espeak-ng-data").mkdir()
    frequencies = 200 + 20 * np.arange(len(letters) + 4, dtype=np.float32)
    constants: dict[str, NDArray[Any]] = {
        "frequencies": frequencies, "length_at": np.array(1, np.int64),
        "samples": np.array(SAMPLES_PER_CHARACTER, np.float32), "start": np.array(0, np.float32),
        "step": np.array(1, np.float32), "turn": np.array(2 * np.pi / SPEECH_RATE_HZ, np.float32),
        "row": np.array([1, -1], np.int64), "across": np.array([-1, 1], np.int64),
        "shape": np.array([1, 1, -1], np.int64), "two": np.array(2, np.float32), "half": np.array(0.5, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["scales", "length_at"], ["length"], axis=0),
        helper.make_node("Mul", ["samples", "length"], ["limit"]),
        helper.make_node("Range", ["start", "limit", "step"], ["times"]),
        helper.make_node("Reshape", ["times", "row"], ["times_row"]),
        helper.make_node("Gather", ["frequencies", "input"], ["pitches"], axis=0),
        helper.make_node("Reshape", ["pitches", "across"], ["pitches_column"]),
        helper.make_node("Cast", ["sid"], ["speaker"], to=TensorProto.FLOAT),
        helper.make_node("Pow", ["two", "speaker"], ["octave"]),
        helper.make_node("Mul", ["pitches_column", "octave"], ["voiced"]),
        helper.make_node("Mul", ["voiced", "turn"], ["speeds"]),
        helper.make_node("Mul", ["speeds", "times_row"], ["phases"]),
        helper.make_node("Sin", ["phases"], ["waves"]),
        helper.make_node("Mul", ["waves", "half"], ["quiet"]),
        helper.make_node("Reshape", ["quiet", "shape"], ["output"]),
        helper.make_node("Identity", ["input_lengths"], ["unused"]),
    ]
    _save(
        folder / "tiny.onnx", nodes,
        [_value("input", [1, "L"], TensorProto.INT64), _value("input_lengths", [1], TensorProto.INT64),
         _value("scales", [3]), _value("sid", [1], TensorProto.INT64)],
        [_value("output", [1, 1, "samples_made"])], constants,
        {"model_type": "vits", "comment": "piper" if piper else "coqui", "voice": "en-us", "language": "English",
         "frontend": "" if piper else "characters", "add_blank": int(piper), "has_espeak": 1, "use_eos_bos": 0,
         "n_speakers": speakers, "sample_rate": SPEECH_RATE_HZ, "punctuation": ""},
    )  # fmt: skip
    lines = [f"{letter} {index}\n" for index, letter in enumerate(letters)]
    (folder / "tokens.txt").write_text("".join(lines))
    return folder


def make_ct_punctuation(folder: Path) -> Path:
    """A CT-transformer that puts a full stop at the end, and nothing before it."""
    folder.mkdir(parents=True)
    tokens, marks = ["<unk>", "你", "好"], ["<unk>", "_", "，", "。", "？", "、"]
    nothing = np.zeros(len(marks), np.float32)
    nothing[1] = 1
    _save(
        folder / "model.onnx",
        [
            helper.make_node("Gather", ["scores", "inputs"], ["logits"], axis=0),
            helper.make_node("Identity", ["text_lengths"], ["unused"]),
        ],
        [_value("inputs", ["N", "L"], TensorProto.INT32), _value("text_lengths", ["N"], TensorProto.INT32)],
        [_value("logits", ["N", "L", len(marks)])], {"scores": np.tile(nothing, (len(tokens), 1))},
        {"model_type": "ct_transformer", "tokens": "|".join(tokens), "vocab_size": len(tokens),
         "punctuations": "|".join(marks), "unk_symbol": "<unk>"},
    )  # fmt: skip
    return folder
