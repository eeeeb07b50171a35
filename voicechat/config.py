"""The configuration: a TOML file, the environment over it, and the services that it describes.

Nothing else of the package reads the environment. Everything is checked before anything starts: a wrong or unknown key
is a ``ConfigError`` with one line for each mistake: the key's path, its value, what is allowed.
"""

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import platformdirs
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from voicechat.errors import ConfigError
from voicechat.providers.interfaces import SpeechSynthesizer
from voicechat.providers.registry import find_factory
from voicechat.runtime.fallback.chains import chat_chains, order_of, recognition_chains, speech_chains
from voicechat.runtime.fallback.link import Link
from voicechat.runtime.fallback.policy import ServicePolicy
from voicechat.runtime.services import Services
from voicechat.runtime.speech_cache import CachingSynthesizer
from voicechat.runtime.tool_function import Filler, Tool, open_tool
from voicechat.runtime.toolbox import Toolbox
from voicechat.session.apology import Apology
from voicechat.session.limits import SessionLimits
from voicechat.store.model_catalogue import MODELS_FOLDER

DEFAULT_FILE = Path("voicechat.toml")
OPENAI_BASE_URL = "https://api.openai.com/v1"
OPENAI_MODEL = "gpt-4o-mini"
_PREFIX = "VOICECHAT_"
# These look for models by name where "voicechat models pull" puts them.
_MODELS_FOLDER_USERS = ("sherpa_onnx",)
_EMBEDDED = {"llm": "builtin", "asr": "pocketsphinx", "tts": "espeak"}
_POLICY = ServicePolicy()
_APOLOGY = Apology()
_MAX_FILE_BYTES = 1024 * 1024
_MAX_SHOWN_CHARACTERS = 60

ServiceKind: TypeAlias = Literal["asr", "llm", "tts"]

Tree: TypeAlias = dict[str, Any]
"""Nested tables as TOML gives them."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class ServerConfig(_Section):
    """``[server]``: the port and who may come in."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: any free port."""
    workers: Annotated[int, Field(ge=1, le=256)] | None = None
    """Processes that serve. Unset: one for each core; one for each eight where models compute on this machine."""
    max_sessions: Annotated[int, Field(ge=1)] = 500
    """Further sessions are told that the server is at capacity."""
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """How long turns in progress may take to end after SIGTERM."""
    speech_cache_mib: Annotated[int, Field(ge=0, le=65536)] = 8
    """Of each synthesiser, speech that is wanted again and again; 0: always synthesised anew."""
    allowed_origins: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Web origins besides the server's own whose pages may connect: ``https://app.example``."""


class AdmissionConfig(_Section):
    """``[admission]``: from which figures on a process sheds optional work, and refuses newcomers."""

    unquestioned_sessions: Annotated[int, Field(ge=0)] = 4
    """So many a process lets in whatever the figures say."""
    busy_shed_percent: Annotated[float, Field(gt=0)] = 65.0
    """Of all time, that in which the event loop computes or waits for a core; or what the process computes, of the
    cores that are its part, if that is more. Past 100: never."""
    busy_refuse_percent: Annotated[float, Field(gt=0)] = 75.0
    loop_lag_shed_ms: Annotated[float, Field(gt=0)] = 20.0
    """How late the event loop calls what is due."""
    loop_lag_refuse_ms: Annotated[float, Field(gt=0)] = 50.0
    encoding_lag_shed_ms: Annotated[float, Field(gt=0)] = 30.0
    """How long audio waits for an encoder."""
    encoding_lag_refuse_ms: Annotated[float, Field(gt=0)] = 80.0
    detection_lag_shed_ms: Annotated[float, Field(gt=0)] = 60.0
    """How long audio waits for voice detection. A frame is 32 ms, and 10 ms are waited on purpose."""
    detection_lag_refuse_ms: Annotated[float, Field(gt=0)] = 150.0
    waiting_streams_shed: Annotated[int, Field(ge=1)] = 1
    """Streams that wait for a place at a provider."""
    waiting_streams_refuse: Annotated[int, Field(ge=1)] = 2


