"""A Python function as a tool: its definition for the model, and the parsing of its
arguments.
"""

import importlib
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic_core import PydanticUndefined, from_json

from voicechat.errors import ConfigError, ToolError
from voicechat.session.filler import Filler

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Function names that chat models accept."""
NO_NAME = "is no name of a tool: letters, digits, _ and -, 64 at most"
MAX_COMPLAINTS = 5
"""How many wrong arguments are reported to the model at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTool:
    """One function that the server runs for the model."""

    name: str
    function: Callable[..., object]
    description: str
    parameters: Mapping[str, object]
    """JSON Schema of the arguments."""
    arguments: type[BaseModel] | None
    """Checks the arguments; None: the tool itself checks them."""
    deadline_s: float
    filler: Filler
    filler_after_ms: int
    read_only: bool = False
    """Whether its provider declares that it changes nothing."""

    @property
    def definition(self) -> Mapping[str, object]:
        """The tool's definition in the form of the chat completions API."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}

    def read_arguments(self, arguments: str) -> dict[str, object]:
        """Parse the arguments that the model sent as JSON. Raises ``ToolError`` that
        names the wrong arguments.
        """
        if self.arguments is None:
            return _json_object(arguments)
        try:
            read = self.arguments.model_validate_json(arguments or "{}")
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)[:MAX_COMPLAINTS]
            complaints = [
                f"{'.'.join(map(str, detail['loc'])) or 'arguments'}: {detail['msg']}"
                for detail in details
            ]
            raise ToolError("; ".join(complaints)) from None
        return {
            str(field.alias): getattr(read, name)
            for name, field in self.arguments.model_fields.items()
        }


def _json_object(arguments: str) -> dict[str, object]:
    try:
        given = from_json(arguments or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise ToolError("arguments: not a JSON object")
    return given


def open_tool(
    name: str,
    function: str,
    *,
    description: str = "",
    parameters: Mapping[str, object] | None = None,
    deadline_s: float = 10.0,
    filler: Filler | None = None,
    filler_after_ms: int = 1_000,
) -> ServerTool:
    """Load ``function`` (``"package.module:function"``), a coroutine function or a
    plain one.

    Without ``description`` its docstring is used, without ``parameters`` its
    annotations become the schema. Raises ``ConfigError`` that names the key.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} {NO_NAME}")
    loaded = _load(function)
    text = description or inspect.getdoc(loaded) or ""
    if not text:
        raise ConfigError(f"description: {function!r} has no docstring, so say here what it does")
    arguments = _arguments_of(loaded, function)
    return ServerTool(
        name=name,
        function=loaded,
        description=text,
        parameters=parameters if parameters is not None else _schema_of(arguments),
        arguments=arguments,
        deadline_s=deadline_s,
        filler=filler or Filler(),
        filler_after_ms=filler_after_ms,
    )


def is_asynchronous(function: Callable[..., object]) -> TypeGuard[Callable[..., Awaitable[object]]]:
    """Return whether calling it returns an awaitable, as coroutine functions and some
    callable objects do.
    """
    call = getattr(function, "__call__", None)  # noqa: B004 - the attribute itself is inspected
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _load(path: str) -> Callable[..., object]:
    module_name, colon, function_name = path.partition(":")
    if not (module_name and colon and function_name):
        raise ConfigError(f"function: {path!r} is not of the form 'package.module:function'")
    try:
        loaded = getattr(importlib.import_module(module_name), function_name, None)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"function: {path!r} cannot be imported: {error}") from error
    if not callable(loaded):
        raise ConfigError(f"function: {module_name!r} has no function {function_name!r}")
    return loaded  # type: ignore[no-any-return]


def _arguments_of(function: Callable[..., object], path: str) -> type[BaseModel]:
    """Create a model of the function's parameters. Their names are aliases, because
    ``copy`` or ``_x`` cannot be field names.
    """
    fields: dict[str, Any] = {}
    try:
        hints = get_type_hints(function, include_extras=True)
        for number, parameter in enumerate(inspect.signature(function).parameters.values()):
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise ConfigError(
                    f"function: {path!r} takes {parameter}; a tool's arguments are given by name"
                )
            default = (
                PydanticUndefined if parameter.default is parameter.empty else parameter.default
            )
            annotation = hints.get(parameter.name, Any)
            fields[f"argument_{number}"] = (annotation, Field(default, alias=parameter.name))
        return create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)
    except (NameError, TypeError, ValueError, PydanticUserError) as error:
        raise ConfigError(
            f"function: the annotations of {path!r} cannot be used: {error}"
        ) from error


def _schema_of(arguments: type[BaseModel]) -> Mapping[str, object]:
    try:
        schema = arguments.model_json_schema()
    except PydanticUserError as error:
        raise ConfigError(
            f"function: its annotations are no JSON Schema; give parameters: {error}"
        ) from error
    del schema["title"]
    for described in schema.get("properties", {}).values():
        described.pop("title", None)
    return schema
