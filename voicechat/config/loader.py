"""Loads the configuration: a TOML file, overridden by the environment, overridden by
the command line.

No other module reads the environment. Everything is validated before anything starts: a
wrong or unknown key is a ``ConfigError`` with one line for each mistake: the key's
path, its value, what is allowed.
"""

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias, get_args

import platformdirs
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from voicechat.config.agents import build_agents
from voicechat.config.error_messages import Tree, explain, shown
from voicechat.config.local_models import (
    INSTRUCTIONS,
    INSTRUCTIONS_BY_LANGUAGE,
    LocalModels,
    find_local_models,
)
from voicechat.config.media import media_defaults
from voicechat.config.sections import Config, ConfigFile, ServiceConfig, ServiceKind
from voicechat.config.services import fallback_orders, service_aliases
from voicechat.errors import ConfigError
from voicechat.names import DEFAULT, ServiceNames
from voicechat.providers.registry import MediaKind
from voicechat.session.limits import SessionLimits
from voicechat.store.model_catalogue import MODELS_FOLDER
from voicechat.store.package_registries import RegistrySettings

Texts: TypeAlias = Mapping[tuple[str, ...], str]
"""The raw text of environment variables, by the path of the key."""

DEFAULT_FILE = Path("voicechat.toml")
OPENAI_BASE_URL = "https://api.openai.com/v1"
OPENAI_MODEL = "gpt-4o-mini"
_PREFIX = "VOICECHAT_"
# Providers that look for models by name where "voicechat models pull" puts them.
MOST_INSTRUCTIONS = 8
"""Instructions that a chat model on this machine computes at its start: each takes
about a second, and memory of its cache.
"""
_MODELS_FOLDER_USERS = ("sherpa_onnx", "faster_whisper", "piper", "kokoro", "llama_cpp")
_EMBEDDED = {"llm": "builtin", "asr": "pocketsphinx", "tts": "espeak"}
MEDIA_KINDS: tuple[MediaKind, ...] = get_args(MediaKind)
_WITH_SECRETS = ("server", "transcription", "compat", "resumption", "cluster", "webhooks")
_MAX_FILE_BYTES = 1024 * 1024


