import re
from dataclasses import fields
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tests.config.told import Told
from voicechat.config import Config, ServiceConfig, build_services, load_config, open_service
from voicechat.errors import ConfigError
from voicechat.runtime.fallback.chat import ChatChain
from voicechat.runtime.fallback.policy import ServicePolicy
from voicechat.runtime.language_voices import LanguageVoices
from voicechat.runtime.speech_cache import CachingSynthesizer
from voicechat.server.rest.transcription_settings import TranscriptionSettings, configured
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.limits import SessionLimits
from voicechat.store.tasks.on_demand import TaskSettings


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(toml: str = "", **environ: str) -> Config:
    path = Path("given.toml")
    path.write_text(toml, encoding="utf-8")
    return load_config(path, environ)


def test_without_a_file_everything_is_embedded() -> None:
    config = load_config(None, {})
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8000)
    assert config.llm["default"] == ServiceConfig(provider="builtin")
    assert config.asr["default"] == ServiceConfig(provider="pocketsphinx")
    assert config.tts["default"] == ServiceConfig(provider="espeak")
    assert config.limits == SessionLimits()
    assert config.api_key is None
    assert config.file is None


def test_the_file_is_the_given_one_else_the_environments_else_the_directorys() -> None:
    for name, port in (("a.toml", 1), ("b.toml", 2), ("voicechat.toml", 3)):
        Path(name).write_text(f"[server]\nport = {port}\n")
    assert load_config(Path("a.toml"), {"VOICECHAT_CONFIG": "b.toml"}).server.port == 1
    assert load_config(None, {"VOICECHAT_CONFIG": "b.toml"}).server.port == 2
    assert load_config(None, {}).server.port == 3


def test_the_environment_lies_over_the_file_and_the_command_line_over_both() -> None:
    Path("voicechat.toml").write_text('[server]\nport = 1\nhost = "::1"\n')
    environ = {"VOICECHAT_SERVER__PORT": "2", "VOICECHAT_SERVER__DRAIN_S": "1.5"}
    config = load_config(None, environ, {"server": {"port": 3}})
    assert (config.server.port, config.server.drain_s, config.server.host) == (3, 1.5, "::1")
    assert load_config(None, environ).server.port == 2


def test_environment_values_are_toml_or_else_strings() -> None:
    config = load(
        VOICECHAT_SERVER__HOST="192.168.0.1",
        VOICECHAT_SERVER__ALLOWED_ORIGINS='["https://a.example", "https://b.example"]',
        VOICECHAT_COMPAT__STRICT_PING="true",
        VOICECHAT_LLM__FAST__PROVIDER="openai",
        VOICECHAT_LLM__FAST__MODEL="qwen3:8b",
        VOICECHAT_LLM__FAST__SINCE="2024-01-01",
        VOICECHAT_LLM__FAST__NOTE="1\nother = 2",
    )
    assert config.server.host == "192.168.0.1"
    assert config.server.allowed_origins == ("https://a.example", "https://b.example")
    assert config.compat.strict_ping is True
    assert config.llm["fast"].arguments == {
        "model": "qwen3:8b",
        "since": "2024-01-01",
        "note": "1\nother = 2",
    }


def test_variables_that_are_not_settings_are_left_alone() -> None:
    # Kubernetes sets these for a service called voicechat.
    config = load(VOICECHAT_PORT="tcp://10.0.0.1:80", VOICECHAT_SERVICE_HOST="10.0.0.1")
    assert config.server.port == 8000


def test_key_and_data_directory_come_from_the_environment(tmp_path: Path) -> None:
    config = load(VOICECHAT_API_KEY="secret-of-the-house", VOICECHAT_DATA_DIR=str(tmp_path / "d"))
    assert config.api_key == "secret-of-the-house"
    assert config.data_dir == tmp_path / "d"
    assert "secret-of-the-house" not in repr(config)


def test_a_service_keeps_its_other_keys_as_arguments_and_does_not_show_them() -> None:
    config = load('[asr.mine]\nprovider = "my.asr:open"\nlanguage = "zh-CN-x"\nbeam = 4\n')
    assert config.asr["mine"].arguments == {"language": "zh-CN-x", "beam": 4}
    assert "zh-CN-x" not in repr(config)
    assert "default" in config.asr


