"""``/docs``: the OpenAPI document for people, as one static page that asks nothing of any other host."""

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from typing import Any

from voicechat.schema.checked import STANDS_FOR_DEFAULT

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1f; }
h2 { margin-top: 2.5rem; text-transform: capitalize; } h3 { margin-bottom: 0; } code { font-size: 0.9em; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.6rem; border-bottom: 1px solid #d8d8e0; }
.method { color: #2456b8; } nav a { margin-right: 1rem; }
@media (prefers-color-scheme: dark) { body { background: #16161a; color: #e6e6ec; } .method, a { color: #8ab0ff; }
th, td { border-color: #3a3a44; } }
"""


def docs_headers() -> dict[str, str]:
    """The headers of the page: nothing may be loaded or run, and only this page's own style applies."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }


def render_page(document: dict[str, Any]) -> str:
    """Write the page."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    schemas = document["components"]["schemas"]
    body = "\n".join([*_operations(document), "<h2>objects</h2>", *_objects(schemas)])
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>\n<p>{escape(document['info']['description'])}</p>\n"
        f'<p>Machine readable: <a href="/openapi.json">openapi.json</a>.</p>\n{body}\n</body>\n</html>\n'
    )


def _operations(document: dict[str, Any]) -> Iterator[str]:
    tag = None
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["tags"][0] != tag:
                tag = operation["tags"][0]
                yield f"<h2>{escape(tag)}</h2>"
            yield f'<h3><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h3>'
            yield f"<p>{escape(operation['summary'])}. {escape(operation.get('description', ''))}</p>"
            yield from _exchange(operation)


def _exchange(operation: dict[str, Any]) -> Iterator[str]:
    yield "<table>"
    for parameter in operation.get("parameters", []):
        if "description" in parameter:
            about = f"{parameter['in']} <code>{escape(parameter['name'])}</code>"
            yield f"<tr><th>may have</th><td>{about}</td><td>{escape(parameter['description'])}</td></tr>"
    if "requestBody" in operation:
        for content_type, content in operation["requestBody"]["content"].items():
            shown = _shown(content.get("schema", {}))
            yield f"<tr><th>asks</th><td>{escape(content_type)}</td><td>{shown}</td></tr>"
    for status, answer in operation["responses"].items():
        forms = [
            f"{escape(content_type)} {_shown(content.get('schema', {}))}"
            for content_type, content in answer.get("content", {}).items()
        ]
        yield f"<tr><th>{status}</th><td>{escape(answer['description'])}</td><td>{'<br>'.join(forms)}</td></tr>"
    yield "</table>"


def _objects(schemas: dict[str, Any]) -> Iterator[str]:
    for name, schema in schemas.items():
        yield f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3><p>{escape(schema.get("description", ""))}</p>'
        yield "<table>"
        required = schema.get("required", [])
        for field, about in schema.get("properties", {}).items():
            must = "required" if field in required else ""
            cells = (f"<code>{escape(field)}</code>", _shown(about), must, escape(about.get("description", "")))
            yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        yield "</table>"


def _shown(schema: dict[str, Any]) -> str:
    """Say in a few words what a schema allows."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[1])
        return f'<a href="#{name}">{name}</a>'
    if "contentSchema" in schema.get("properties", {}).get("data", {}):
        return f"events of {_shown(schema['properties']['data']['contentSchema'])}"
    if "anyOf" in schema:
        return " or ".join(_shown(option) for option in schema["anyOf"] if option != STANDS_FOR_DEFAULT)
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    words = [escape(str(schema.get("type", "anything")))]
    if "items" in schema:
        words.append(f"of {_shown(schema['items'])}")
    words += [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join(words)
