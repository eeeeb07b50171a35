"""Piper's voices in process, by piper-tts (onnxruntime) on the CPU.

The packages are an extra: ``pip install 'voicechat[local]'``. See
``docs/providers/piper.md``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from voicechat.errors import ConfigError
from voicechat.providers.model_process import (
    ModelProcess,
    default_threads,
    model_path,
    need_package,
)
from voicechat.providers.model_speech import ProcessSynthesizer

PROVIDER = "piper"

LEAST_CLAUSE_MS = 4_000
"""Piper computes speech twenty times faster than real time, so only long sentences are
cut.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PiperOptions:
    """The options of the child process."""

    model: str
    threads: int
    niceness: int
    speakers: Mapping[str, int]


def open_synthesizer(
    *,
    model: str,
    models_dir: str = "",
    voice: str = "",
    threads: Annotated[int, Field(ge=1, le=64)] | None = None,
    sentences: Annotated[int, Field(ge=1, le=64)] = 16,
    wait_ms: Annotated[int, Field(ge=0, le=60_000)] = 10_000,
    niceness: Annotated[int, Field(ge=0, le=19)] = 5,
) -> ProcessSynthesizer:
    """Open the synthesiser; `start` or the first sentence loads its voice.

    ``model``: a voice as published, ``NAME.onnx`` with ``NAME.onnx.json`` beside it, or
    the folder that holds these two, or its name in ``models_dir``. ``voice``: the
    default of a voice file with several speakers. ``threads``: of one clause; unset:
    the cores, at most 4. ``sentences``: concurrent sentences, which take turns; another
    one waits for ``wait_ms``. ``niceness``: of the child process. Raises `ConfigError`
    naming the key, the value and what to do.
    """
    need_package("piper", PROVIDER)
    path = _voice_file(model_path(model, models_dir), model)
    config = _read_config(path)
    speakers = _speakers(config, path.name.removesuffix(".onnx"))
    if voice and voice not in speakers:
        raise ConfigError(f"voice: {voice!r} is not one of {', '.join(speakers)}")
    options = PiperOptions(
        model=str(path),
        threads=threads or default_threads(),
        niceness=niceness,
        speakers=speakers,
    )
    process = ModelProcess(
        PROVIDER,
        "voicechat.providers.piper_worker",
        options,
        jobs=sentences,
        wait_ms=wait_ms,
        model=options.model,
    )
    voices = ((voice,) if voice else ()) + tuple(name for name in speakers if name != voice)
    return ProcessSynthesizer(
        PROVIDER,
        process,
        voices=voices,
        rate_hz=_rate_hz(config, path),
        least_clause_ms=LEAST_CLAUSE_MS,
    )


def _voice_file(path: Path, model: str) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*.onnx"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ConfigError(
            f"model: the folder {model!r} must hold one voice, NAME.onnx with NAME.onnx.json; "
            f".onnx files: {names}"
        )
    return found[0]


def _read_config(path: Path) -> Mapping[str, object]:
    described = path.with_name(path.name + ".json")
    try:
        config = json.loads(described.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"model: {described.name!r} is missing beside {str(path)!r}; "
            "Piper's voices are published with it"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"model: {str(described)!r} cannot be read: {error}") from error
    if not isinstance(config, dict) or "phoneme_id_map" not in config:
        raise ConfigError(f"model: {str(described)!r} describes no voice of Piper's")
    return config


def _speakers(config: Mapping[str, object], name: str) -> dict[str, int]:
    named = config.get("speaker_id_map")
    if isinstance(named, dict) and named:
        return {str(speaker): int(number) for speaker, number in named.items()}
    return {name: 0}


def _rate_hz(config: Mapping[str, object], path: Path) -> int:
    audio = config.get("audio")
    rate_hz = audio.get("sample_rate") if isinstance(audio, dict) else None
    if not isinstance(rate_hz, int) or not 8_000 <= rate_hz <= 192_000:
        raise ConfigError(f"model: {path.name}.json: audio.sample_rate: {rate_hz!r}")
    return rate_hz
