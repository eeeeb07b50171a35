"""The call of sherpa-onnx that loads each kind of model, decided before anything is
loaded.

A plan is plain data, because it is also sent to another process: given a file that it
cannot use, sherpa-onnx ends its process (``SHERPA_ONNX_EXIT`` in its macros.h).
`sherpa_trial` tries a plan in a child process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.sherpa_files import ModelFiles

PROVIDER = "sherpa_onnx"

Punctuate: TypeAlias = Callable[[str], str]
"""Adds punctuation to a final text."""


@dataclass(frozen=True, slots=True)
class SherpaPlan:
    """One call of sherpa-onnx: ``OnlineRecognizer.method``,
    ``OfflineRecognizer.method`` or ``OfflineTts``.
    """

    task: str
    """``streaming``, ``whole`` or ``speech``, as in `ModelKind`."""
    method: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognizerOptions:
    """The settings of a recogniser that affect loading. Each kind uses those that it
    supports.
    """

    threads: int = 1
    language: str = ""
    hotwords_file: str = ""
    hotwords_score: float = 1.5
    modeling_unit: str = ""
    bpe_vocab: str = ""
    normalise: bool = True
    """SenseVoice: write punctuation and digits."""
    pause_ms: int = 700
    max_sentence_ms: int = 30_000


_STREAMING_METHODS = {
    "streaming-transducer": "from_transducer",
    "streaming-paraformer": "from_paraformer",
    "streaming-zipformer2-ctc": "from_zipformer2_ctc",
    "streaming-nemo-ctc": "from_nemo_ctc",
    "streaming-wenet-ctc": "from_wenet_ctc",
}
_WHOLE_METHODS = {
    "transducer": "from_transducer",
    "nemo-transducer": "from_transducer",
    "sense-voice": "from_sense_voice",
    "paraformer": "from_paraformer",
    "whisper": "from_whisper",
    "moonshine": "from_moonshine",
    "zipformer-ctc": "from_zipformer_ctc",
    "nemo-ctc": "from_nemo_ctc",
    "wenet-ctc": "from_wenet_ctc",
}
KINDS_WITH_HOTWORDS = frozenset({"streaming-transducer", "transducer"})
KINDS_WITH_LANGUAGE = frozenset({"sense-voice", "whisper"})


def plan_streaming(model: ModelFiles, options: RecognizerOptions) -> SherpaPlan:
    """Plan a recogniser that decodes while the audio arrives."""
    arguments: dict[str, Any] = dict(model.paths)
    arguments |= {
        "num_threads": options.threads,
        "enable_endpoint_detection": True,
        "rule2_min_trailing_silence": options.pause_ms / 1000,
        # Before any word is recognised, an endpoint only resets the decoder's state.
        "rule1_min_trailing_silence": max(2.4, options.pause_ms / 1000),
        "rule3_min_utterance_length": options.max_sentence_ms / 1000,
    }
    if model.kind in KINDS_WITH_HOTWORDS:
        arguments |= _hotwords(options)
    return SherpaPlan("streaming", _STREAMING_METHODS[model.kind], arguments)


def plan_whole(model: ModelFiles, options: RecognizerOptions) -> SherpaPlan:
    """Plan a recogniser that decodes an utterance when it is complete."""
    arguments: dict[str, Any] = dict(model.paths) | {"num_threads": options.threads}
    match model.kind:
        case "sense-voice":
            arguments |= {"language": options.language, "use_itn": options.normalise}
        case "whisper":
            # Empty: the model detects the language.
            arguments |= {"language": options.language, "enable_token_timestamps": False}
        case "paraformer":
            arguments["paraformer"] = arguments.pop("model")
        case "transducer":
            arguments |= _hotwords(options)
        case "nemo-transducer":
            arguments["model_type"] = "nemo_transducer"
        case _:
            pass
    return SherpaPlan("whole", _WHOLE_METHODS[model.kind], arguments)


def reads_by_itself(model: ModelFiles) -> bool:
    """Return whether a synthesiser can pronounce text, by a lexicon or by its letters.

    sherpa-onnx itself has no espeak-ng since 2.0: voices trained on its phonemes
    (Piper's) must be given them.
    """
    return "data_dir" not in model.paths or "lexicon" in model.paths


def plan_speech(model: ModelFiles, *, threads: int) -> SherpaPlan:
    """Plan a synthesiser."""
    paths = dict(model.paths)
    paths.pop("data_dir", None)  # a requirement of the model, which sherpa-onnx ignores
    rules = {role: paths.pop(role) for role in ("rule_fsts", "rule_fars") if role in paths}
    return SherpaPlan("speech", model.kind, {"files": paths, "threads": threads, "rules": rules})


def _hotwords(options: RecognizerOptions) -> dict[str, Any]:
    if not options.hotwords_file:
        return {}
    wanted = {
        "hotwords_file": options.hotwords_file,
        "hotwords_score": options.hotwords_score,
        # Greedy search does not support hotwords.
        "decoding_method": "modified_beam_search",
        "modeling_unit": options.modeling_unit,
        "bpe_vocab": options.bpe_vocab,
    }
    return {key: value for key, value in wanted.items() if value != ""}


def load(plan: SherpaPlan) -> Any:
    """Load the model; blocks, for seconds if it is large, with the interpreter lock
    released.

    Returns sherpa-onnx's ``OnlineRecognizer``, ``OfflineRecognizer`` or ``OfflineTts``.
    Raises what sherpa-onnx raises.
    """
    import sherpa_onnx

    if plan.task == "streaming":
        return getattr(sherpa_onnx.OnlineRecognizer, plan.method)(**plan.arguments)
    if plan.task == "whole":
        return getattr(sherpa_onnx.OfflineRecognizer, plan.method)(**plan.arguments)
    return sherpa_onnx.OfflineTts(speech_config(plan))


def speech_config(plan: SherpaPlan) -> Any:
    """Return sherpa-onnx's ``OfflineTtsConfig`` for a plan of a synthesiser."""
    import sherpa_onnx

    of_kind = {
        "vits": sherpa_onnx.OfflineTtsVitsModelConfig,
        "kokoro": sherpa_onnx.OfflineTtsKokoroModelConfig,
        "kitten": sherpa_onnx.OfflineTtsKittenModelConfig,
        "matcha": sherpa_onnx.OfflineTtsMatchaModelConfig,
    }[plan.method](**plan.arguments["files"])
    model = sherpa_onnx.OfflineTtsModelConfig(
        **{plan.method: of_kind}, num_threads=plan.arguments["threads"]
    )
    # One sentence per callback, so that it is sent, and the work can stop, after each.
    return sherpa_onnx.OfflineTtsConfig(model=model, max_num_sentences=1, **plan.arguments["rules"])


def phoneme_settings(sentences: list[str], speaker: int, speed: float) -> Any:
    """Return sherpa-onnx's ``GenerationConfig`` for sentences of phonemes."""
    import sherpa_onnx

    settings = sherpa_onnx.GenerationConfig()
    settings.sid, settings.speed = speaker, speed
    settings.phoneme_codepoints = [[ord(phoneme) for phoneme in sentence] for sentence in sentences]
    return settings


def load_recognizer(
    plan: SherpaPlan, punctuate: Callable[[], Punctuate] | None
) -> tuple[Any, Punctuate]:
    """Load a recogniser and its punctuation. Raises `ProviderError` (BROKEN)."""
    try:
        return load(plan), punctuate() if punctuate is not None else str
    except Exception as error:
        raise ProviderError(
            PROVIDER, FailureKind.BROKEN, f"the model cannot be loaded: {error}"
        ) from error


def load_synthesizer(plan: SherpaPlan) -> Any:
    """Load a synthesiser. Raises `ProviderError` (BROKEN)."""
    try:
        return load(plan)
    except Exception as error:
        raise ProviderError(
            PROVIDER, FailureKind.BROKEN, f"the model cannot be loaded: {error}"
        ) from error


def plan_punctuation(folder: Path, threads: int) -> Callable[[], Punctuate]:
    """Find the punctuation model in ``folder``; returns a function that loads it.
    Raises `ConfigError`.

    Two kinds: one for Chinese and English (CT-transformer), and one for English with
    capital letters (CNN-BiLSTM).
    """
    models = sorted(folder.glob("model*.onnx"), key=lambda path: ".int8." not in path.name)
    if not models:
        raise ConfigError(
            f"punctuation: {folder} holds no model*.onnx; "
            "'voicechat models list' shows what can be pulled"
        )
    model, vocabulary = str(models[0]), folder / "bpe.vocab"

    def load_english() -> Punctuate:
        import sherpa_onnx

        of_kind = sherpa_onnx.OnlinePunctuationModelConfig(
            cnn_bilstm=model, bpe_vocab=str(vocabulary), num_threads=threads
        )
        loaded = sherpa_onnx.OnlinePunctuation(
            sherpa_onnx.OnlinePunctuationConfig(model_config=of_kind)
        )
        return lambda text: str(loaded.add_punctuation_with_case(text))

    def load_both() -> Punctuate:
        import sherpa_onnx

        of_kind = sherpa_onnx.OfflinePunctuationModelConfig(
            ct_transformer=model, num_threads=threads
        )
        loaded = sherpa_onnx.OfflinePunctuation(sherpa_onnx.OfflinePunctuationConfig(model=of_kind))
        return lambda text: str(loaded.add_punctuation(text))

    return load_english if vocabulary.is_file() else load_both
