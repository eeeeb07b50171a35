"""``/docs``: the documentation as HTML. Scripts add examples with a key, and a form to
send requests.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from voicechat.server.pages import PAGE_HEADERS
from voicechat.server.rest.docs.fields import Fields, Schema, word
from voicechat.server.rest.docs.markdown import render_markdown
from voicechat.server.rest.docs.sockets import Sockets

_ALIAS = re.compile(r" \(alias of (\S+)\)\Z")
_TAGS = {
    "chat": "Chat",
    "speech": "Speech",
    "transcription": "Transcription",
    "images": "Pictures",
    "videos": "Videos",
    "sophnet": "SophNet",
    "platforms": "Platforms",
    "portal": "Portal",
    "relay": "Relay",
    "spark": "Spark",
    "tokens": "Tokens",
    "server": "Server",
}


@dataclass
class _Endpoint:
    """An operation under its first path, and the other paths that it is served
    under.
    """

    method: str
    path: str
    operation: Schema
    also: list[str] = field(default_factory=list)


def docs_headers() -> dict[str, str]:
    """Return the headers of the page, which allow scripts and styles only from this
    server and none inline.
    """
    return {**PAGE_HEADERS, "Content-Type": "text/html; charset=utf-8"}


def render_page(document: dict[str, Any], protocol: Path | None = None) -> str:
    """Write the page of an OpenAPI document and of the sockets described in
    ``protocol``.
    """
    sockets = Sockets(protocol)
    groups: dict[str, list[_Endpoint]] = {}
    for endpoint in _endpoints(document):
        groups.setdefault(endpoint.operation["tags"][0], []).append(endpoint)
    info = document["info"]
    version = f"{info['title']} {info['version']}"
    described = {tag["name"]: tag["description"] for tag in document.get("tags", ())}
    sections = "".join(
        f'<section><h2 id="{escape(tag)}">{_tag(tag)}</h2>'
        f"{render_markdown(described.get(tag, ''))}"
        f"{''.join(_operation(document, each) for each in group)}"
        "</section>"
        for tag, group in groups.items()
    )
    socket_sections = "".join(sockets.sections())
    if socket_sections:
        sections += f'<section><h2 id="sockets">{_tag("sockets")}</h2>{socket_sections}</section>'
    return _PAGE.format(
        title=escape(version),
        contents="".join(_contents(groups, sockets)),
        sections=sections,
    )


def _endpoints(document: dict[str, Any]) -> Iterator[_Endpoint]:
    found: dict[tuple[str, str], _Endpoint] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            alias = _ALIAS.search(operation["summary"])
            if alias is None:
                found[method, path] = _Endpoint(method, path, operation)
            else:
                found[method, alias[1]].also.append(path)
    yield from found.values()


def _contents(groups: dict[str, list[_Endpoint]], sockets: Sockets) -> Iterator[str]:
    listed = {tag: [(each.operation["operationId"], each.operation["summary"]) for each in group]
              for tag, group in groups.items()}  # fmt: skip
    for tag, entries in {**listed, "sockets": sockets.contents()}.items():
        items = "".join(
            f'<li><a href="#{escape(target)}">{escape(title)}</a></li>' for target, title in entries
        )
        if items:
            yield f'<li><a class="group" href="#{escape(tag)}">{_tag(tag)}</a><ul>{items}</ul></li>'


def _tag(tag: str) -> str:
    return word(f"tag.{tag}", _TAGS.get(tag, tag.capitalize()))


def _operation(document: dict[str, Any], endpoint: _Endpoint) -> str:
    operation = endpoint.operation

    def resolve(reference: str) -> Schema:
        return dict(document["components"]["schemas"][reference.rsplit("/", 1)[1]])

    asked, answered = Fields(resolve), Fields(resolve, asked=False)
    also = "".join(f"<li><code>{escape(path)}</code></li>" for path in endpoint.also)
    aliases = (
        f'<details class="also"><summary>{word("also", "Other paths")}</summary>'
        f"<ul>{also}</ul></details>"
    )
    return (
        f'<article class="operation" id="{escape(operation["operationId"])}" '
        f'data-method="{endpoint.method.upper()}" '
        f'data-path="{escape(endpoint.path)}"><div class="told">'
        f'<p class="route"><span class="method">{endpoint.method.upper()}</span>'
        f'<code class="path">{escape(endpoint.path)}</code></p>'
        f"<h3>{escape(operation['summary'])}</h3>"
        f"{render_markdown(operation.get('description', ''))}{aliases if also else ''}"
        f"{_parameters(asked, operation)}{_request(asked, operation)}"
        f"{_answers(answered, operation)}</div>"
        f'<div class="tried"></div></article>'
    )


def _parameters(fields: Fields, operation: Schema) -> str:
    parameters = operation.get("parameters", [])
    if not parameters:
        return ""
    schema = {
        "properties": {
            each["name"]: {**each["schema"], "description": _about(each)} for each in parameters
        },
        "required": [each["name"] for each in parameters if each.get("required")],
    }
    return f"<h4>{word('parameters', 'Parameters')}</h4>{fields.list_of(schema)}"


def _about(parameter: Schema) -> str:
    place = "" if parameter["in"] == "path" else f"In the {parameter['in']}. "
    return place + str(parameter.get("description", ""))


def _request(fields: Fields, operation: Schema) -> str:
    contents = operation.get("requestBody", {}).get("content", {})
    return "".join(
        f'<h4>{word("body", "Request body")} <span class="kind">{escape(content_type)}</span></h4>'
        f"{fields.list_of(content.get('schema', {}))}"
        for content_type, content in contents.items()
    )


def _answers(fields: Fields, operation: Schema) -> str:
    granted, refused = "", ""
    for status, answer in operation["responses"].items():
        if status[0] != "2":
            reason = render_markdown(answer["description"])
            refused += f"<div><dt><code>{status}</code></dt><dd>{reason}</dd></div>"
            continue
        for content_type, content in answer.get("content", {}).items():
            inner = fields.object_in(content.get("schema", {}))
            listed = fields.list_of(inner) if inner is not None else ""
            label = f'<code>{status}</code> <span class="kind">{escape(content_type)}</span>'
            granted += (
                f"<details><summary>{label}</summary>{listed}</details>"
                if listed
                else f"<p>{label}</p>"
            )
    errors = (
        f"<details><summary>{word('errors', 'Errors')}</summary>"
        f'<dl class="fields errors">{refused}</dl></details>'
        if refused
        else ""
    )
    return f'<h4>{word("answers", "Answers")}</h4><div class="answers">{granted}{errors}</div>'


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">
<meta name="color-scheme" content="light dark">
<title>{title} · API</title>
<link rel="icon" href="icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="style.css">
<link rel="stylesheet" href="reference/reference.css">
<script type="module" src="reference/page.js"></script>
</head>
<body class="reference">
<header class="masthead">
<p class="wordmark"><img src="icon.svg" alt="" width="22" height="22">voicechat</p>
<nav data-i18n-label="nav.label">
<a href="./" data-key-link data-i18n="nav.conversation">Conversation</a>
<a href="recognise.html" data-key-link data-i18n="nav.recognise">Recognition</a>
<a href="knowledge.html" data-key-link data-i18n="nav.knowledge">Knowledge</a>
<a href="docs" aria-current="page" data-i18n="nav.docs">API</a>
</nav>
<p class="connection"></p>
<div class="switches">
<button type="button" class="quiet" id="language" hidden></button>
<button type="button" class="quiet icon" id="theme" hidden></button>
<button type="button" class="quiet only-narrow" id="open-contents" aria-expanded="false"
 aria-controls="contents" data-i18n="docs.contents" hidden>Contents</button>
</div>
</header>
<div class="sheet">
<nav class="contents" id="contents" data-i18n-label="docs.contents" aria-label="Contents">
<p class="find" hidden><label for="find" class="hidden" data-i18n="docs.find">Find</label>
<input id="find" type="search" autocomplete="off" data-i18n-placeholder="docs.find"></p>
<ul>{contents}</ul>
</nav>
<main id="main" tabindex="-1">
<div class="lead-in">
<h1>{title}</h1>
<p data-i18n="docs.lead">What this server speaks, by HTTP and over WebSockets.</p>
<p><span data-i18n="docs.machine">Machine readable:</span>
<a href="openapi.json">openapi.json</a></p>
<noscript><p class="hint">Examples with your own key, and trying, need scripts.</p></noscript>
<form id="access" class="access" hidden>
<div><label for="key" data-i18n="docs.key">Your key</label>
<input id="key" type="password" autocomplete="off" spellcheck="false"></div>
<div><label for="project" data-i18n="docs.project">Project</label>
<input id="project" type="text" autocomplete="off" spellcheck="false" value="default"></div>
<p class="hint" data-i18n="docs.key.hint"></p>
</form>
</div>
{sections}
</main>
</div>
</body>
</html>
"""