class CompatConfig(_Section):
    """``[compat]``: behaviour that clients of the original service may rely on."""

    chat_update_reply: Literal["chat.updated", "chat.update"] = "chat.updated"
    strict_ping: bool = False
    """True: only ``ping`` shows that a client is alive."""


class HandsFreeConfig(_Section):
    """``[hands_free]``: how the server finds the end of a turn by itself."""

    turn_model: str = ""
    """The file of a Smart Turn model (ONNX, version 3) that hears whether a turn is finished; none: its words say."""


class ApologyConfig(_Section):
    """``[apology]``: what is said aloud when no chat model answers. An empty text is not said."""

    enabled: bool = True
    zh: Annotated[str, Field(max_length=200)] = _APOLOGY.zh
    en: Annotated[str, Field(max_length=200)] = _APOLOGY.en

    @property
    def spoken(self) -> Apology | None:
        """As the session takes it."""
        return Apology(zh=self.zh, en=self.en) if self.enabled else None


def _network(text: object) -> object:
    if not isinstance(text, str):
        raise ValueError("networks such as '10.1.0.0/16'")
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("a network such as '10.1.0.0/16'") from None


def _database_url(url: str) -> str:
    if url and urlsplit(url).scheme not in ("postgresql", "postgres"):
        raise ValueError("postgresql://..., or empty for SQLite")
    return url


Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_GIB = 1024**3


class TranscriptionConfig(_Section):
    """``[transcription]``: tasks and the recordings that they are about."""

    folder: str = ""
    """For recordings, and for the tasks unless there is a ``database_url``. Empty: ``tasks`` in the data directory."""
    database_url: Annotated[str, AfterValidator(_database_url), Field(repr=False)] = ""
    """``postgresql://...`` for several machines, which then share ``folder`` too; empty: SQLite."""
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Tasks that this server does at once; each of its processes does one at least."""
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 5
    """Attempts that may die with their process before a task fails."""
    keep_hours: Annotated[float, Field(gt=0, le=8760)] = 24.0
    """How long a finished task is kept, and its recording with it."""
    max_recording_bytes: Annotated[int, Field(ge=1)] = _GIB
    max_key_bytes: Annotated[int, Field(ge=1)] = 20 * _GIB
    """Recordings of one key on disk."""
    max_disk_bytes: Annotated[int, Field(ge=1)] = 100 * _GIB
    """Recordings of all keys on disk."""
    max_task_minutes: Annotated[int, Field(ge=1, le=1440)] = 300
    """Length of a task's recording."""
    max_request_minutes: Annotated[int, Field(ge=1, le=1440)] = 30
    """Length of a recording whose client waits for the result."""
    allowed_networks: Annotated[
        tuple[Annotated[Network, BeforeValidator(_network)], ...], BeforeValidator(_as_tuple)
    ] = ()
    """Networks that ``audio_url`` may lead to besides the public ones."""
    allowed_ports: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65535)], ...], Field(min_length=1), BeforeValidator(_as_tuple)
    ] = (80, 443)
    """Ports that ``audio_url`` may name."""


class FillerConfig(_Section):
    """What is said while a tool takes long, by the user's language; one alone serves both."""

    en: str = ""
    zh: str = ""


def _in_both_languages(filler: object) -> object:
    if not isinstance(filler, str | dict):
        raise ValueError("a text, or a table with the keys en and zh")
    return {"en": filler, "zh": filler} if isinstance(filler, str) else filler


class ToolConfig(_Section):
    """``[tools.NAME]``: a Python function that the models may call in conversations."""

    function: Annotated[str, Field(min_length=1)]
    """``package.module:function``, asynchronous or not."""
    description: str = ""
    """For the model; empty: the function's docstring."""
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments; none: from the function's annotations."""
    deadline_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """Past it the model is told that there is no answer."""
    filler: Annotated[FillerConfig, BeforeValidator(_in_both_languages)] = FillerConfig()
    filler_after_ms: Annotated[int, Field(ge=0, le=60_000)] = 1_000


