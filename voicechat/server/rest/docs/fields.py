"""Renders JSON Schemas as lists of fields; nested objects are collapsed."""

import json
from collections.abc import Callable
from html import escape
from typing import Any, TypeAlias

from voicechat.schema.checked import STANDS_FOR_DEFAULT
from voicechat.server.rest.docs.markdown import render_inline

Schema: TypeAlias = dict[str, Any]
Resolve: TypeAlias = Callable[[str], Schema]
"""Returns the schema of a ``$ref``."""

_DEEPEST = 5
_LONGEST_ENUM = 40
_NO_BOUND = 2**53 - 1
"""The largest whole number of JavaScript. A bound of this value is not shown."""


def word(key: str, english: str) -> str:
    """Render a word of the page itself, which a script translates."""
    return f'<span data-i18n="docs.{key}">{english}</span>'


class Fields:
    """Renders the fields of schemas; ``resolve`` returns the schemas that they refer
    to.
    """

    def __init__(self, resolve: Resolve, *, asked: bool = True) -> None:
        """``asked``: the fields belong to a request, so the list shows which are
        required.
        """
        self._resolve = resolve
        self._asked = asked

    def list_of(self, schema: Schema, depth: int = 0) -> str:
        """Render the fields of an object as a list, required ones first; "" for
        anything else.
        """
        schema = self._resolved(schema)
        fields = schema.get("properties", {})
        if not fields or depth > _DEEPEST:
            return ""
        required = frozenset(schema.get("required", ()) if self._asked else ())
        ordered = sorted(fields.items(), key=lambda item: item[0] not in required)
        rows = (
            self._field(name, about, depth, required=name in required) for name, about in ordered
        )
        return f'<dl class="fields">{"".join(rows)}</dl>'

    def kind_of(self, schema: Schema) -> str:
        """Describe in a few words what a schema allows."""
        if "$ref" in schema:
            target = self._resolved(schema)
            return self.kind_of(target) if "properties" not in target else "object"
        if "contentSchema" in schema.get("properties", {}).get("data", {}):
            return "events"
        options = _options(schema)
        if options:
            return " or ".join(dict.fromkeys(map(self.kind_of, options)))
        if "const" in schema:
            return f"<code>{escape(str(schema['const']))}</code>"
        if "enum" in schema:
            return ", ".join(
                f"<code>{escape(str(value))}</code>" for value in schema["enum"][:_LONGEST_ENUM]
            )
        kind = str(schema.get("type", "any"))
        if kind == "array":
            return f"array of {self.kind_of(schema.get('items', {}))}"
        signs = (("minimum", "≥"), ("maximum", "≤"))
        bounds = (
            f"{sign} {schema[key]}"
            for key, sign in signs
            if abs(schema.get(key, _NO_BOUND)) < _NO_BOUND
        )
        return " ".join(["file" if schema.get("format") == "binary" else escape(kind), *bounds])

    def object_in(self, schema: Schema) -> Schema | None:
        """Return the object schema that a value is, contains or may be."""
        schema = self._resolved(schema)
        if "properties" in schema:
            content: Schema | None = schema["properties"].get("data", {}).get("contentSchema")
            return self._resolved(content) if content else schema
        candidates = [
            *_options(schema),
            *([schema["items"]] if isinstance(schema.get("items"), dict) else []),
        ]
        return next(
            (found for option in candidates if (found := self.object_in(option)) is not None), None
        )

    def _field(self, name: str, about: Schema, depth: int, *, required: bool) -> str:
        target = self._resolved(about)
        text = about.get("description") or target.get("description", "")
        must = word("required", "required") if required else ""
        default = about.get("default")
        told = ""
        if default not in (None, "") and not isinstance(default, dict | list):
            shown = default if isinstance(default, str) else json.dumps(default)
            told = f"{word('default', 'default')} <code>{escape(shown)}</code>"
        return (
            f"<div><dt><code>{escape(name)}</code> "
            f"<span class='kind'>{self.kind_of(about)}</span> "
            f"<span class='must'>{must}</span></dt><dd>{render_inline(text)} "
            f"<span class='default'>{told}</span>{self._nested(about, depth)}</dd></div>"
        )

    def _nested(self, about: Schema, depth: int) -> str:
        inner = self.object_in(about)
        listed = self.list_of(inner, depth + 1) if inner is not None else ""
        return (
            f"<details><summary>{word('fields', 'Fields')}</summary>{listed}</details>"
            if listed
            else ""
        )

    def _resolved(self, schema: Schema) -> Schema:
        for _ in range(_DEEPEST):
            if "$ref" not in schema:
                break
            schema = self._resolve(schema["$ref"])
        return schema


def _options(schema: Schema) -> list[Schema]:
    """Return the alternatives of a schema, without the ones that mean absence."""
    options = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return [
        option for option in options if option != STANDS_FOR_DEFAULT and not _means_absent(option)
    ]


def _means_absent(option: Schema) -> bool:
    return str(option.get("$ref", "")).endswith("/unset") or option.get("type") == "null"
