"""Validation shared by all request models: how fields are checked, and how errors are
reported to a client.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from voicechat.schema.json_text import shown
from voicechat.schema.large_text import LargeText

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


MAX_KEYS = 512
"""Most keys of an object in a request, known and unknown ones."""

STANDS_FOR_DEFAULT: Mapping[str, object] = {"enum": [None, ""]}
"""JSON Schema for a field of a ``RequestModel``: null and "" mean the same as omitting
it.
"""


class RequestModel(BaseModel):
    """An object of a request. Types are strict, unknown keys are ignored; null and ""
    mean the default.
    """

    model_config = ConfigDict(
        strict=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_means_default(cls, value: object) -> object:
        if isinstance(value, dict):
            _check_size(value)
            return {key: item for key, item in value.items() if item is not None and item != ""}
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, checked: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe ``_empty_means_default``: which fields may be empty, and which may
        not.
        """
        found = handler(checked)
        schema = handler.resolve_ref_schema(found)
        for name, described in schema.get("properties", {}).items():
            if name not in schema.get("required", ()):
                schema["properties"][name] = _or_default(described)
            elif described.get("type") == "string":
                described.setdefault("minLength", 1)
        return found


class PassThroughModel(BaseModel):
    """An object that is passed through to a chat model: known keys are checked, unknown
    ones kept.
    """

    model_config = ConfigDict(
        strict=True, extra="allow", frozen=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _is_of_bounded_size(cls, value: object) -> object:
        if isinstance(value, dict):
            _check_size(value)
        return value


def _check_size(fields: Mapping[str, object]) -> None:
    if len(fields) > MAX_KEYS:
        raise ValueError(f"{len(fields)} keys are more than {MAX_KEYS}")


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A check for the ``Annotated`` of a field, with its JSON Schema.

    ``check`` returns the value or raises ``ValueError`` with a sentence for the client.
    ``schema`` may allow more than ``check`` does, never less.
    """

    check: Callable[[Any], object]
    schema: Mapping[str, object]

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, checked: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(checked), **self.schema}


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """A check of an array's length, for its ``Annotated``; ``name`` says what the items
    are.

    The length is checked before the items, and the first wrong item ends the check:
    otherwise a small body of many wrong items would cost seconds and gigabytes of
    errors.
    """

    low: int
    high: int
    name: str

    def check(self, value: object) -> object:
        """Return the value, or raise ``ValueError`` for an array of another length."""
        if isinstance(value, list) and not self.low <= len(value) <= self.high:
            count = f"{len(value)} {self.name}"
            if not self.low:
                raise ValueError(f"{count} are more than {self.high}")
            raise ValueError(f"{count} are not between {self.low} and {self.high}")
        return value

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        items = handler(source)
        if items["type"] != "list":
            raise TypeError("Items stands directly at a list")
        items = cast(core_schema.ListSchema, items) | {"fail_fast": True}
        return core_schema.no_info_before_validator_function(self.check, items)

    def __get_pydantic_json_schema__(
        self, checked: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        least = {"minItems": self.low} if self.low else {}
        return {**handler(checked), **least, "maxItems": self.high}


@dataclass(frozen=True, slots=True, eq=False)
class Either:
    """For the ``Annotated`` of a union: ``named`` says in errors what it takes.
    Pydantic's own errors name the types of the union in the path.
    """

    named: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._check, handler(source))

    def _check(self, value: object, inner: core_schema.ValidatorFunctionWrapHandler) -> object:
        try:
            return inner(value)
        except ValidationError as error:
            details = error.errors(include_url=False)
            broken = (detail for detail in details if detail["type"] == "value_error")
            reasons = [_reason(detail) for detail in broken]
            raise ValueError(
                reasons[0] if reasons else f"{shown(value)} is not {self.named}"
            ) from None


def between(low: float, high: float) -> Check:
    """Check for a number from ``low`` to ``high``, both included."""

    def check(value: float) -> float:
        if not low <= value <= high:
            raise ValueError(f"{shown(value)} is not between {low} and {high}")
        return value

    return Check(check, {"minimum": low, "maximum": high})


def one_of(*allowed: str) -> Check:
    """Check for one of the given texts."""

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"{shown(value)} is not one of {', '.join(allowed)}")
        return value

    return Check(check, {"enum": list(allowed)})


def only(default: object, why_not: Callable[[object], str]) -> Check:
    """Check for the default: any other value is refused with the reason of
    ``why_not``.
    """

    def check(value: object) -> object:
        if value != default:
            raise ValueError(why_not(value))
        return value

    return Check(check, {"const": default})


def first_failure(error: ValidationError, unnamed: Collection[str] = ()) -> str:
    """Return the path of the first invalid field and what is allowed: ``a.b[0].c: 7 is
    not a text``. ``unnamed`` are tags of unions, which are no part of the path.
    """
    detail = error.errors(include_url=False)[0]
    path = _path(tuple(part for part in detail["loc"] if part not in unnamed))
    return f"{path}: {_reason(detail)}" if path else _reason(detail)


_ABOUT = ("title", "description", "default")
"""Keywords of JSON Schema that describe a field as a whole."""


def _or_default(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Allow null and "" in a field's schema."""
    about: JsonSchemaValue = {name: schema.pop(name) for name in _ABOUT if name in schema}
    options = [option for option in schema.get("anyOf", [schema]) if option != {"type": "null"}]
    return about if options == [{}] else about | {"anyOf": [*options, dict(STANDS_FOR_DEFAULT)]}


def _path(loc: tuple[int | str, ...]) -> str:
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc
    ).removeprefix(".")


def _reason(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind == "missing":
        return "must be present"
    if kind == "value_error":
        context: dict[str, Any] = detail.get("ctx", {})
        return str(context["error"])
    if kind == "string_type" and isinstance(detail["input"], LargeText):
        return f"{detail['input']!r} is too long"
    return f"{shown(detail['input'])} is not {_WANTED.get(kind, 'acceptable')}"
