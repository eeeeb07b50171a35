"""Which documents are answered, and their operations."""

from collections.abc import Callable, Iterable, Mapping

from voicechat.server.rest.compat.parts import CompatParts
from voicechat.server.rest.compat.platforms.operations import Platforms
from voicechat.server.rest.compat.portal.operations import Portal
from voicechat.server.rest.compat.relay.operations import Relay
from voicechat.server.rest.compat.sophnet.operations import SophNet
from voicechat.server.rest.compat.spark.accounts import AccountGate
from voicechat.server.rest.compat.spark.operations import Spark
from voicechat.server.rest.operation import Operation

DOCUMENTS: Mapping[str, Callable[[CompatParts], list[Operation]]] = {
    "sophnet": lambda parts: SophNet(parts.media).operations(),
    "relay": lambda parts: Relay(parts).operations(),
    "spark": lambda parts: Spark(parts).operations(),
    "portal": lambda parts: Portal(parts).operations(),
    "platforms": lambda parts: Platforms(parts).operations(),
}
"""By the names of ``[compat] documents``. The paths of ``platforms`` begin with any
name, and come last.
"""


ACCOUNTS = "accounts"
"""The accounts of ``spark``, and then ``spark`` for their users only."""


def document_operations(parts: CompatParts, documents: Iterable[str]) -> list[Operation]:
    """List the operations of these documents. Raises ConfigError for accounts that
    cannot be had.
    """
    wanted = frozenset(documents)
    if ACCOUNTS in wanted:
        accounts = AccountGate(parts)
        spark = [*accounts.operations(), *Spark(parts, accounts).operations()]
        return [*spark, *document_operations(parts, wanted - {ACCOUNTS, "spark"})]
    return [
        operation
        for name, operations in DOCUMENTS.items()
        if name in wanted
        for operation in operations(parts)
    ]