def load_config(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> Config:
    """Load ``path``, else ``VOICECHAT_CONFIG``, else ``./voicechat.toml`` if it exists,
    with the environment over it.

    Variables named ``VOICECHAT_<SECTION>__<KEY>`` set any key; their value is parsed as
    TOML, or taken as a string if it is not TOML. ``overrides``, from the command line,
    come last. Raises ConfigError.
    """
    file = path or (Path(environ[_PREFIX + "CONFIG"]) if environ.get(_PREFIX + "CONFIG") else None)
    if file is None and DEFAULT_FILE.is_file():
        file = DEFAULT_FILE
    # Precedence: file, then environment, then command line; defaults fill the gaps.
    tree = _read_toml(file) if file else {}
    variables, texts = _from_environment(environ)
    _lay_over(tree, variables)
    _lay_over(tree, {section: dict(keys) for section, keys in (overrides or {}).items()})
    data_dir = Path(
        environ.get(_PREFIX + "DATA_DIR")
        or platformdirs.user_data_dir("voicechat", appauthor=False)
    )
    local_models = find_local_models(data_dir / MODELS_FOLDER)
    _add_defaults(tree, environ, local_models)
    _resolve_named_secrets(tree, environ)
    _tell_models_folder(tree, data_dir / MODELS_FOLDER)
    _tell_instructions(tree)
    checked = _checked(tree, texts)
    # References between services are checked here, so that a mistake stops the start.
    kinds: dict[ServiceKind, Mapping[str, ServiceConfig]] = {
        "asr": checked.asr,
        "llm": checked.llm,
        "tts": checked.tts,
    }
    for kind, services in kinds.items():
        fallback_orders(kind, services)
        service_aliases(kind, services)
    for name, platform in checked.platforms.items():
        for group in ("llm", "images", "videos"):
            for service in getattr(platform, group) or ():
                if service not in getattr(checked, group):
                    raise ConfigError(
                        f"platforms.{name}.{group}: there is no service {group}.{service}"
                    )
    agents = build_agents(
        checked.agents,
        llm=ServiceNames(frozenset(checked.llm), service_aliases("llm", checked.llm)),
        asr=checked.asr,
        tts=checked.tts,
        tools=checked.tools,
    )
    return Config(
        server=checked.server,
        limits=SessionLimits(**dict(checked.limits)),
        compat=checked.compat,
        replies=checked.replies,
        apology=checked.apology,
        transcription=checked.transcription,
        hands_free=checked.hands_free,
        devices=checked.devices,
        wyoming=checked.wyoming,
        phone=checked.phone,
        resumption=checked.resumption,
        cluster=checked.cluster,
        admission=checked.admission,
        llm=checked.llm,
        asr=checked.asr,
        tts=checked.tts,
        tools=checked.tools,
        media_services={kind: getattr(checked, kind) for kind in MEDIA_KINDS},
        media=checked.media,
        knowledge=checked.knowledge,
        records=checked.records,
        prices=checked.prices,
        webhooks=checked.webhooks,
        platforms=checked.platforms,
        agents=agents,
        dialects=checked.dialects,
        data_dir=data_dir,
        api_key=environ.get(_PREFIX + "API_KEY", "").strip() or None,
        file=file,
        registries=_registries(environ),
        local_models=local_models,
    )


def _registries(environ: Mapping[str, str]) -> RegistrySettings:
    """Read the variables of pip, uv and npm that name a registry."""

    def first_set(*names: str) -> str:
        return next((environ[name].strip() for name in names if environ.get(name)), "")

    return RegistrySettings(
        python_index=first_set("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"),
        npm_registry=first_set("npm_config_registry", "NPM_CONFIG_REGISTRY"),
    )


def _read_toml(path: Path) -> Tree:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise ConfigError(
                f"{path}: larger than {_MAX_FILE_BYTES} bytes, so it is no configuration"
            )
        return tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"the configuration file {path} cannot be read: {error.strerror}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _checked(tree: Tree, texts: Texts) -> ConfigFile:
    """Validate the whole; where a string is required, a variable's raw text is used
    even if it looks like a number.
    """
    try:
        checked = ConfigFile.model_validate(tree)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        wanted = [path for path in _paths_of_texts(details) if path in texts]
        if not wanted:
            raise ConfigError("\n".join(explain(detail, tree) for detail in details)) from None
        for path in wanted:
            _set(tree, path, texts[path])
        return _checked(tree, {path: text for path, text in texts.items() if path not in wanted})
    for (kind, *rest), text in texts.items():
        if kind in _EMBEDDED and len(rest) >= 2:
            getattr(checked, kind)[rest[0]].written[tuple(rest[1:])] = text
    return checked


def _paths_of_texts(details: Iterable[ErrorDetails]) -> Iterator[tuple[str, ...]]:
    for detail in details:
        if detail["type"] == "string_type":
            yield tuple(map(str, detail["loc"]))


def _set(tree: Tree, path: tuple[str, ...], value: str) -> None:
    *sections, key = path
    for section in sections:
        tree = tree[section]
    tree[key] = value


def _from_environment(environ: Mapping[str, str]) -> tuple[Tree, Texts]:
    """Read the variables: their values, and the raw text of those that are not strings.

    Names without ``__`` are ignored: Kubernetes sets ``VOICECHAT_PORT`` for a service
    called voicechat.
    """
    tree: Tree = {}
    texts: dict[tuple[str, ...], str] = {}
    for name, raw in sorted(environ.items()):
        if not name.startswith(_PREFIX) or "__" not in name:
            continue
        *sections, key = name.removeprefix(_PREFIX).lower().split("__")
        table = tree
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ConfigError(
                    f"{name}: another variable gives {section!r} a value, so it holds no keys"
                )
        table[key] = _toml_value(raw)
        if not isinstance(table[key], str):
            texts[(*sections, key)] = raw
    return tree, texts


def _toml_value(raw: str) -> object:
    try:
        table = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return raw
    value = table["value"]
    return (
        value
        if len(table) == 1 and isinstance(value, bool | int | float | str | list | dict)
        else raw
    )


def _lay_over(tree: Tree, upper: Tree) -> None:
    for key, value in upper.items():
        below = tree.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            _lay_over(below, value)
        else:
            tree[key] = value


def _add_defaults(tree: Tree, environ: Mapping[str, str], local_models: LocalModels) -> None:
    """Fill the gaps: OpenAI's own variables, else pulled models, else what is
    embedded.
    """
    for kind, embedded in _EMBEDDED.items():
        services = tree.setdefault(kind, {})
        if not isinstance(services, dict):
            continue
        found = _openai(environ) if kind == "llm" else {}
        is_local = not found and "default" not in services and kind in local_models.services
        if is_local:
            for name, section in local_models.services[kind].items():
                services.setdefault(name, dict(section))
        default = services.setdefault("default", found)
        if isinstance(default, dict):
            default.setdefault("provider", embedded)
        if is_local and kind == "llm":
            agent = ("agents", "default")
            if _set_default(tree, (*agent, "instructions"), INSTRUCTIONS):
                by_language = dict(INSTRUCTIONS_BY_LANGUAGE)
                _set_default(tree, (*agent, "instructions_by_language"), by_language)
    for kind, section in media_defaults().items():
        if not tree.get(kind):
            tree[kind] = {DEFAULT: section}
    if local_models.turn_model:
        _set_default(tree, ("hands_free", "turn_model"), local_models.turn_model)


def _set_default(tree: Tree, path: tuple[str, ...], value: object) -> bool:
    """Set a key that is not set, and return whether it was. What is no table is left
    for the checks to refuse.
    """
    *sections, key = path
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            return False
    if key in tree:
        return False
    tree[key] = value
    return True


def _openai(environ: Mapping[str, str]) -> Tree:
    """Return the endpoint that OpenAI's own environment variables describe; empty
    without them.
    """
    key, base_url = environ.get("OPENAI_API_KEY", ""), environ.get("OPENAI_BASE_URL", "")
    if not key and not base_url:
        return {}
    model = environ.get("OPENAI_MODEL") or OPENAI_MODEL
    return {
        "provider": "openai",
        "base_url": base_url or OPENAI_BASE_URL,
        "api_key": key,
        "model": model,
    }


def _resolve_named_secrets(tree: Tree, environ: Mapping[str, str]) -> None:
    """Replace ``api_key_env = "NAME"`` by ``api_key`` with the value of that variable,
    and likewise every key that ends in ``_env``.
    """
    sections = {name: tree.get(name) for name in _WITH_SECRETS}
    for kind in (*_EMBEDDED, *MEDIA_KINDS):
        services = tree[kind] if isinstance(tree.get(kind), dict) else {}
        sections |= {f"{kind}.{name}": service for name, service in services.items()}
    for path, section in sections.items():
        if not isinstance(section, dict):
            continue
        for key in [key for key in section if key.endswith("_env")]:
            variable = section.pop(key)
            secret = environ.get(variable) if isinstance(variable, str) else None
            if not secret:
                raise ConfigError(
                    f"{path}.{key}: {shown(variable)} is not the name of a variable that is set"
                )
            section[key.removesuffix("_env")] = secret


def _tell_models_folder(tree: Tree, folder: Path) -> None:
    for kind in _EMBEDDED:
        services = tree[kind].values() if isinstance(tree[kind], dict) else ()
        for service in services:
            if isinstance(service, dict) and service.get("provider") in _MODELS_FOLDER_USERS:
                service.setdefault("models_dir", str(folder))


def _tell_instructions(tree: Tree) -> None:
    """Tell chat models on this machine how the agents' conversations begin."""
    agents = tree.get("agents")
    found: list[str] = []
    for agent in agents.values() if isinstance(agents, dict) else ():
        if not isinstance(agent, dict):
            continue
        by_language = agent.get("instructions_by_language")
        texts = by_language.values() if isinstance(by_language, dict) else ()
        found += [
            text for text in (agent.get("instructions"), *texts) if isinstance(text, str) and text
        ]
    services = tree["llm"].values() if isinstance(tree["llm"], dict) else ()
    for service in services:
        if isinstance(service, dict) and service.get("provider") == "llama_cpp" and found:
            service.setdefault("instructions", found[:MOST_INSTRUCTIONS])
