import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from voicechat.errors import ConfigError
from voicechat.providers.builtin import BuiltinChatModel
from voicechat.providers.openai_chat import OpenAIChatModel
from voicechat.providers.registry import FACTORY_NAMES, OURS, Kind, find_factory


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_plug_in.py").write_text(
        "def open_recognizer(*, language: str, beams: int = 1):\n    return language, beams\n"
        "not_a_function = 1\nclass Recognizer: ...\n",
        encoding="utf-8",
    )
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_missing\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return "my_plug_in:open_recognizer"


def test_ours_are_found_and_opened() -> None:
    assert isinstance(find_factory("llm", "builtin")(), BuiltinChatModel)
    assert isinstance(find_factory("llm", "openai")(model="m"), OpenAIChatModel)
    for kind, names in OURS.items():
        for name in names:
            assert find_factory(kind, name).__name__ == FACTORY_NAMES[kind]


def test_services_elsewhere_are_opened_with_what_a_file_can_hold() -> None:
    table: dict[str, object] = {
        "api_key": "k",
        "parameters": {"seed": 7, "hot_fix": {"replace": [{"a": "b"}]}},
    }
    cases: list[tuple[str, tuple[Kind, ...], dict[str, object]]] = [
        ("dashscope", ("asr", "tts"), {"api_key": "k"}),
        ("dashscope", ("asr", "tts"), table),
        ("dashscope", ("tts",), {"api_key": "k", "voices": ["a", "b"], "sample_rate_hz": 16000}),
        ("dashscope", ("asr",), {"api_key": "k", "language_hints": ["zh"]}),
        ("funasr", ("asr",), {"hotwords": "a,b"}),
        ("wyoming", ("asr", "tts"), {"uri": "tcp://[::1]:10300"}),
    ]
    for provider, kinds, options in cases:
        for kind in kinds:
            assert hasattr(find_factory(kind, provider)(**options), "aclose")
    with pytest.raises(ConfigError, match="api_key: missing"):
        find_factory("asr", "dashscope")()
    with pytest.raises(ConfigError, match="voices: Tuple should have at least 1 item"):
        find_factory("tts", "dashscope")(api_key="k", voices=[])


def test_a_key_by_its_old_name_is_taken_for_one_release(caplog: pytest.LogCaptureFixture) -> None:
    find_factory("tts", "wyoming")(uri="tcp://127.0.0.1:1", silence_ms=5)
    assert "silence_ms is now called read_timeout_ms" in caplog.text
    with pytest.raises(
        ConfigError, match="read_timeout_ms: Input should be greater than or equal to 1"
    ):
        find_factory("llm", "openai")(model="m", silence_ms=0)
    with pytest.raises(ConfigError, match="silence_ms: is the old name of read_timeout_ms"):
        find_factory("llm", "openai")(model="m", silence_ms=1, read_timeout_ms=1)
    with pytest.raises(ConfigError, match="silence_ms: unknown key"):
        find_factory("tts", "openai")(model="m", silence_ms=1)


def test_anybodys_factory_takes_the_other_keys(plug_in: str) -> None:
    assert find_factory("asr", plug_in)(language="zh", beams=4) == ("zh", 4)
    # Environment variables are text.
    assert find_factory("asr", plug_in)(language="zh", beams="4") == ("zh", 4)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "language: missing"),
        ({"language": "zh", "colour": "red"}, "colour: unknown key"),
        ({"language": "zh", "beams": "many"}, "beams: Input should be a valid integer"),
        ({"beams": "many"}, "language: missing; beams: Input should be"),
    ],
)
def test_a_wrong_key_is_named(plug_in: str, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        find_factory("asr", plug_in)(**options)


def test_values_are_checked_by_the_factorys_bounds() -> None:
    with pytest.raises(ConfigError, match="rate_wpm: Input should be less than or equal to 450"):
        find_factory("tts", "espeak")(rate_wpm=1000)
    with pytest.raises(ConfigError, match="workers: Input should be greater than or equal to 1"):
        find_factory("asr", "pocketsphinx")(workers=0)


@pytest.mark.parametrize(
    ("provider", "complaint"),
    [
        ("whisper", "'whisper' is not one of pocketsphinx"),
        ("", "'' is not one of pocketsphinx"),
        ("no_such_module:factory", "needs the Python package 'no_such_module'"),
        ("needs_more:factory", "needs the Python package 'a_package_that_is_missing'"),
        ("my_plug_in:missing", "'my_plug_in' has no function 'missing'"),
        ("my_plug_in:not_a_function", "has no function 'not_a_function'"),
        ("my_plug_in:Recognizer", "has no function 'Recognizer'"),
        (":factory", "cannot be imported"),
        ("my_plug_in:", "has no function ''"),
    ],
)
def test_a_wrong_provider_is_explained(plug_in: str, provider: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        find_factory("asr", provider)


def test_espeak_enters_the_process_only_when_it_is_opened() -> None:
    program = """
import sys
from voicechat.providers.registry import find_factory
find_factory("tts", "espeak")
find_factory("asr", "pocketsphinx")
sys.exit("espeakng_loader" in sys.modules or "pocketsphinx" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
