"""Kokoro's voices in process (onnxruntime), English and Chinese, also mixed.

The packages are an extra: ``pip install 'voicechat[local]'``. See
``docs/providers/kokoro.md``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from voicechat.errors import ConfigError
from voicechat.providers.kokoro_phonemes import ESPEAK_VOICES
from voicechat.providers.model_process import (
    ModelProcess,
    default_threads,
    model_path,
    need_package,
)
from voicechat.providers.model_speech import ProcessSynthesizer

PROVIDER = "kokoro"

RATE_HZ = 24_000
LEAST_CLAUSE_MS = 900
"""Kokoro takes half of the speech's length to compute it, so a sentence of 6 s would
begin after 3 s. A clause of one second begins after half a second. Shorter clauses
sound cut off.
"""
DEFAULT_VOICES = ("af_heart", "zf_xiaobei")
_ARCHIVES = ("voices-v1.0.bin", "voices.npz")


@dataclass(frozen=True, slots=True, kw_only=True)
class KokoroOptions:
    """The options of the child process."""

    model: str
    voices: str
    """A folder of ``NAME.bin`` files, or an archive of arrays."""
    threads: int
    niceness: int


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
    """Open the synthesiser; `start` or the first sentence loads the model.

    ``model``: a folder with one ``.onnx`` file and the voices, ``voices/NAME.bin`` or
    ``voices-v1.0.bin``, as published; or its name in ``models_dir``. ``voice``: the
    default. The other keys are the same as Piper's. Raises `ConfigError` naming the
    key, the value and what to do.
    """
    need_package("misaki", PROVIDER)
    folder = model_path(model, models_dir)
    files = sorted(folder.glob("*.onnx")) if folder.is_dir() else [folder]
    if len(files) != 1:
        held = ", ".join(file.name for file in files) or "none"
        raise ConfigError(f"model: {model!r} must hold one .onnx file; it holds {held}")
    voices_at = _voices_at(files[0].parent, model)
    names = _voice_names(voices_at)
    first = voice or next((name for name in DEFAULT_VOICES if name in names), names[0])
    if first not in names:
        raise ConfigError(f"voice: {voice!r} is not one of {', '.join(names)}")
    options = KokoroOptions(
        model=str(files[0]),
        voices=str(voices_at),
        threads=threads or default_threads(),
        niceness=niceness,
    )
    process = ModelProcess(
        PROVIDER,
        "voicechat.providers.kokoro_worker",
        options,
        jobs=sentences,
        wait_ms=wait_ms,
        model=options.model,
    )
    return ProcessSynthesizer(
        PROVIDER,
        process,
        voices=(first, *(name for name in names if name != first)),
        rate_hz=RATE_HZ,
        least_clause_ms=LEAST_CLAUSE_MS,
    )


def _voices_at(folder: Path, model: str) -> Path:
    places = [folder / "voices", *(folder / name for name in _ARCHIVES)]
    for place in places:
        if place.exists():
            return place
    raise ConfigError(
        f"model: {model!r} has no voices: a folder voices/ with NAME.bin files, or "
        "voices-v1.0.bin, as Kokoro's are published"
    )


def _voice_names(place: Path) -> list[str]:
    """Return the voices whose language is supported."""
    if place.is_dir():
        found = sorted(file.stem for file in place.glob("*.bin"))
    else:
        try:
            with np.load(place) as archive:
                found = sorted(archive.files)
        except (OSError, ValueError) as error:
            raise ConfigError(f"model: {str(place)!r} holds no voices: {error}") from error
    names = [name for name in found if name[:1] in ESPEAK_VOICES and name[2:3] == "_"]
    if not names:
        raise ConfigError(f"model: {str(place)!r} holds no voice of a language that can be read")
    return names
