"""Throttles clients that guess keys. Requests with a valid key are never delayed."""

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from voicechat.store.quotas import QuotaExceededError

MAX_ADDRESSES = 4096
"""Addresses that are remembered; beyond it the one that failed longest ago is dropped.
"""
FREE_FAILURES = 5
"""A mistyped key is not delayed."""
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
FORGET_S = 300.0
"""An address' failures expire 300 s after the last one."""
MAX_WAITING = 8
"""Refusals that may be delayed at once for one address: each holds a connection."""
_V6_NETWORK_BITS = 64
"""The holder of one IPv6 address has a /64 network (RFC 6177)."""


@dataclass(slots=True)
class _Record:
    failures: int = 0
    last_s: float = 0.0
    waiting: int = 0


class AuthThrottle:
    """Failed authentications by remote address.

    Behind a proxy all clients share one address; only those with wrong keys are
    delayed.
    """

    def __init__(self, now_s: Callable[[], float] | None = None) -> None:
        """``now_s`` is the running event loop's clock unless given."""
        self._now_s = now_s or (lambda: asyncio.get_running_loop().time())
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._records)

    async def delay_refusal(self, address: str | None) -> None:
        """Count a failure of ``address``, and return when the refusal may be sent.

        Raises ``QuotaExceededError`` at once when too many of its refusals are delayed
        already. Cancelling stops waiting.
        """
        record = self._record(network_of(address or ""))
        delay_s = self._delay_s(record)
        if not delay_s:
            return
        if record.waiting >= MAX_WAITING:
            raise QuotaExceededError("too many wrong keys from this address", int(LONGEST_DELAY_S))
        record.waiting += 1
        try:
            await asyncio.sleep(delay_s)
        finally:
            record.waiting -= 1

    def _record(self, network: str) -> _Record:
        record = self._records.setdefault(network, _Record())
        self._records.move_to_end(network)
        if len(self._records) > MAX_ADDRESSES:
            self._records.popitem(last=False)
        now_s = self._now_s()
        if now_s - record.last_s > FORGET_S:
            record.failures = 0
        record.failures += 1
        record.last_s = now_s
        return record

    @staticmethod
    def _delay_s(record: _Record) -> float:
        excess = record.failures - FREE_FAILURES
        # The exponent is bounded before use: an attacker controls the count.
        return (
            min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(excess - 1, 16)) if excess > 0 else 0.0
        )


def network_of(address: str) -> str:
    """Return the address that failures are counted under: an IPv4 address, or the
    network of an IPv6 address.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:  # an IPv4 client of a dual-stack socket
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _V6_NETWORK_BITS), strict=False))
