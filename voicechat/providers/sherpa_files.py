"""Detects the kind of a sherpa-onnx model in a folder, and the role of each of its
files.
"""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from voicechat.errors import ConfigError
from voicechat.voice.onnx_file import NotOnnxError, read_metadata

_TOKENS = {"tokens": ("tokens.txt", "*-tokens.txt")}
_THREE = {
    "encoder": ("encoder*.onnx",),
    "decoder": ("decoder*.onnx",),
    "joiner": ("joiner*.onnx",),
    **_TOKENS,
}
_MODEL = {"model": ("model*.onnx", "*.onnx"), **_TOKENS}


@dataclass(frozen=True, slots=True)
class ModelKind:
    """A kind of model: for each role, patterns of file names of which the first match
    is used.
    """

    task: str
    """``streaming`` and ``whole`` recognise, ``speech`` synthesises."""
    files: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    floats: frozenset[str] = frozenset()
    """Roles for which the 8-bit integer file makes too many errors."""


_SPEECH_EXTRAS = {
    "data_dir": ("espeak-ng-data",),
    # A second English lexicon (lexicon-gb-en.txt) would contradict the first.
    "lexicon": ("lexicon.txt", "lexicon-us-en.txt", "lexicon-zh.txt"),
    # The order matters: a telephone number must not be read as a date, nor a date as a
    # number.
    "rule_fsts": ("phone*.fst", "date*.fst", "number*.fst", "new_heteronym*.fst"),
    "rule_fars": ("*.far",),
}

