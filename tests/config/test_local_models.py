"""What pulled models are used for without a configuration."""

from pathlib import Path

import pytest

from voicechat.config import Config, load_config, local_models
from voicechat.config.local_models import INSTRUCTIONS, find_local_models, start_hint
from voicechat.providers.registry import OURS
from voicechat.store.model_catalogue import read_catalogue

EMBEDDED = {"asr": "pocketsphinx", "llm": "builtin", "tts": "espeak"}
TURN_FILE = Path("models", "smart-turn-v3.2", "smart-turn-v3.2-cpu.onnx")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[str]:
    """The modules of the extra are there; a test may take one away."""
    modules = {"faster_whisper", "misaki", "opencc", "piper", "wetext", "xllamacpp"}
    monkeypatch.setattr(
        local_models, "find_spec", lambda name: object() if name in modules else None
    )
    monkeypatch.chdir(tmp_path)
    return modules


def pull(folder: Path, name: str) -> None:
    """Lay the folders of a bundle's models, and the file of the turn model."""
    for model in read_catalogue().bundles[name].models:
        (folder / "models" / model).mkdir(parents=True)
        if model == "smart-turn-v3.2":
            (folder / TURN_FILE).touch()


def load(folder: Path, text: str = "", **environ: str) -> Config:
    (folder / "mine.toml").write_text(text)
    return load_config(folder / "mine.toml", {"VOICECHAT_DATA_DIR": str(folder), **environ})


def providers(config: Config) -> dict[str, str]:
    return {kind: getattr(config, kind)["default"].provider for kind in EMBEDDED}


def test_without_models_everything_is_embedded_and_the_hint_names_the_commands(
    tmp_path: Path,
) -> None:
    config = load(tmp_path)
    assert providers(config) == EMBEDDED
    assert config.hands_free.turn_model == ""
    assert config.agents.agents["default"].instructions == ""
    hint = start_hint(providers(config), config.local_models)
    assert hint is not None
    assert "pip install 'voicechat[local]' && voicechat models pull local" in hint


def test_a_pulled_bundle_is_used_for_everything(tmp_path: Path) -> None:
    pull(tmp_path, "local")
    config = load(tmp_path)
    models = str(tmp_path / "models")
    assert providers(config) == {"asr": "faster_whisper", "llm": "llama_cpp", "tts": "piper"}
    assert config.asr["default"].arguments == {
        "model": "faster-whisper-base",
        "models_dir": models,
        "language": ["zh", "en"],
    }
    assert config.llm["default"].arguments["model"] == "qwen2.5-coder-1.5b-instruct"
    assert config.tts["default"].arguments["model"] == "piper-en_US-joe-medium"
    chosen = config.tts["default"].by_language.chosen
    assert {language: (voice.service, voice.voice) for language, voice in chosen.items()} == {
        "zh": ("kokoro", "zf_xiaobei")
    }
    assert config.tts["kokoro"].arguments["model"] == "kokoro-v1.0-int8"
    assert config.hands_free.turn_model == str(tmp_path / TURN_FILE)
    agent = config.agents.agents["default"]
    assert agent.instructions == INSTRUCTIONS
    assert "中文" in agent.instructions_by_language["zh"]
    assert config.llm["default"].arguments["instructions"] == [
        agent.instructions,
        agent.instructions_by_language["zh"],
    ]
    assert start_hint(providers(config), config.local_models) is None


@pytest.mark.parametrize(
    ("bundle", "chat", "voice", "language"),
    [
        ("local-en", "qwen2.5-coder-1.5b-instruct", "piper-en_US-joe-medium", "en"),
        ("local-zh", "qwen2.5-coder-1.5b-instruct", "kokoro-v1.0-int8", ["zh", "en"]),
        ("local-small", "qwen2.5-coder-0.5b-instruct", "piper-en_US-joe-medium", ["zh", "en"]),
    ],
)
def test_the_services_suit_the_bundle(
    tmp_path: Path, bundle: str, chat: str, voice: str, language: object
) -> None:
    pull(tmp_path, bundle)
    config = load(tmp_path)
    assert config.llm["default"].arguments["model"] == chat
    assert config.tts["default"].arguments["model"] == voice
    assert config.asr["default"].arguments["language"] == language


def test_what_is_configured_stays(tmp_path: Path) -> None:
    pull(tmp_path, "local")
    config = load(
        tmp_path,
        '[asr.default]\nlanguage = "en"\n[tts.other]\nprovider = "espeak"\n'
        '[hands_free]\nturn_model = ""\n[agents.default]\ninstructions = "Be brief."\n',
        OPENAI_API_KEY="sk-12345678",
    )
    assert providers(config) == {"asr": "pocketsphinx", "llm": "openai", "tts": "piper"}
    assert config.hands_free.turn_model == ""
    agent = config.agents.agents["default"]
    assert (agent.instructions, agent.instructions_by_language) == ("Be brief.", {})
    assert "instructions" not in config.llm["default"].arguments
    own = load(tmp_path, '[agents.default]\ninstructions = "Be brief."\n')
    assert own.llm["default"].arguments["instructions"] == ["Be brief."]
    remote = load(tmp_path, OPENAI_API_KEY="sk-12345678")
    assert remote.agents.agents["default"].instructions == ""


def test_a_model_without_what_runs_it_is_not_used_and_the_hint_names_it(
    tmp_path: Path, installed: set[str]
) -> None:
    pull(tmp_path, "local")
    installed.remove("wetext")
    config = load(tmp_path)
    assert set(config.tts) == {"default"}
    assert config.asr["default"].arguments["language"] == "en"
    hint = start_hint(providers(config), config.local_models)
    assert hint is not None
    assert hint.startswith("kokoro-v1.0-int8: pulled, and not used until")
    installed.clear()
    config = load(tmp_path)
    assert providers(config) == EMBEDDED
    hint = start_hint(providers(config), config.local_models)
    assert hint is not None
    assert hint.endswith("is installed: pip install 'voicechat[local]'")


def test_nothing_is_said_where_a_service_is_configured(tmp_path: Path) -> None:
    models = find_local_models(tmp_path)
    assert start_hint({**EMBEDDED, "llm": "openai"}, models) is None


@pytest.mark.parametrize("bundle", sorted(read_catalogue().bundles))
def test_the_providers_are_those_of_the_catalogue_and_exist(tmp_path: Path, bundle: str) -> None:
    pull(tmp_path, bundle)
    catalogue = read_catalogue()
    services = find_local_models(tmp_path / "models").services
    assert set(services) == set(EMBEDDED)
    for kind, sections in services.items():
        for section in sections.values():
            assert section["provider"] == catalogue.models[str(section["model"])].provider
            assert section["provider"] in OURS[kind]  # type: ignore[index]
