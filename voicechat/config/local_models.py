"""What pulled models are used for where nothing is configured, and what is said at the
start while there are none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

INSTALL = "pip install 'voicechat[local]'"
PULL = "voicechat models pull local"

INSTRUCTIONS = (
    "You are talking with someone by voice: what they say reaches you as text, and what you "
    "write is read aloud. Answer in the language they speak, in one to three short sentences, as "
    "people talk. Write plain sentences only: no lists, headings, tables, code or emoji. If "
    "something is unclear, ask."
)
"""Of the agent ``default`` with a pulled chat model. Without them, chat models answer
in long lists, which cannot be listened to.
"""

_EARS = ("faster-whisper-base", "faster-whisper-tiny.en")
_CHAT = ("qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-0.5b-instruct")
_ENGLISH_VOICE = "piper-en_US-joe-medium"
_VOICES = "kokoro-v1.0-int8"
_CHINESE_VOICE = "zf_xiaobei"
_TURN = "smart-turn-v3.2"
_TURN_FILE = "smart-turn-v3.2-cpu.onnx"
_RUNTIMES = ("faster_whisper", "misaki", "piper", "xllamacpp")
"""Modules that the extra ``local`` installs, one for each provider."""


@dataclass(frozen=True, slots=True)
class LocalModels:
    """The pulled models as parts of a configuration."""

    services: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """The section ``default`` of ``asr``, ``llm`` and ``tts``, as far as there are
    models.
    """
    turn_model: str = ""
    """The file of the end-of-turn model; empty: none."""
    runtime_missing: bool = False
    """Models are there, and what runs them is not installed; ``services`` is empty."""


def find_local_models(folder: Path) -> LocalModels:
    """Look for the models of the shipped bundles in the folder of pulled models."""

    def first(*names: str) -> str:
        return next((name for name in names if (folder / name).is_dir()), "")

    ears, chat, voice = first(*_EARS), first(*_CHAT), first(_VOICES, _ENGLISH_VOICE)
    services: dict[str, dict[str, object]] = {}
    if ears:
        # Told which languages come, Whisper mistakes none for another one.
        language = ["zh", "en"] if voice == _VOICES and not ears.endswith(".en") else "en"
        services["asr"] = {"provider": "faster_whisper", "model": ears, "language": language}
    if chat:
        services["llm"] = {"provider": "llama_cpp", "model": chat}
    if voice:
        provider = "kokoro" if voice == _VOICES else "piper"
        services["tts"] = {"provider": provider, "model": voice}
        if voice == _VOICES:
            services["tts"]["by_language"] = {"zh": _CHINESE_VOICE}
    turn_file = folder / _TURN / _TURN_FILE
    turn_model = str(turn_file) if turn_file.is_file() else ""
    if services and not all(map(find_spec, _RUNTIMES)):
        return LocalModels(turn_model=turn_model, runtime_missing=True)
    return LocalModels(services=services, turn_model=turn_model)


def start_hint(providers: Mapping[str, str], models: LocalModels) -> str | None:
    """Say in one sentence what local models would bring; None where a service is
    configured, or they are in use.

    ``providers``: those of the default services, by kind.
    """
    if models.runtime_missing:
        return f"models are pulled, and not used until what runs them is installed: {INSTALL}"
    if providers != {"asr": "pocketsphinx", "llm": "builtin", "tts": "espeak"}:
        return None
    return (
        "the embedded models are small; for neural voices, recognition that errs seldom and a "
        f"language model, all on this machine, in English and Chinese: {INSTALL} && {PULL} (1.4 GB)"
    )
