"""How a source that a reply cites is written on the wire."""

from voicechat.session.types import Source


def source_fields(source: Source) -> dict[str, object]:
    """Return a source in the form of the document's ``refs``."""
    return {
        "index": source.index,
        "title": source.title,
        "content": source.content,
        "type": source.kind,
        "url": source.url,
    }
