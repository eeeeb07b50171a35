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
INSTRUCTIONS_BY_LANGUAGE: Mapping[str, str] = {
    "zh": (
        "你正在用语音和人对话：对方说的话以文字形式给你，你写的内容会被朗读出来。"
        "请用中文回答，像平时说话一样，用一到三个短句。只写普通的句子，"
        "不要用列表、标题、表格、代码或表情符号。如果没听明白，就问一句。"
    )
}
"""Instructed in English, the pulled chat models at times answer Chinese in English, or
say again what they were told.
"""

_EARS = ("faster-whisper-base", "faster-whisper-tiny.en")
_CHAT = ("qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-0.5b-instruct")
_ENGLISH_VOICE = "piper-en_US-joe-medium"
_VOICES = "kokoro-v1.0-int8"
_CHINESE_VOICE = "zf_xiaobei"
_TURN = "smart-turn-v3.2"
_TURN_FILE = "smart-turn-v3.2-cpu.onnx"
_MODULES = {
    "faster_whisper": ("faster_whisper", "opencc"),
    "kokoro": ("misaki", "wetext"),
    "llama_cpp": ("xllamacpp",),
    "piper": ("piper",),
}
"""Modules without which a provider cannot work, of those that the extra ``local``
installs.
"""

_Section = dict[str, object]


@dataclass(frozen=True, slots=True)
class LocalModels:
    """The pulled models as parts of a configuration."""

    services: Mapping[str, Mapping[str, Mapping[str, object]]] = field(default_factory=dict)
    """Sections of ``asr``, ``llm`` and ``tts`` by name, ``default`` among them, as far
    as there are models.
    """
    turn_model: str = ""
    """The file of the end-of-turn model; empty: none."""
    unused: tuple[str, ...] = ()
    """Models that are there, while what runs them is not installed."""


def find_local_models(folder: Path) -> LocalModels:
    """Look for the models of the shipped bundles in the folder of pulled models."""
    unused: list[str] = []

    def first(provider: str, *names: str) -> str:
        found = next((name for name in names if (folder / name).is_dir()), "")
        if found and not all(map(find_spec, _MODULES[provider])):
            unused.append(found)
            return ""
        return found

    ears, chat = first("faster_whisper", *_EARS), first("llama_cpp", *_CHAT)
    english, voices = first("piper", _ENGLISH_VOICE), first("kokoro", _VOICES)
    services: dict[str, dict[str, _Section]] = {}
    if ears:
        # Told which languages come, Whisper mistakes none for another one.
        language = ["zh", "en"] if voices and not ears.endswith(".en") else "en"
        section: _Section = {"provider": "faster_whisper", "model": ears, "language": language}
        services["asr"] = {"default": section}
    if chat:
        services["llm"] = {"default": {"provider": "llama_cpp", "model": chat}}
    kokoro: _Section = {"provider": "kokoro", "model": voices}
    piper: _Section = {"provider": "piper", "model": english}
    if voices and english:
        # Piper speaks English eight times as fast as Kokoro.
        chinese = {"service": "kokoro", "voice": _CHINESE_VOICE}
        services["tts"] = {"default": piper | {"by_language": {"zh": chinese}}, "kokoro": kokoro}
    elif voices:
        services["tts"] = {"default": kokoro | {"by_language": {"zh": _CHINESE_VOICE}}}
    elif english:
        services["tts"] = {"default": piper}
    turn_file = folder / _TURN / _TURN_FILE
    turn_model = str(turn_file) if turn_file.is_file() else ""
    return LocalModels(services=services, turn_model=turn_model, unused=tuple(unused))


def start_hint(providers: Mapping[str, str], models: LocalModels) -> str | None:
    """Say in one sentence what local models would bring; None where a service is
    configured, or they are in use.

    ``providers``: those of the default services, by kind.
    """
    if models.unused:
        return (
            f"{', '.join(models.unused)}: pulled, and not used until what runs it is installed: "
            f"{INSTALL}"
        )
    if providers != {"asr": "pocketsphinx", "llm": "builtin", "tts": "espeak"}:
        return None
    return (
        "the embedded models are small; for neural voices, recognition that errs seldom and a "
        f"language model, all on this machine, in English and Chinese: {INSTALL} && {PULL} (1.4 GB)"
    )