def test_a_secret_is_named_not_written() -> None:
    toml = '[llm.default]\nprovider = "openai"\nmodel = "m"\napi_key_env = "MY_KEY"\n'
    assert load(toml, MY_KEY="k").llm["default"].arguments == {"model": "m", "api_key": "k"}
    with pytest.raises(ConfigError, match=r"llm\.default\.api_key_env: 'MY_KEY'"):
        load(toml)


def test_openai_variables_give_the_default_model_unless_one_is_configured() -> None:
    by_key = load(OPENAI_API_KEY="k").llm["default"]
    assert by_key.provider == "openai"
    assert by_key.arguments == {
        "base_url": "https://api.openai.com/v1",
        "api_key": "k",
        "model": "gpt-4o-mini",
    }
    by_url = load(OPENAI_BASE_URL="http://127.0.0.1:11434/v1", OPENAI_MODEL="qwen3").llm["default"]
    assert by_url.arguments == {
        "base_url": "http://127.0.0.1:11434/v1",
        "api_key": "",
        "model": "qwen3",
    }
    assert (
        load('[llm.default]\nprovider = "builtin"\n', OPENAI_API_KEY="k").llm["default"].provider
        == "builtin"
    )


def test_a_default_without_provider_is_the_embedded_one_with_arguments() -> None:
    assert load("[asr.default]\nworkers = 1\n").asr["default"] == ServiceConfig.model_validate(
        {"provider": "pocketsphinx", "workers": 1}
    )


def test_every_limit_can_be_set() -> None:
    wanted = {limit.name: number for number, limit in enumerate(fields(SessionLimits), 7)}
    toml = "[limits]\n" + "\n".join(f"{name} = {value}" for name, value in wanted.items())
    assert load(toml).limits == SessionLimits(**wanted)
    assert load("[limits]\nearly_replies_wasted = 0\n").limits.early_replies_wasted == 0


