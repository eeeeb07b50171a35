"""Writes ``docs/configuration.md`` from the code: ``python -m
tools.configuration_page``.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from voicechat.config import (
    agent_sections,
    media,
    record_sections,
    sections,
    server_sections,
    tool_sections,
)
from voicechat.runtime.fallback import policy
from voicechat.session import limits

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
ORDER = (
    server_sections.ServerConfig,
    sections.ServiceConfig,
    sections.LanguageVoicesConfig,
    agent_sections.AgentConfig,
    agent_sections.TurnDetectionConfig,
    agent_sections.IdlePromptsConfig,
    agent_sections.KeypadConfig,
    tool_sections.ClientToolConfig,
    sections.DialectConfig,
    tool_sections.ToolConfig,
    tool_sections.FillerConfig,
    sections.HandsFreeConfig,
    server_sections.DevicesConfig,
    server_sections.WyomingConfig,
    server_sections.PhoneConfig,
    sections.RepliesConfig,
    sections.ApologyConfig,
    sections.TranscriptionConfig,
    media.MediaServiceConfig,
    sections.MediaConfig,
    sections.KnowledgeConfig,
    server_sections.ResumptionConfig,
    record_sections.RecordsConfig,
    record_sections.PricesConfig,
    record_sections.WebhooksConfig,
    server_sections.ClusterConfig,
    server_sections.PlatformConfig,
    server_sections.AdmissionConfig,
    server_sections.CompatConfig,
    sections.LimitsSection,
)
ELSEWHERE: dict[type[BaseModel], tuple[Any, str]] = {
    sections.LimitsSection: (limits, "SessionLimits"),
    media.MediaServiceConfig: (media, "MediaServiceConfig"),
    sections.ServiceConfig: (policy, "ServicePolicy"),
}
"""Sections whose keys and their descriptions come from dataclasses."""
HEADINGS: dict[type[BaseModel], str] = {
    sections.LimitsSection: "``[limits]``: bounds and deadlines of one session."
}

INTRODUCTION = """\
# Configuration

One TOML file: the one that `--config` names, else `VOICECHAT_CONFIG`, else
`./voicechat.toml`. Every key is optional. Environment variables override the file, and
the command line overrides both. A wrong or unknown key prevents the start; each mistake
is reported on a line of its own with the key, its value and what is allowed.

| variable | is |
|---|---|
| `VOICECHAT_SECTION__KEY` | any key: `VOICECHAT_SERVER__PORT=9000`; \
read as TOML, else as a text |
| `VOICECHAT_API_KEY` | a key for clients that may do everything |
| `VOICECHAT_DATA_DIR` | the folder of keys, tasks and models; unset: the user's data directory |
| `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OPENAI_MODEL` | the default chat model, \
if there is no `[llm.default]` |

Secrets can stay out of the file: `api_key_env = "NAME"` reads `api_key` from the
variable `NAME`, and so does any key of a service, of `[server]`, `[transcription]`,
`[compat]`, `[resumption]`, `[cluster]` or `[webhooks]` that ends in `_env`.

This page is generated from the code by `python -m tools.configuration_page`, and a test
compares it with the code.
"""


def page() -> str:
    """Render the whole page."""
    return "\n".join([INTRODUCTION, *(_section(model) for model in ORDER)])


def _section(model: type[BaseModel]) -> str:
    place, _, rest = HEADINGS.get(model, model.__doc__ or "").partition(": ")
    schema = model.model_json_schema()
    meanings = _meanings(model)
    rows = [
        f"| `{key}` | {_default(field.default)} | {_allowed(schema['properties'][key])} "
        f"| {meanings[key]} |"
        for key, field in model.model_fields.items()
    ]
    about = _line(rest[:1].upper() + rest[1:])
    head = [
        f"## {_line(place)}",
        "",
        _wrapped(about),
        "",
        "| key | default | allowed | meaning |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    meanings = dict(_docstrings(sys.modules[model.__module__], model.__name__))
    if model in ELSEWHERE:
        meanings = dict(_docstrings(*ELSEWHERE[model])) | meanings
    return meanings


def _docstrings(module: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield name and docstring of each attribute of a class."""
    for node in ast.parse(inspect.getsource(module)).body:
        if not (isinstance(node, ast.ClassDef) and node.name == name):
            continue
        for attribute, text in zip(node.body, node.body[1:], strict=False):
            match attribute, text:
                case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(
                    value=ast.Constant(value=str(meaning))
                ):
                    yield key, _line(meaning)
                case _:
                    pass


def _line(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def _wrapped(text: str) -> str:
    """Wrap prose at 88 columns, keeping code spans on one line."""
    unbroken = re.sub("`[^`]*`", lambda span: span[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(unbroken, 88, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _default(default: Any) -> str:
    if default is PydanticUndefined:
        return "must be given"
    if default is None or default in ("", ()) or isinstance(default, dict | BaseModel):
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return f"`{list(default)}`"
    if isinstance(default, str):
        return f'`"{default}"`'
    return f"`{default:g}`" if isinstance(default, float) or default < 100_000 else f"`{default:_}`"


def _allowed(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        option = next(option for option in schema["anyOf"] if option != {"type": "null"})
        return "a table" if "$ref" in option else _allowed(option)
    if "enum" in schema:
        return " or ".join(f'`"{value}"`' for value in schema["enum"])
    match schema.get("type"):
        case "boolean":
            return "`true` or `false`"
        case "integer" | "number":
            return _range(schema)
        case "object":
            return "a table"
        case "array":
            return f"a list of {_plural(schema.get('items', {}))}"
        case "string":
            longest = schema.get("maxLength")
            return f"a text of {longest} characters at most" if longest else "a text"
        case _:
            return "a table" if "$ref" not in schema else "a text, or a table"


def _plural(schema: dict[str, Any]) -> str:
    return {"string": "texts", "integer": "numbers"}.get(schema.get("type", "string"), "texts")


def _range(schema: dict[str, Any]) -> str:
    least, more, most = (schema.get(bound) for bound in ("minimum", "exclusiveMinimum", "maximum"))
    word = "whole number" if schema["type"] == "integer" else "number"
    lower = (
        f"from {least:g}" if least is not None else f"above {more:g}" if more is not None else ""
    )
    upper = f" to {most:,g}".replace(",", " ") if most is not None else ""
    return f"{word} {lower}{upper}".strip()


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
