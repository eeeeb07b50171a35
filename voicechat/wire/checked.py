"""What the request models share: how a field is checked, and how its failure is told to a client."""

from collections.abc import Callable
from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from voicechat.wire.json_text import shown

_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "an array",
    "model_type": "an object",
    "dict_type": "an object",
}


class Section(BaseModel):
    """An object of a request. Types are strict, unknown keys are ignored; null and "" stand for the default."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_default(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None and item != ""}
        return value


class Passage(BaseModel):
    """An object that is passed on to a chat model whole: known keys are checked, unknown ones kept."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


def between(low: float, high: float) -> AfterValidator:
    """Require a number from ``low`` to ``high``, both included."""

    def check(value: float) -> float:
        if not low <= value <= high:
            raise ValueError(f"{shown(value)} is not between {low} and {high}")
        return value

    return AfterValidator(check)


def one_of(*allowed: str) -> AfterValidator:
    """Require one of a few texts."""

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"{shown(value)} is not one of {', '.join(allowed)}")
        return value

    return AfterValidator(check)


def only(default: object, why_not: Callable[[object], str]) -> AfterValidator:
    """Require the default: any other value is refused with a reason of its own."""

    def check(value: object) -> object:
        if value != default:
            raise ValueError(why_not(value))
        return value

    return AfterValidator(check)


def first_failure(error: ValidationError) -> str:
    """Name the first offending field by its path and say what is allowed: ``a.b[0].c: 7 is not a text``."""
    detail = error.errors(include_url=False)[0]
    path = _path(detail["loc"])
    return f"{path}: {_reason(detail)}" if path else _reason(detail)


def _path(loc: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def _reason(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind == "missing":
        return "must be present"
    if kind == "value_error":
        context: dict[str, Any] = detail.get("ctx", {})
        return str(context["error"])
    return f"{shown(detail['input'])} is not {_WANTED.get(kind, 'acceptable')}"
