"""The documents that can be served, and their operations."""

from collections.abc import Callable, Iterable, Mapping

from voicechat.server.rest.compat.parts import CompatParts
from voicechat.server.rest.compat.platforms.operations import Platforms
from voicechat.server.rest.compat.portal.operations import Portal
from voicechat.server.rest.compat.relay.operations import Relay
from voicechat.server.rest.compat.sophnet.operations import SophNet
from voicechat.server.rest.compat.spark.accounts import AccountGate
from voicechat.server.rest.compat.spark.operations import Spark
from voicechat.server.rest.operation import Operation

PORTAL = "portal"
"""The document whose chat and pictures use OpenAI's paths. Its clients send no key
there either.
"""
DOCUMENTS: Mapping[str, Callable[[CompatParts], list[Operation]]] = {
    "sophnet": lambda parts: SophNet(parts.media).operations(),
    "relay": lambda parts: Relay(parts).operations(),
    "spark": lambda parts: Spark(parts).operations(),
    PORTAL: lambda parts: Portal(parts).operations(),
    "platforms": lambda parts: Platforms(parts).operations(),
}
"""The documents by their names in ``[compat] documents``. ``platforms`` comes last,
because its paths begin with any name.
"""


ACCOUNTS = "accounts"
"""The document of ``spark``'s accounts. With it, ``spark`` serves only users with an
account.
"""


def document_operations(parts: CompatParts, documents: Iterable[str]) -> list[Operation]:
    """List the operations of these documents. Raises ConfigError if accounts are
    configured but cannot be served.
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
