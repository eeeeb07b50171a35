"""The sockets on ``/docs``: channels and messages of the AsyncAPI document."""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from voicechat.server.rest.docs.fields import Fields, Schema, word
from voicechat.server.rest.docs.markdown import render_markdown

_AsyncDocument = dict[str, Any]


class Sockets:
    """Reads the ``protocol`` folder once. Without the folder it has no sections."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._document: _AsyncDocument = _read(folder / "asyncapi.json") if folder else {}

    def contents(self) -> list[tuple[str, str]]:
        """Return the id and the title of each channel's section."""
        channels = self._document.get("channels", {})
        return [(f"socket-{name}", str(channel["title"])) for name, channel in channels.items()]

    def sections(self) -> Iterator[str]:
        """Render a section for each channel."""
        for name, channel in self._document.get("channels", {}).items():
            yield self._section(name, channel)

    def _section(self, name: str, channel: Schema) -> str:
        query = channel.get("bindings", {}).get("ws", {}).get("query", {})
        address = channel["address"].replace("{projectId}", "{project}")
        groups = (("up", "You send", "receive"), ("down", "You receive", "send"))
        messages = "".join(
            f'<h4 class="way">{word(way, english)}</h4>'
            + "".join(self._messages(name, action, way))
            for way, english, action in groups
        )
        return (
            f'<article class="operation socket" id="socket-{escape(name)}" '
            f'data-path="{escape(address)}" '
            f'data-socket="{escape(name)}"><div class="told">'
            '<p class="route"><span class="method">WS</span>'
            f'<code class="path">{escape(address)}</code></p>'
            f"<h3>{escape(channel['title'])}</h3>{render_markdown(channel.get('description', ''))}"
            f"<h4>{word('parameters', 'Parameters')}</h4>"
            f"{Fields(_nothing).list_of(query)}{messages}</div>"
            f'<div class="tried"></div></article>'
        )

    def _messages(self, channel: str, action: str, way: str) -> Iterator[str]:
        prefix = f"#/channels/{channel}/messages/"
        for operation in self._document["operations"].values():
            if (
                operation["action"] != action
                or operation["channel"]["$ref"] != f"#/channels/{channel}"
            ):
                continue
            for reference in operation["messages"]:
                name = reference["$ref"].removeprefix(prefix)
                yield self._message(
                    channel, name, self._document["channels"][channel]["messages"][name], way
                )

    def _message(self, channel: str, name: str, message: Schema, way: str) -> str:
        fields = Fields(self._resolve, asked=way == "up")
        payload = message.get("payload", {})
        schema = self._resolve(payload["$ref"]) if "$ref" in payload else payload
        example = self._example(channel, name)
        shown = f'<pre class="example"><code>{escape(example)}</code></pre>' if example else ""
        return (
            f'<details class="message" data-way="{way}" data-name="{escape(name)}">'
            f"<summary><code>{escape(message.get('title') or name)}</code></summary>"
            f"{render_markdown(schema.get('description', ''))}"
            f"{fields.list_of(schema)}{shown}</details>"
        )

    def _resolve(self, reference: str) -> Schema:
        """Resolve ``./schema/file.json#/$defs/name`` or ``#/$defs/name``."""
        path, _, pointer = reference.partition("#")
        assert self._folder is not None
        files = [self._folder / path] if path else sorted((self._folder / "schema").glob("*.json"))
        for file in files:
            found = _read(file).get("$defs", {}).get(pointer.removeprefix("/$defs/"))
            if found is not None:
                return dict(found)
        return {}

    def _example(self, channel: str, name: str) -> str:
        assert self._folder is not None
        dialect = {"speechChat": "speech_chat", "streamSpeech": "stream_speech"}.get(
            channel, channel
        )
        files = sorted((self._folder / "examples" / dialect / name).glob("*.json"))
        return json.dumps(_read(files[0]), ensure_ascii=False, indent=2) if files else ""


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return content


def _nothing(_reference: str) -> Schema:
    return {}
