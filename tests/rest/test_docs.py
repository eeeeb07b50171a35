"""The page of the API: everything that the two documents have is on it, and it fetches
nothing from elsewhere.
"""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from voicechat.server.rest.docs.fields import Fields
from voicechat.server.rest.docs.markdown import render_inline, render_markdown
from voicechat.server.rest.docs.page import render_page

ROOT = Path(__file__).parents[2]
PROTOCOL = ROOT / "protocol"
OPENAPI: dict[str, Any] = json.loads((PROTOCOL / "openapi.json").read_text("utf-8"))
ASYNCAPI: dict[str, Any] = json.loads((PROTOCOL / "asyncapi.json").read_text("utf-8"))
PAGE = render_page(OPENAPI, PROTOCOL)


class Tags(HTMLParser):
    """Keeps what the elements of a page are called and point to; every one must be
    closed in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str | None] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)
        if tag == "script":
            self.scripts.append(dict(attrs).get("src"))
        for name, value in attrs:
            assert not name.startswith("on"), "no inline script"
            assert name != "style"
            if name in ("href", "src"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name.startswith("data-i18n"):
                self.words.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def tags() -> Tags:
    found = Tags()
    found.feed(PAGE)
    assert found.open == []
    return found


def test_every_operation_and_every_path_is_on_the_page(tags: Tags) -> None:
    for path, methods in OPENAPI["paths"].items():
        assert f">{path}</code>" in PAGE, path
        for operation in methods.values():
            if "(alias of" not in operation["summary"]:
                assert operation["operationId"] in tags.ids
    assert "alias of" not in PAGE


def test_every_message_of_the_sockets_is_on_the_page() -> None:
    for channel in ASYNCAPI["channels"].values():
        assert channel["title"] in PAGE
        for name in channel["messages"]:
            assert f'data-name="{name}"' in PAGE
    assert "Stop the reply at once." in PAGE, "descriptions come from the schemas"
    assert "played_ms" in PAGE, "so do fields"
    assert "&quot;event_type&quot;: &quot;conversation.chat.cancel&quot;" in PAGE, (
        "and there are examples"
    )


def test_it_is_whole_and_asks_nothing_of_another_host(tags: Tags) -> None:
    assert len(tags.ids) == len(set(tags.ids))
    assert tags.scripts == ["reference/page.js"]
    demo = ROOT / "web_demo"
    for link in tags.links:
        if link.startswith("#"):
            assert link[1:] in tags.ids, link
        elif link not in ("./", "docs", "openapi.json"):
            assert (demo / link).is_file(), link


def test_every_word_of_the_page_itself_is_translated(tags: Tags) -> None:
    source = (ROOT / "web_demo" / "i18n.js").read_text("utf-8")
    assert tags.words
    for key in tags.words:
        assert source.count(f'"{key}":') == 2, key


def test_without_the_description_of_the_sockets_the_rest_is_there() -> None:
    assert 'id="sockets"' not in render_page(OPENAPI)
    assert 'id="post_v1_audio_speech"' in render_page(OPENAPI)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a `b` ``c`` **d** *e*", "a <code>b</code> <code>c</code> <strong>d</strong> <em>e</em>"),
        ("[x](https://a.b/c) [y](#z)", '<a href="https://a.b/c">x</a> <a href="#z">y</a>'),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ("[x](javascript:x)", "[x](javascript:x)"),
        ("<b> & 2 * 3 * 4", "&lt;b&gt; &amp; 2 * 3 * 4"),
        ('`<script>` "q"', "<code>&lt;script&gt;</code> &quot;q&quot;"),
    ],
)
def test_inline_markdown(text: str, shown: str) -> None:
    assert render_inline(text) == shown


def test_blocks_of_markdown() -> None:
    assert render_markdown("One\ntwo.\n\n- a\n- `b`\n\n```py\nx < 1\n```\nEnd") == (
        "<p>One\ntwo.</p><ul><li>a</li><li><code>b</code></li></ul><pre><code>x &lt; "
        "1\n</code></pre><p>End</p>"
    )


def test_schemas_that_refer_to_themselves_and_odd_ones_are_shown() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/node"}}}
    fields = Fields(lambda _: node)
    assert fields.list_of(node).count("<dt>") <= 7
    assert fields.list_of({}) == ""
    assert fields.kind_of({}) == "any"
    assert fields.kind_of({"anyOf": [{"type": "string"}, {"type": "null"}]}) == "string"
    assert (
        fields.kind_of({"type": "array", "items": {"enum": ["<a>"]}})
        == "array of <code>&lt;a&gt;</code>"
    )


def test_nothing_of_a_description_is_markup() -> None:
    document = json.loads(json.dumps(OPENAPI))
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["description"] = "<img src=x onerror=alert(1)>"
    assert "<img src=x" not in render_page(document)
    assert not re.search(r"<\w+[^>]* on\w+=", render_page(document))
