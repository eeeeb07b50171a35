"""Renders the subset of Markdown that descriptions use as HTML. Everything else is
escaped.
"""

import re
from html import escape

_BLOCK = re.compile(
    r"```\w*\n(.*?)```|((?:^[*-] [^\n]+(?:\n {2,}[^\n]+)*\n?)+)", re.DOTALL | re.MULTILINE
)
_ITEM = re.compile(r"^[*-] ", re.MULTILINE)
_INLINE = re.compile(
    r"(?P<ticks>`{1,2})(?P<code>[^`]+)(?P=ticks)"
    r"|\*\*(?P<strong>[^*\n]+)\*\*|(?<![\w*])\*(?P<em>[^*\s][^*\n]*)\*(?![\w*])"
    r"|\[(?P<label>[^\[\]]+)\]\((?P<target>[^()\s]+)\)"
)
_SAFE_TARGET = re.compile(r"https?://|[#/]|[\w.-]+(?:[/#]|\Z)")


def render_inline(text: str) -> str:
    """Render code, strong and emphasised text and links of one paragraph."""
    parts, at = [], 0
    for found in _INLINE.finditer(text):
        parts += [escape(text[at : found.start()]), _inline(found)]
        at = found.end()
    return "".join([*parts, escape(text[at:])])


def render_markdown(text: str) -> str:
    """Render paragraphs, lists and fenced code."""
    parts, at = [], 0
    for block in _BLOCK.finditer(text):
        parts.append(_paragraphs(text[at : block.start()]))
        if block[1] is not None:
            parts.append(f"<pre><code>{escape(block[1])}</code></pre>")
        else:
            items = _ITEM.split(block[2])[1:]
            parts.append(
                "".join(
                    [
                        "<ul>",
                        *(f"<li>{render_inline(item.strip())}</li>" for item in items),
                        "</ul>",
                    ]
                )
            )
        at = block.end()
    return "".join([*parts, _paragraphs(text[at:])])


def _paragraphs(text: str) -> str:
    return "".join(
        f"<p>{render_inline(part.strip())}</p>"
        for part in re.split(r"\n\s*\n", text)
        if part.strip()
    )


def _inline(found: re.Match[str]) -> str:
    if found["code"] is not None:
        return f"<code>{escape(found['code'].strip())}</code>"
    for name in ("strong", "em"):
        if found[name] is not None:
            return f"<{name}>{escape(found[name])}</{name}>"
    if not _SAFE_TARGET.match(found["target"]):
        return escape(found[0])
    return f'<a href="{escape(found["target"])}">{render_inline(found["label"])}</a>'