@pytest.mark.parametrize(
    ("toml", "lines"),
    [
        (
            "[server]\nprot = 1\n",
            ["server.prot: no such key; did you mean port? (allowed: host, port, "],
        ),
        ('[server]\nport = "80"\n', ["server.port: '80' is not allowed; it should be"]),
        (
            "[server]\nport = 65536\n",
            ["server.port: 65536 is not allowed; it should be less than or equal to 65535"],
        ),
        (
            "[limits]\nidle_ms = 0\n",
            ["limits.idle_ms: 0 is not allowed; it should be greater than or equal to 1"],
        ),
        ("[limits]\nidle = 1\n", ["limits.idle: no such key; did you mean idle_ms?"]),
        (
            '[compat]\nchat_update_reply = "x"\n',
            ["'x' is not allowed; it should be 'chat.updated' or 'chat.update'"],
        ),
        ("[sever]\nport = 1\n", ["sever: no such key; did you mean server?"]),
        ("[asr.mine]\nlanguage = 'zh'\n", ["asr.mine.provider: missing"]),
        ("asr = 1\n", ["asr: 1 is not allowed; it should be"]),
        ("asr.default = 1\n", ["asr.default: 1 is not allowed"]),
        ("server = 1\n", ["server: 1 is not allowed"]),
        ("[server]\nport = -1\nhost = ''\n", ["server.host: '' is not", "server.port: -1 is not"]),
    ],
)
def test_each_mistake_is_one_line_with_path_value_and_what_is_allowed(
    toml: str, lines: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(toml)
    told = str(raised.value).splitlines()
    assert len(told) == len(lines)
    for line, expected in zip(told, lines, strict=True):
        assert expected in line


def test_unreadable_files_are_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load_config(Path("nowhere.toml"), {})
    with pytest.raises(ConfigError, match="not valid TOML"):
        load("[server\n")
    Path("binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(Path("binary.toml"), {})


def test_clashing_variables_are_named() -> None:
    with pytest.raises(ConfigError, match="VOICECHAT_SERVER__PORT__X"):
        load(VOICECHAT_SERVER__PORT="1", VOICECHAT_SERVER__PORT__X="1")


def test_transcription_is_configured() -> None:
    config = load(
        """
        [transcription]
        folder = "/srv/recordings"
        database_url_env = "TASKS_DATABASE"
        workers = 4
        keep_hours = 0.5
        allowed_networks = ["10.1.0.0/16", "fd00::/8"]
        allowed_ports = [443, 8443]
        """,
        TASKS_DATABASE="postgresql://me:secret@db/tasks",
    )
    section = config.transcription
    assert (section.folder, section.workers, section.keep_hours) == ("/srv/recordings", 4, 0.5)
    assert section.database_url == "postgresql://me:secret@db/tasks"
    assert "secret" not in repr(config)
    assert section.allowed_networks == (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    settings = configured(config)
    assert settings.tasks.folder == Path("/srv/recordings")
    assert (settings.tasks.database_url, settings.tasks.workers) == (section.database_url, 4)
    assert settings.fetch.allows(ip_address("10.1.2.3"))
    assert not settings.fetch.allows(ip_address("10.2.0.1"))
    assert settings.fetch.ports == {443, 8443}
    assert settings.keep_s == 1800


def test_without_a_section_transcription_has_the_contracts_limits() -> None:
    settings = configured(load_config(None, {"VOICECHAT_DATA_DIR": "data"}))
    assert settings == TranscriptionSettings(tasks=TaskSettings(folder=Path("data/tasks")))
    assert settings.disk.file_bytes == settings.fetch.max_bytes == 1024**3
    assert settings.max_audio_ms == 5 * 3_600_000


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (
            'allowed_networks = ["10.1.0.1/16"]',
            r"allowed_networks.0: '10.1.0.1/16' is not allowed; .*'10.1.0.0/16'",
        ),
        ("allowed_networks = [7]", "allowed_networks.0: 7 is not allowed"),
        ("allowed_ports = []", "allowed_ports: "),
        ("allowed_ports = [80, 0]", "allowed_ports.1: 0 is not allowed"),
        (
            'database_url = "mysql://me:secret@a/b"',
            "database_url: the value is not allowed; .*postgresql://",
        ),
        ('database_url_env = "NOT_SET"', "transcription.database_url_env: 'NOT_SET'"),
        ("workers = 0", "workers: 0 is not allowed"),
        ("keep_hours = 0", "keep_hours: 0 is not allowed"),
        ("worker = 2", "no such key; did you mean workers"),
    ],
)
def test_mistakes_of_the_section_are_named(line: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as refused:
        load(f"[transcription]\n{line}")
    assert str(refused.value).startswith("transcription.")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(("mib", "kept"), [("8", True), ("0", False)])
def test_each_voice_keeps_its_own_speech_unless_it_may_not(mib: str, kept: bool) -> None:
    environ = {
        "VOICECHAT_SERVER__SPEECH_CACHE_MIB": mib,
        "VOICECHAT_TTS__OTHER__PROVIDER": "espeak",
    }
    voices = [
        link.provider
        for link in build_services(load_config(environ=environ)).links
        if "tts." in link.name
    ]
    assert len(set(map(id, voices))) == 2
    assert [isinstance(voice, CachingSynthesizer) for voice in voices] == [kept] * 2


CHAIN = """
[llm.default]
provider = "builtin"
fallback = ["b"]
max_streams = 4
queue_s = 1
attempt_s = 1.5
breaker_failures = 2
[llm.b]
provider = "builtin"
fallback = ["c"]
[llm.c]
provider = "builtin"
"""


def test_a_service_has_its_fallbacks_and_its_policy_and_the_provider_does_not_see_them() -> None:
    service = load(CHAIN).llm["default"]
    assert service.fallback == ("b",)
    assert service.policy == ServicePolicy(
        max_streams=4, queue_s=1.0, attempt_s=1.5, breaker_failures=2
    )
    assert service.arguments == {}
    assert load().llm["default"].policy == ServicePolicy()


def test_a_chain_is_opened_with_one_link_for_each_service() -> None:
    services = build_services(load(CHAIN, VOICECHAT_LIMITS__FIRST_TOKEN_MS="2000"))
    chain = services.models["default"]
    assert isinstance(chain, ChatChain)
    assert [link.name for link in chain.links] == ["llm.default", "llm.b", "llm.c"]
    other = services.models["b"]
    assert isinstance(other, ChatChain)
    assert other.links == chain.links[1:], (
        "the same ones: what is known of a service is known to all"
    )
    assert [link.policy.max_streams for link in chain.links] == [4, None, None]
    assert sorted(link.name for link in services.links) == [
        "asr.default",
        "llm.b",
        "llm.c",
        "llm.default",
        "tts.default",
    ]


@pytest.mark.parametrize(
    ("fallback", "complaint"),
    [
        (
            '["x"]',
            r"llm\.a\.fallback: there is no service 'x' of this kind \(configured: a, b, default\)",
        ),
        ('["a"]', r"llm\.a\.fallback: a would be its own fallback: a -> a"),
        ('["b"]', r"llm\.a\.fallback: a would be its own fallback: a -> b -> a"),
        ('"b"', r"llm\.a\.fallback: 'b' is not allowed; it should be"),
        ("[1]", r"llm\.a\.fallback\.0: 1 is not allowed; it should be"),
    ],
)
def test_a_fallback_that_cannot_be_stops_the_start(fallback: str, complaint: str) -> None:
    first = f'[llm.a]\nprovider = "builtin"\nfallback = {fallback}\n'
    services = first + '[llm.b]\nprovider = "builtin"\nfallback = ["a"]\n'
    with pytest.raises(ConfigError, match=complaint):
        load(services)


async def test_a_voice_has_others_for_other_languages() -> None:
    config = load(
        '[tts.default]\nprovider = "espeak"\nby_language = { en = "en-gb", zh = { service = "other" } }\n'
        '[tts.other]\nprovider = "espeak"\n'
    )
    services = build_services(config)
    assert isinstance(services.synthesizers["default"], LanguageVoices)
    assert sorted(link.name for link in services.links if link.name.startswith("tts")) == [
        "tts.default",
        "tts.other",
    ]
    assert "by_language" not in config.tts["default"].arguments


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ('[tts.default]\nby_language = { fr = "a" }\n', r"tts\.default\.by_language"),
        (
            '[tts.default]\nprovider = "espeak"\nby_language = { zh = "nobody" }\n',
            r"tts\.default\.by_language\.zh: tts\.default has no voice 'nobody'",
        ),
        (
            '[tts.default]\nprovider = "espeak"\nby_language = { zh = { service = "x" } }\n',
            r"tts\.default\.by_language\.zh: there is no service tts\.x",
        ),
        (
            '[llm.default]\nprovider = "builtin"\nby_language = { zh = "a" }\n',
            r"llm\.default\.by_language: only tts services have voices",
        ),
    ],
)
def test_a_voice_by_language_that_cannot_be_stops_the_start(toml: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        build_services(load(toml))


def test_services_have_other_names() -> None:
    config = load(
        '[llm.default]\nalso = ["Qwen2.5-32B-Instruct"]\n[tts.a]\nprovider = "espeak"\nalso = '
        '["*"]\n'
    )
    services = build_services(config)
    assert services.model("model", "Qwen2.5-32B-Instruct").name == "default"
    assert services.synthesizer("easyllm_id", "whatever").name == "a"
    assert services.synthesizer("easyllm_id", "default").name == "default"
    assert "also" not in config.llm["default"].arguments


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        (
            '[llm.a]\nprovider = "builtin"\nalso = ["default"]\n',
            'llm.a.also: "default" is the name of a service',
        ),
        (
            '[tts.a]\nprovider = "espeak"\nalso = ["*"]\n[tts.b]\nprovider = "espeak"\nalso = '
            '["x", "*"]\n',
            'tts.b.also: "*" is an alias of a already',
        ),
        ('[asr.default]\nalso = [""]\n', "asr.default.also.0: "),
        ('[asr.default]\nalso = "x"\n', "asr.default.also: "),
    ],
)
def test_a_name_means_one_service(toml: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        load(toml)


def test_the_apology_can_be_worded_and_switched_off() -> None:
    assert load().apology.spoken == FallbackMessage()
    assert load('[apology]\nen = "Sorry."\n').apology.spoken == FallbackMessage(en="Sorry.")
    assert load("[apology]\nenabled = false\n").apology.spoken is None
    with pytest.raises(ConfigError, match=r"apology\.fr: no such key"):
        load('[apology]\nfr = "Pardon."\n')


def test_origins_are_web_origins() -> None:
    config = load(
        '[server]\nallowed_origins = ["https://a.example/", "null", "*", "capacitor://localhost"]\n'
    )
    assert config.server.allowed_origins == (
        "https://a.example",
        "null",
        "*",
        "capacitor://localhost",
    )
    for wrong in ("a.example", "https://a.example/path", "https://", "*.example"):
        with pytest.raises(
            ConfigError, match=r"server\.allowed_origins\.0: .*it should be an origin such as"
        ):
            load(f'[server]\nallowed_origins = ["{wrong}"]\n')


def test_proxies_are_networks() -> None:
    assert load('[server]\ntrusted_proxies = ["10.0.0.0/8"]\n').server.trusted_proxies == (
        ip_network("10.0.0.0/8"),
    )
    with pytest.raises(ConfigError, match=r"server\.trusted_proxies\.0: 'nginx' is not allowed"):
        load('[server]\ntrusted_proxies = ["nginx"]\n')


def test_a_byte_order_mark_before_the_file_is_no_part_of_it() -> None:
    path = Path("windows.toml")
    path.write_bytes(b"\xef\xbb\xbf[server]\r\nport = 1\r\n")
    assert load_config(path, {}).server.port == 1


@pytest.mark.parametrize("text", ["12345", "1e5", "true", "0x1f", "1_000", "[1]", "1.50"])
def test_a_variable_that_looks_like_something_else_is_a_text_where_a_text_is_wanted(
    text: str,
) -> None:
    config = load(
        VOICECHAT_LLM__DEFAULT__PROVIDER="tests.config.told:open_told",
        VOICECHAT_LLM__DEFAULT__API_KEY=text,
        VOICECHAT_LLM__DEFAULT__LIMIT="4",
        VOICECHAT_LLM__DEFAULT__OTHER="4",
        VOICECHAT_LLM__DEFAULT__MAX_STREAMS="4",
        VOICECHAT_APOLOGY__EN=text,
        VOICECHAT_SERVER__PORT="9",
    )
    assert config.apology.en == text
    assert (config.server.port, config.llm["default"].max_streams) == (9, 4)
    assert open_service("llm", "default", config.llm["default"]) == Told(text, 4, 4)


def test_a_key_of_a_table_that_looks_like_something_else_is_a_text_too() -> None:
    config = load(
        VOICECHAT_LLM__DEFAULT__PROVIDER="tests.config.told:open_told",
        VOICECHAT_LLM__DEFAULT__API_KEY="k",
        VOICECHAT_LLM__DEFAULT__HEADERS__X_A="007",
        VOICECHAT_LLM__DEFAULT__HEADERS__X_B="nine",
    )
    opened = open_service("llm", "default", config.llm["default"])
    assert opened == Told("k", 1, None, {"x_a": "007", "x_b": "nine"})


def test_a_variable_of_a_wrong_type_is_still_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"server\.port: 'x' is not allowed"):
        load(VOICECHAT_SERVER__PORT="x")
    config = load(
        VOICECHAT_LLM__DEFAULT__PROVIDER="tests.config.told:open_told",
        VOICECHAT_LLM__DEFAULT__API_KEY="1",
        VOICECHAT_LLM__DEFAULT__LIMIT="[1]",
    )
    with pytest.raises(ConfigError, match=r"llm\.default: limit: Input should be a valid number"):
        open_service("llm", "default", config.llm["default"])


def test_the_key_of_the_environment_has_no_line_break() -> None:
    assert load(VOICECHAT_API_KEY=" key-from-a-file\n").api_key == "key-from-a-file"
    assert load(VOICECHAT_API_KEY=" \n").api_key is None


def test_the_key_of_the_metrics_is_long_enough_and_never_shown() -> None:
    assert (
        load("[server]\nmetrics_key_env = 'SCRAPER'\n", SCRAPER="a-long-secret").server.metrics_key
        == "a-long-secret"
    )
    with pytest.raises(
        ConfigError, match=r"server\.metrics_key: the value is not allowed; .*8 characters"
    ):
        load('[server]\nmetrics_key = "short"\n')
    assert "a-long-secret" not in repr(load('[server]\nmetrics_key = "a-long-secret"\n'))
