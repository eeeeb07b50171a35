"""Local models by sherpa-onnx on the CPU: recognition (streaming, or of whole
utterances) and synthesis.

The package is an extra: ``pip install 'voicechat[sherpa]'``. ``voicechat models pull
NAME`` fetches models.
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from voicechat.audio.pause_detection import PAUSE_MS
from voicechat.errors import ConfigError, ProviderError
from voicechat.providers.espeak_library import open_library
from voicechat.providers.espeak_phonemes import sentences_of_phonemes
from voicechat.providers.sherpa_files import KINDS, ModelFiles, find_model
from voicechat.providers.sherpa_loading import (
    KINDS_WITH_HOTWORDS,
    KINDS_WITH_LANGUAGE,
    Punctuate,
    RecognizerOptions,
    plan_punctuation,
    plan_speech,
    plan_streaming,
    plan_whole,
    reads_by_itself,
)
from voicechat.providers.sherpa_slots import ConcurrencySlots
from voicechat.providers.sherpa_speech import SherpaSynthesizer
from voicechat.providers.sherpa_streaming import SherpaStreamingRecognizer
from voicechat.providers.sherpa_whole import SherpaWholeRecognizer
from voicechat.providers.utterances import PARTIAL_EVERY_MS, Schedule
from voicechat.voice.onnx_file import read_metadata

TAIL_MS = 660
"""The look-ahead of the streaming zipformers is below this."""
MAX_SENTENCE_MS = 28_000
"""Whisper and similar models take at most 30 s of audio."""

_RECOGNITION = frozenset({"streaming", "whole"})
_SPEECH = frozenset({"speech"})


def open_recognizer(  # noqa: PLR0913 - one for each setting
    *,
    model: str,
    kind: str | None = None,
    models_dir: str = "",
    int8: bool = True,
    threads: Annotated[int, Field(ge=1, le=64)] = 1,
    language: str = "",
    hotwords: str = "",
    hotwords_score: Annotated[float, Field(gt=0, le=100)] = 1.5,
    modeling_unit: str = "",
    bpe_vocab: str = "",
    normalise: bool = True,
    punctuation: str = "",
    pause_ms: Annotated[int, Field(ge=100, le=10_000)] = PAUSE_MS,
    partial_every_ms: Annotated[int, Field(ge=0, le=60_000)] = PARTIAL_EVERY_MS,
    tail_ms: Annotated[int, Field(ge=0, le=5_000)] = TAIL_MS,
    streams: Annotated[int, Field(ge=1, le=10_000)] = 200,
    wait_ms: Annotated[int, Field(ge=0, le=60_000)] = 3_000,
    trial: bool = True,
) -> SherpaStreamingRecognizer | SherpaWholeRecognizer:
    """Open a recogniser; `start` or the first stream loads its model.

    ``model``: a folder, or a name that ``voicechat models pull`` fetched into
    ``models_dir``. ``kind``: of the model, if its files are ambiguous. ``int8``: prefer
    the smaller files. ``threads``: for one call of the model. ``language``: for
    SenseVoice and Whisper; empty: they detect it. ``hotwords``: a file of phrases to
    expect, one a line, for transducers, with ``hotwords_score``, ``modeling_unit`` and
    ``bpe_vocab`` as in sherpa-onnx's documentation. ``normalise``: SenseVoice writes
    digits and punctuation. ``punctuation``: a punctuation model, as ``model``, for
    final texts. ``pause_ms``: silence that ends a sentence. ``partial_every_ms``: how
    often an open utterance is recognised by a model of whole ones; 0: never.
    ``tail_ms``: silence that a streaming model gets at the end, for its look-ahead.
    ``streams``: concurrent streams; another one waits for ``wait_ms``. ``trial``: try
    the model in another process first, because an unusable file makes sherpa-onnx end
    its process.

    Raises `ConfigError` naming the key, the value and what to do.
    """
    _need_package()
    found = find_model(model, kind=kind, int8=int8, models_dir=models_dir, tasks=_RECOGNITION)
    _check_options(found, language=language, hotwords=hotwords, bpe_vocab=bpe_vocab)
    options = RecognizerOptions(
        threads=threads, language=language, hotwords_file=hotwords, hotwords_score=hotwords_score,
        modeling_unit=modeling_unit, bpe_vocab=bpe_vocab, normalise=normalise,
        pause_ms=pause_ms, max_sentence_ms=MAX_SENTENCE_MS,
    )  # fmt: skip
    punctuate = _punctuation(punctuation, models_dir, threads)
    seats = ConcurrencySlots(streams, wait_ms)
    if KINDS[found.kind].task == "streaming":
        plan = plan_streaming(found, options)
        return SherpaStreamingRecognizer(
            plan, seats=seats, tail_ms=tail_ms, trial=trial, punctuate=punctuate
        )
    schedule = Schedule(
        pause_ms=pause_ms, partial_every_ms=partial_every_ms, max_utterance_ms=MAX_SENTENCE_MS
    )
    plan = plan_whole(found, options)
    return SherpaWholeRecognizer(
        plan, seats=seats, schedule=schedule, trial=trial, punctuate=punctuate
    )


def open_synthesizer(  # noqa: PLR0913 - one for each setting
    *,
    model: str,
    kind: str | None = None,
    models_dir: str = "",
    int8: bool = True,
    vocoder: str = "",
    voice: str = "",
    voices: Mapping[str, int] | None = None,
    threads: Annotated[int, Field(ge=1, le=64)] = 1,
    sentences: Annotated[int, Field(ge=1, le=64)] = 2,
    trial: bool = True,
) -> SherpaSynthesizer:
    """Open a synthesiser; `start` or the first sentence loads its model.

    ``model``, ``kind``, ``models_dir``, ``int8``, ``trial``: as for a recogniser.
    ``vocoder``: a Matcha model's second half (``vocos-22khz-univ.onnx``), if it is not
    in the model's folder. ``voice``: the default, a name or number of the model's
    speakers. ``voices``: more names for speakers, by their numbers. ``threads``: for
    one sentence. ``sentences``: spoken at once; others wait.

    Raises `ConfigError` naming the key, the value and what to do.
    """
    _need_package()
    given = {"vocoder": vocoder} if vocoder else {}
    found = find_model(
        model, kind=kind, int8=int8, models_dir=models_dir, tasks=_SPEECH, given=given
    )
    said = read_metadata(Path(found.paths.get("model") or found.paths["acoustic_model"]))
    return SherpaSynthesizer(
        plan_speech(found, threads=threads),
        voices=_voices(said, voice, voices or {}),
        sentences=sentences,
        trial=trial,
        phonemize=None if reads_by_itself(found) else _phonemizer(said.get("voice") or "en-us"),
    )


def _need_package() -> None:
    if importlib.util.find_spec("sherpa_onnx") is None:
        raise ConfigError(
            "provider: 'sherpa_onnx' needs a package: pip install 'voicechat[sherpa]'"
        )


def _check_options(found: ModelFiles, *, language: str, hotwords: str, bpe_vocab: str) -> None:
    if language and found.kind not in KINDS_WITH_LANGUAGE:
        raise ConfigError(
            f"language: a model of the kind {found.kind!r} knows what it knows; leave the key out"
        )
    if hotwords and found.kind not in KINDS_WITH_HOTWORDS:
        allowed = " and ".join(sorted(KINDS_WITH_HOTWORDS))
        raise ConfigError(f"hotwords: a model of the kind {found.kind!r} takes none; {allowed} do")
    for key, path in (("hotwords", hotwords), ("bpe_vocab", bpe_vocab)):
        if path and not Path(path).is_file():
            raise ConfigError(f"{key}: there is no file {path!r}")


def _punctuation(punctuation: str, models_dir: str, threads: int) -> Callable[[], Punctuate] | None:
    if not punctuation:
        return None
    folders = [Path(punctuation).expanduser(), Path(models_dir) / punctuation]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise ConfigError(
            f"punctuation: there is no folder {punctuation!r}; "
            "'voicechat models list' shows what can be pulled"
        )
    return plan_punctuation(folder, threads)


def _phonemizer(voice: str) -> Callable[[str], list[str]]:
    try:
        library = open_library()
    except (ModuleNotFoundError, ProviderError) as error:
        raise ConfigError(
            f"model: it speaks espeak-ng's phonemes: pip install espeakng-loader (GPL-3), "
            f"or choose a model with a lexicon ({error})"
        ) from error
    return lambda text: sentences_of_phonemes(library, text, voice)


def _voices(said: Mapping[str, str], voice: str, extra: Mapping[str, int]) -> dict[str, int]:
    """Name the speakers: by the model's names (``speaker2id``), or else by number."""
    count = max(int(said.get("n_speakers", "1")), 1)
    pairs = [pair.partition("->") for pair in said.get("speaker2id", "").split(",") if "->" in pair]
    names = {name.strip(): int(number) for name, _, number in pairs} or {
        str(index): index for index in range(count)
    }
    for name, number in extra.items():
        if not 0 <= number < count:
            raise ConfigError(
                f"voices.{name}: {number} is no speaker of the model; it has 0 to {count - 1}"
            )
    names |= extra
    if voice and voice not in names:
        raise ConfigError(f"voice: {voice!r} is not one of {', '.join(names)}")
    return ({voice: names[voice]} if voice else {}) | names