class ServiceConfig(BaseModel):
    """``[llm.NAME]``, ``[asr.NAME]`` or ``[tts.NAME]``: a provider, and its keyword arguments as the other keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", hide_input_in_errors=True)

    provider: Annotated[str, Field(min_length=1)]
    fallback: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Names of services of the same kind that stand in for this one when it fails, in order."""
    max_streams: Annotated[int, Field(ge=1)] | None = None
    """Uses of this service at the same time."""
    queue_s: Annotated[float, Field(ge=0, le=600)] = _POLICY.queue_s
    attempt_s: Annotated[float, Field(gt=0, le=600)] | None = None
    breaker_failures: Annotated[int, Field(ge=1)] = _POLICY.breaker_failures
    breaker_ratio: Annotated[float, Field(gt=0, le=1)] = _POLICY.breaker_ratio
    breaker_pause_s: Annotated[float, Field(gt=0, le=3600)] = _POLICY.breaker_pause_s
    breaker_max_pause_s: Annotated[float, Field(gt=0, le=86_400)] = _POLICY.breaker_max_pause_s

    def __repr__(self) -> str:
        """Without the keyword arguments: one of them may be a secret."""
        return f"ServiceConfig(provider={self.provider!r})"

    @property
    def arguments(self) -> dict[str, object]:
        """The provider's keyword arguments."""
        return dict(self.model_extra or {})

    @property
    def policy(self) -> ServicePolicy:
        """What happens when it fails; see ``ServicePolicy``."""
        return ServicePolicy(**{limit.name: getattr(self, limit.name) for limit in fields(ServicePolicy)})


# Built from the dataclass, so that a limit can never be missing here.
_LIMIT_FIELDS: Any = {limit.name: (Annotated[int, Field(ge=1)], limit.default) for limit in fields(SessionLimits)}
_LimitsSection = create_model("_LimitsSection", __base__=_Section, **_LIMIT_FIELDS)


