"""Which documents are answered, and their operations."""

from collections.abc import Callable, Iterable, Mapping

from voicechat.server.rest.compat.sophnet.operations import SophNet
from voicechat.server.rest.media.media import Media
from voicechat.server.rest.operation import Operation

DOCUMENTS: Mapping[str, Callable[[Media], list[Operation]]] = {
    "sophnet": lambda media: SophNet(media).operations(),
}
"""By the names of ``[compat] documents``."""


def document_operations(media: Media, documents: Iterable[str]) -> list[Operation]:
    """List the operations of these documents."""
    return [operation for name in documents for operation in DOCUMENTS[name](media)]