KINDS: dict[str, ModelKind] = {
    "streaming-transducer": ModelKind("streaming", _THREE, floats=frozenset({"decoder"})),
    "streaming-paraformer": ModelKind(
        "streaming", {"encoder": ("encoder*.onnx",), "decoder": ("decoder*.onnx",), **_TOKENS}
    ),
    "streaming-zipformer2-ctc": ModelKind("streaming", _MODEL),
    "streaming-nemo-ctc": ModelKind("streaming", _MODEL),
    "streaming-wenet-ctc": ModelKind("streaming", {"model": ("model-streaming*.onnx",), **_TOKENS}),
    "transducer": ModelKind("whole", _THREE, floats=frozenset({"decoder"})),
    "nemo-transducer": ModelKind("whole", _THREE, floats=frozenset({"decoder"})),
    "sense-voice": ModelKind("whole", _MODEL),
    "paraformer": ModelKind("whole", _MODEL),
    "whisper": ModelKind(
        "whole", {"encoder": ("*encoder*.onnx",), "decoder": ("*decoder*.onnx",), **_TOKENS}
    ),
    "moonshine": ModelKind(
        "whole",
        {
            "preprocessor": ("preprocess*.onnx",),
            "encoder": ("encode*.onnx",),
            "uncached_decoder": ("uncached_decode*.onnx",),
            "cached_decoder": ("cached_decode*.onnx",),
            **_TOKENS,
        },
    ),
    "zipformer-ctc": ModelKind("whole", _MODEL),
    "nemo-ctc": ModelKind("whole", _MODEL),
    "wenet-ctc": ModelKind("whole", {"model": ("model.onnx", "model.int8.onnx"), **_TOKENS}),
    "vits": ModelKind("speech", _MODEL, _SPEECH_EXTRAS),
    "kokoro": ModelKind("speech", {**_MODEL, "voices": ("voices*.bin",)}, _SPEECH_EXTRAS),
    "kitten": ModelKind("speech", {**_MODEL, "voices": ("voices*.bin",)}, _SPEECH_EXTRAS),
    "matcha": ModelKind(
        "speech",
        {
            "acoustic_model": ("model-steps*.onnx", "model*.onnx"),
            "vocoder": ("vocos*.onnx", "hifigan*.onnx"),
            **_TOKENS,
        },
        _SPEECH_EXTRAS,
    ),
}
SEVERAL = frozenset({"lexicon", "rule_fsts", "rule_fars"})
"""Roles that several files may have. sherpa-onnx takes their names separated by commas.
"""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model: its kind and its files by role."""

    kind: str
    paths: Mapping[str, str]


def find_model(
    model: str,
    *,
    kind: str | None,
    int8: bool,
    models_dir: str,
    tasks: frozenset[str],
    given: Mapping[str, str] | None = None,
) -> ModelFiles:
    """Find the model ``model`` of one of ``tasks``: a folder, or the name of one in
    ``models_dir``.

    ``kind``: None detects it from the files. ``given``: files that need not be in the
    folder.

    Raises `ConfigError` naming the key, the value and what to do.
    """
    folder = _folder(model, models_dir)
    names = sorted(path.name for path in folder.iterdir())
    detected = kind or _detect_kind(folder, names)
    if detected not in KINDS:
        raise ConfigError(f"kind: {detected!r} is not one of {_of(tasks)}")
    if KINDS[detected].task not in tasks:
        raise ConfigError(
            f"model: {folder} is of the kind {detected!r}, which cannot be used here; "
            f"allowed: {_of(tasks)}"
        )
    given = given or {}
    for role, path in given.items():
        if role not in KINDS[detected].files:
            raise ConfigError(
                f"{role}: a model of the kind {detected!r} has none; leave the key out"
            )
        if not Path(path).is_file():
            raise ConfigError(f"{role}: there is no file {path!r}")
    return ModelFiles(detected, _paths(folder, names, KINDS[detected], int8, given))


def _folder(model: str, models_dir: str) -> Path:
    given = Path(model).expanduser()
    if given.is_dir():
        return given
    is_name = given.name == model and bool(models_dir)
    if is_name and (pulled := Path(models_dir) / model).is_dir():
        return pulled
    where = f", nor in {models_dir}" if is_name else ""
    raise ConfigError(
        f"model: there is no folder {model!r}{where}; "
        f"'voicechat models list' shows what 'voicechat models pull NAME' can fetch"
    )


def _detect_kind(folder: Path, names: list[str]) -> str:
    """Detect the kind by the names of the files and, if they are ambiguous, by the
    models' metadata.
    """
    if fnmatch.filter(names, "preprocess*.onnx"):
        return "moonshine"
    if fnmatch.filter(names, "model-steps*.onnx"):
        return "matcha"
    encoders, models = fnmatch.filter(names, "*encoder*.onnx"), fnmatch.filter(names, "*.onnx")
    first = next(iter(encoders or models), None)
    said = {} if first is None else _metadata(folder / first)
    model_type = said.get("model_type", "")
    if fnmatch.filter(names, "voices*.bin"):
        return "kitten" if model_type.startswith("kitten") else "kokoro"
    if fnmatch.filter(names, "joiner*.onnx"):
        return _transducer_kind(said, model_type)
    detected = _kind_of_type(said, model_type, cut_in_two=bool(encoders))
    if detected is None:
        kinds = ", ".join(KINDS)
        raise ConfigError(
            f"kind: the files in {folder} do not tell what model they are; "
            f"set kind to one of {kinds}"
        )
    return detected


def _transducer_kind(said: Mapping[str, str], model_type: str) -> str:
    if "decode_chunk_len" in said or "chunk_shift" in said or model_type == "lstm":
        return "streaming-transducer"
    return "nemo-transducer" if model_type.startswith("EncDec") else "transducer"


def _kind_of_type(said: Mapping[str, str], model_type: str, *, cut_in_two: bool) -> str | None:
    streaming = "decode_chunk_len" in said or "chunk_shift" in said
    if model_type.startswith("whisper"):
        return "whisper"
    if model_type == "paraformer" or (
        "lfr_window_size" in said and model_type != "sense_voice_ctc"
    ):
        return "streaming-paraformer" if cut_in_two else "paraformer"
    if model_type.startswith("zipformer2"):
        return "streaming-zipformer2-ctc" if streaming else "zipformer-ctc"
    if model_type.startswith("EncDec"):
        return "streaming-nemo-ctc" if streaming else "nemo-ctc"
    if model_type.endswith("vits"):
        return "vits"
    return {"sense_voice_ctc": "sense-voice", "wenet_ctc": "wenet-ctc", "matcha-tts": "matcha"}.get(
        model_type
    )


def _metadata(path: Path) -> dict[str, str]:
    try:
        return read_metadata(path)
    except NotOnnxError as error:
        raise ConfigError(
            f"model: {error}; fetch it again ('voicechat models pull NAME')"
        ) from error
    except OSError as error:
        raise ConfigError(f"model: {path} cannot be read: {error.strerror}") from error


def _paths(
    folder: Path, names: list[str], kind: ModelKind, int8: bool, given: Mapping[str, str]
) -> dict[str, str]:
    paths = dict(given)
    for role, patterns in kind.files.items():
        if role in given:
            continue
        fitting = next(filter(None, (fnmatch.filter(names, pattern) for pattern in patterns)), [])
        if not fitting:
            raise ConfigError(
                f"model: {folder} lacks {' or '.join(patterns)}; "
                "fetch it again ('voicechat models pull NAME'), "
                f"or set kind if it is a model of another kind"
            )
        paths[role] = str(folder / _preferred(folder, fitting, int8 and role not in kind.floats))
    for role, patterns in kind.optional.items():
        found = [
            str(folder / name) for pattern in patterns for name in fnmatch.filter(names, pattern)
        ]
        if found:
            paths[role] = ",".join(found if role in SEVERAL else found[:1])
    return paths


def _preferred(folder: Path, names: list[str], int8: bool) -> str:
    """Choose between a model and its 8-bit integer variant. If there are more files,
    the user must choose.
    """
    wanted = [name for name in names if (".int8." in name or "-int8" in name) == int8] or names
    if len(wanted) > 1:
        raise ConfigError(f"model: {folder} holds {', '.join(wanted)}; leave one of them there")
    return wanted[0]


def _of(tasks: frozenset[str]) -> str:
    return ", ".join(name for name, kind in KINDS.items() if kind.task in tasks)