class _File(_Section):
    """What a configuration file may hold."""

    server: ServerConfig = ServerConfig()
    limits: _LimitsSection = _LimitsSection()  # type: ignore[valid-type]
    admission: AdmissionConfig = AdmissionConfig()
    compat: CompatConfig = CompatConfig()
    apology: ApologyConfig = ApologyConfig()
    transcription: TranscriptionConfig = TranscriptionConfig()
    hands_free: HandsFreeConfig = HandsFreeConfig()
    llm: dict[str, ServiceConfig]
    asr: dict[str, ServiceConfig]
    tts: dict[str, ServiceConfig]
    tools: dict[str, ToolConfig] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole, checked configuration. In ``llm``, ``asr`` and ``tts`` the name ``default`` always exists."""

    server: ServerConfig
    limits: SessionLimits
    admission: AdmissionConfig
    compat: CompatConfig
    apology: ApologyConfig
    transcription: TranscriptionConfig
    llm: Mapping[str, ServiceConfig]
    asr: Mapping[str, ServiceConfig]
    tts: Mapping[str, ServiceConfig]
    tools: Mapping[str, ToolConfig]
    data_dir: Path
    hands_free: HandsFreeConfig = field(default_factory=HandsFreeConfig)
    api_key: str | None = field(default=None, repr=False)
    """The key of the environment, which may do everything."""
    file: Path | None = None
    """The file that was read; None: there was none."""


def load_config(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> Config:
    """Read ``path``, else ``VOICECHAT_CONFIG``, else ``./voicechat.toml`` if it exists; then the environment over it.

    Variables named ``VOICECHAT_<SECTION>__<KEY>`` set any key; their value is read as TOML, and what is not TOML is a
    string. ``overrides`` come last: what a command line says. Raises ConfigError.
    """
    file = path or (Path(environ[_PREFIX + "CONFIG"]) if environ.get(_PREFIX + "CONFIG") else None)
    if file is None and DEFAULT_FILE.is_file():
        file = DEFAULT_FILE
    tree = _read_toml(file) if file else {}
    _lay_over(tree, _from_environment(environ))
    _lay_over(tree, {section: dict(keys) for section, keys in (overrides or {}).items()})
    _add_defaults(tree, environ)
    _resolve_named_secrets(tree, environ)
    data_dir = Path(environ.get(_PREFIX + "DATA_DIR") or platformdirs.user_data_dir("voicechat", appauthor=False))
    _tell_models_folder(tree, data_dir / MODELS_FOLDER)
    try:
        checked = _File.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(detail, tree) for detail in error.errors(include_url=False, include_context=False)]
        raise ConfigError("\n".join(lines)) from None
    fallback_orders("asr", checked.asr)
    fallback_orders("llm", checked.llm)
    fallback_orders("tts", checked.tts)
    return Config(
        server=checked.server,
        limits=SessionLimits(**dict(checked.limits)),
        compat=checked.compat,
        apology=checked.apology,
        transcription=checked.transcription,
        hands_free=checked.hands_free,
        admission=checked.admission,
        llm=checked.llm,
        asr=checked.asr,
        tts=checked.tts,
        tools=checked.tools,
        data_dir=data_dir,
        api_key=environ.get(_PREFIX + "API_KEY") or None,
        file=file,
    )


def build_services(config: Config) -> Services:
    """Open every configured service once, and chain it with those that stand in for it.

    Nothing runs before ``Services.start``. Raises ConfigError naming the section.
    """
    return Services(
        recognizers=recognition_chains(_links("asr", config.asr), fallback_orders("asr", config.asr), config.limits),
        models=chat_chains(_links("llm", config.llm), fallback_orders("llm", config.llm), config.limits),
        synthesizers=speech_chains(_voice_links(config), fallback_orders("tts", config.tts), config.limits),
        toolbox=_open_toolbox(config.tools),
    )


def fallback_orders(kind: ServiceKind, services: Mapping[str, ServiceConfig]) -> dict[str, tuple[str, ...]]:
    """For each service, its name and the names of those that stand in for it. Raises ConfigError naming the section."""
    fallbacks = {name: service.fallback for name, service in services.items()}
    orders = {}
    for name in services:
        try:
            orders[name] = order_of(name, fallbacks)
        except ValueError as error:
            raise ConfigError(f"{kind}.{name}.fallback: {error}") from None
    return orders


def _links(kind: ServiceKind, services: Mapping[str, ServiceConfig]) -> dict[str, Link[Any]]:
    return {
        name: Link(f"{kind}.{name}", open_service(kind, name, service), service.policy)
        for name, service in services.items()
    }


def _voice_links(config: Config) -> dict[str, Link[SpeechSynthesizer]]:
    """Each voice keeps its own speech: what stands in for it in an outage must not be heard afterwards."""
    cache_bytes = config.server.speech_cache_mib * 2**20

    def opened(name: str, service: ServiceConfig) -> SpeechSynthesizer:
        synthesizer: SpeechSynthesizer = open_service("tts", name, service)
        return CachingSynthesizer(synthesizer, cache_bytes) if cache_bytes else synthesizer

    return {name: Link(f"tts.{name}", opened(name, service), service.policy) for name, service in config.tts.items()}


def _open_toolbox(tools: Mapping[str, ToolConfig]) -> Toolbox | None:
    return Toolbox({name: configured_tool(name, tool) for name, tool in tools.items()}) if tools else None


def configured_tool(name: str, tool: ToolConfig) -> Tool:
    """Load one tool, without calling it. Raises ConfigError naming the section."""
    filler = Filler(tool.filler.en, tool.filler.zh)
    try:
        return open_tool(name, **(dict(tool) | {"filler": filler}))
    except ConfigError as error:
        raise ConfigError(f"tools.{name}: {error}") from error


def open_service(kind: ServiceKind, name: str, service: ServiceConfig) -> Any:
    """Open one service; it does nothing before its ``start``. Raises ConfigError naming the section."""
    try:
        return find_factory(kind, service.provider)(**service.arguments)
    except ConfigError as error:
        raise ConfigError(f"{kind}.{name}: {error}") from error


def environment_with(**variables: str) -> dict[str, str]:
    """This process' environment with more variables, for a child process."""
    return dict(os.environ) | variables


def _read_toml(path: Path) -> Tree:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {_MAX_FILE_BYTES} bytes, so it is no configuration")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _from_environment(environ: Mapping[str, str]) -> Tree:
    """Names without ``__`` are left alone: Kubernetes sets ``VOICECHAT_PORT`` for a service called voicechat."""
    tree: Tree = {}
    for name, raw in sorted(environ.items()):
        if not name.startswith(_PREFIX) or "__" not in name:
            continue
        *sections, key = name.removeprefix(_PREFIX).lower().split("__")
        table = tree
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{name}: another variable gives {section!r} a value, so it holds no keys")
        table[key] = _toml_value(raw)
    return tree


