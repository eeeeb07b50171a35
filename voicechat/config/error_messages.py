"""Error messages for the configuration: one line with the key's path, its value, and
what is allowed.
"""

import difflib
from types import NoneType, UnionType
from typing import Any, TypeAlias, get_args, get_origin

from pydantic_core import ErrorDetails

from voicechat.config.sections import ConfigFile

_MAX_SHOWN_CHARACTERS = 60

Tree: TypeAlias = dict[str, Any]
"""Nested tables, as TOML has them."""


def explain(detail: ErrorDetails, tree: Tree) -> str:
    """Return the message for one validation error in ``tree``."""
    path = ".".join(str(step) for step in detail["loc"])
    if detail["type"] == "extra_forbidden":
        allowed = _keys_allowed_beside(detail["loc"])
        near = difflib.get_close_matches(str(detail["loc"][-1]), allowed, 1)
        guess = f"; did you mean {near[0]}?" if near else ""
        return f"{path}: no such key{guess} (allowed: {', '.join(allowed)})"
    if detail["type"] == "missing":
        return f"{path}: missing"
    expected = (
        detail["msg"]
        .removeprefix("Value error, ")
        .removeprefix("Input should be ")
        .removeprefix("a valid ")
    )
    # A database URL may contain its password.
    value = (
        "the value" if path.endswith(("_url", "_key")) else shown(_value_at(detail["loc"], tree))
    )
    return f"{path}: {value} is not allowed; it should be {expected}"


def _value_at(path: tuple[int | str, ...], tree: Tree) -> object:
    value: Any = tree
    for step in path:
        value = value[step]
    return value


def _keys_allowed_beside(path: tuple[int | str, ...]) -> list[str]:
    section: Any = ConfigFile
    for step in path[:-1]:
        section = (
            get_args(section)[1]
            if get_origin(section) is dict
            else section.model_fields[step].annotation
        )
        if isinstance(section, UnionType):  # an optional table
            section = next(option for option in get_args(section) if option is not NoneType)
    return list(section.model_fields)


def shown(value: object) -> str:
    """Return the repr of a value, shortened for a line of text."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else text[:_MAX_SHOWN_CHARACTERS] + "..."
