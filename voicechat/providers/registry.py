"""From a name in the configuration to a provider's factory.

``provider = "espeak"`` is ours: ``open_synthesizer`` of ``voicechat.providers.espeak``.
``"package.module:factory"`` is anybody's. A factory takes the other keys of its section
as keyword arguments, checked against its annotations, and returns what
`voicechat.providers.interfaces` asks for: a class with the one method of its kind. It
need not derive from `Provider`; whatever of that class's attributes it has is used.
"""

import importlib
import inspect
import logging
from collections.abc import Callable, Container, Mapping
from functools import wraps
from typing import Literal

from pydantic import ConfigDict, ValidationError, validate_call

from voicechat.errors import ConfigError

logger = logging.getLogger(__name__)

RENAMED = {"silence_ms": "read_timeout_ms"}
"""Keys of providers by their old names, which are accepted for one release."""

Kind = Literal["asr", "llm", "tts"]

FACTORY_NAMES: dict[Kind, str] = {
    "asr": "open_recognizer",
    "llm": "open_chat_model",
    "tts": "open_synthesizer",
}
OURS: dict[Kind, tuple[str, ...]] = {
    "asr": ("pocketsphinx", "sherpa_onnx", "openai", "dashscope", "funasr", "wyoming"),
    "llm": ("builtin", "openai"),
    "tts": ("espeak", "sherpa_onnx", "openai", "dashscope", "wyoming"),
}


def find_factory(
    kind: Kind, provider: str, written: Mapping[str, str] | None = None
) -> Callable[..., object]:
    """Load a provider's factory; the provider itself is not yet opened.

    ``written`` is what arguments look like as text that were read as something else; it
    is taken where a text is wanted: a key of digits only is still a key.

    Raises `ConfigError`, as the factory does when called with a wrong key or value: the
    message names the key.
    """
    reference = provider
    if ":" not in provider:
        if provider not in OURS[kind]:
            known = ", ".join(OURS[kind])
            raise ConfigError(
                f"provider: {provider!r} is not one of {known}; your own is 'package.module:factory'"
            )
        reference = f"voicechat.providers.{provider}:{FACTORY_NAMES[kind]}"
    return load_factory(reference, "provider", written, called=provider)


def load_factory(
    reference: str, key: str, written: Mapping[str, str] | None = None, *, called: str = ""
) -> Callable[..., object]:
    """Load ``package.module:factory``, which the ``key`` of a section names; see
    ``find_factory``.

    ``called``: what messages call it, if not ``reference``.
    """
    module_name, _, factory_name = reference.partition(":")
    name = f"{key}: {(called or reference)!r}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{name} needs the Python package {error.name!r}, which is not installed (pip install ...)"
        ) from error
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{name} cannot be imported: {error}") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory) or inspect.isclass(factory):
        raise ConfigError(f"{key}: {module_name!r} has no function {factory_name!r}")
    return _checked(factory, written or {})


def _checked(factory: Callable[..., object], written: Mapping[str, str]) -> Callable[..., object]:
    """Check the keyword arguments by the factory's annotations before calling it."""
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
                    str(detail["loc"][0]) for detail in details if detail["type"] == "string_type"
                }
                texts = {
                    key: text for key, text in _renamed(written, keys).items() if key in wanted
                }
                if not texts:
                    raise
                return call(**given | texts)
        except ValidationError as error:
            raise ConfigError(
                "; ".join(
                    _complaint(detail["loc"], detail["type"], detail["msg"])
                    for detail in error.errors(include_url=False, include_input=False)
                )
            ) from error

    return opened


def _renamed(options: Mapping[str, object], keys: Container[str]) -> dict[str, object]:
    """Give the options by their present names, as far as the factory knows those and
    not the old ones.
    """
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
