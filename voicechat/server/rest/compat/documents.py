"""Which documents are answered, and their operations."""

from collections.abc import Callable, Iterable, Mapping

from voicechat.server.rest.compat.parts import CompatParts
from voicechat.server.rest.compat.platforms.operations import Platforms
from voicechat.server.rest.compat.portal.operations import Portal
from voicechat.server.rest.compat.sophnet.operations import SophNet
from voicechat.server.rest.operation import Operation

DOCUMENTS: Mapping[str, Callable[[CompatParts], list[Operation]]] = {
    "sophnet": lambda parts: SophNet(parts.media).operations(),
    "portal": lambda parts: Portal(parts).operations(),
    "platforms": lambda parts: Platforms(parts).operations(),
}
"""By the names of ``[compat] documents``. The paths of ``platforms`` begin with any
name, and come last.
"""


def document_operations(parts: CompatParts, documents: Iterable[str]) -> list[Operation]:
    """List the operations of these documents."""
    wanted = frozenset(documents)
    return [
        operation
        for name, operations in DOCUMENTS.items()
        if name in wanted
        for operation in operations(parts)
    ]