def _toml_value(raw: str) -> object:
    try:
        table = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return raw
    value = table["value"]
    return value if len(table) == 1 and isinstance(value, bool | int | float | str | list | dict) else raw


def _lay_over(tree: Tree, upper: Tree) -> None:
    for key, value in upper.items():
        below = tree.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            _lay_over(below, value)
        else:
            tree[key] = value


def _add_defaults(tree: Tree, environ: Mapping[str, str]) -> None:
    for kind, provider in _EMBEDDED.items():
        services = tree.setdefault(kind, {})
        if isinstance(services, dict):
            default = services.setdefault("default", _openai(environ) if kind == "llm" else {})
            if isinstance(default, dict):
                default.setdefault("provider", provider)


def _openai(environ: Mapping[str, str]) -> Tree:
    """Describe the endpoint that the environment names as OpenAI's own clients read it; empty when it names none."""
    key, base_url = environ.get("OPENAI_API_KEY", ""), environ.get("OPENAI_BASE_URL", "")
    if not key and not base_url:
        return {}
    model = environ.get("OPENAI_MODEL") or OPENAI_MODEL
    return {"provider": "openai", "base_url": base_url or OPENAI_BASE_URL, "api_key": key, "model": model}


def _resolve_named_secrets(tree: Tree, environ: Mapping[str, str]) -> None:
    """``api_key_env = "NAME"`` becomes ``api_key`` = the value of that variable; so for every key of that form."""
    sections = {"transcription": tree.get("transcription")}
    for kind in _EMBEDDED:
        services = tree[kind] if isinstance(tree[kind], dict) else {}
        sections |= {f"{kind}.{name}": service for name, service in services.items()}
    for path, section in sections.items():
        if not isinstance(section, dict):
            continue
        for key in [key for key in section if key.endswith("_env")]:
            variable = section.pop(key)
            secret = environ.get(variable) if isinstance(variable, str) else None
            if not secret:
                raise ConfigError(f"{path}.{key}: {_shown(variable)} is not the name of a variable that is set")
            section[key.removesuffix("_env")] = secret


def _tell_models_folder(tree: Tree, folder: Path) -> None:
    for kind in _EMBEDDED:
        services = tree[kind].values() if isinstance(tree[kind], dict) else ()
        for service in services:
            if isinstance(service, dict) and service.get("provider") in _MODELS_FOLDER_USERS:
                service.setdefault("models_dir", str(folder))


def _explain(detail: ErrorDetails, tree: Tree) -> str:
    path = ".".join(str(step) for step in detail["loc"])
    if detail["type"] == "extra_forbidden":
        allowed = _keys_allowed_beside(detail["loc"])
        near = difflib.get_close_matches(str(detail["loc"][-1]), allowed, 1)
        guess = f"; did you mean {near[0]}?" if near else ""
        return f"{path}: no such key{guess} (allowed: {', '.join(allowed)})"
    if detail["type"] == "missing":
        return f"{path}: missing"
    expected = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("a valid ")
    # An address of a database may hold its password.
    value = "the value" if path.endswith("_url") else _shown(_value_at(detail["loc"], tree))
    return f"{path}: {value} is not allowed; it should be {expected}"


def _value_at(path: tuple[int | str, ...], tree: Tree) -> object:
    value: Any = tree
    for step in path:
        value = value[step]
    return value


def _keys_allowed_beside(path: tuple[int | str, ...]) -> list[str]:
    if len(path) == 1:
        return list(_File.model_fields)
    sections: dict[object, type[BaseModel]] = {
        "tools": FillerConfig if "filler" in path else ToolConfig,
        "server": ServerConfig,
        "admission": AdmissionConfig,
        "compat": CompatConfig,
        "apology": ApologyConfig,
        "hands_free": HandsFreeConfig,
        "limits": _LimitsSection,
        "transcription": TranscriptionConfig,
    }
    return list(sections[path[0]].model_fields)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else text[:_MAX_SHOWN_CHARACTERS] + "..."
