"""Announces the server on the local network by multicast DNS, so that devices and Home
Assistant find it without an address being entered. Needs the package ``zeroconf``.

Sources: RFC 6762 and 6763; Home Assistant looks for ``_wyoming._tcp``.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import ifaddr
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

WYOMING = "_wyoming._tcp.local."
OTA = "_xiaozhi-ota._tcp.local."
"""A service type of this project. The firmware does not look for one, but set-up tools
can.
"""
GOODBYE_S = 5.0
"""Time limit for withdrawing the announcements."""
_NAME_BYTES = 63
"""Longest DNS label in bytes (RFC 1035, section 2.3.4)."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """One announced service."""

    kind: str
    """The service type, such as ``WYOMING``."""
    host: str
    """The address that it listens on."""
    port: int
    properties: Mapping[str, str] = field(default_factory=dict)


def reachable(services: Iterable[Announced]) -> list[Announced]:
    """Return those services that other machines can reach."""
    return [service for service in services if _addresses(service.host)]


@asynccontextmanager
async def announcing(
    services: Sequence[Announced], interfaces: Sequence[str] | None = None
) -> AsyncIterator[None]:
    """Announce the services while the context lasts, without delaying the caller. If
    the network does not allow it, one line is logged.

    ``interfaces``: addresses of the interfaces to use; None means all.
    """
    try:
        network = AsyncZeroconf(
            interfaces=list(interfaces) if interfaces is not None else _all_interfaces(),
            ip_version=IPVersion.V4Only,
        )
    except OSError as error:
        _log.warning("the server is not announced: %s", error.strerror)
        yield
        return
    task = asyncio.get_running_loop().create_task(_register(network, services), name="announce")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        try:
            async with asyncio.timeout(GOODBYE_S):
                await network.async_unregister_all_services()
                await network.async_close()
        except (TimeoutError, OSError) as error:
            _log.warning("the announcements were not taken back: %s", type(error).__name__)


async def _register(network: AsyncZeroconf, services: Sequence[Announced]) -> None:
    for service in services:
        try:
            await (await network.async_register_service(info_of(service), allow_name_change=True))
        except (OSError, ZeroconfError) as error:
            _log.warning("%s is not announced: %s", service.kind, type(error).__name__)


def info_of(service: Announced) -> ServiceInfo:
    """Build the announcement of a service under this machine's name."""
    machine = socket.gethostname().partition(".")[0]
    label = f"voicechat {machine}".encode()[:_NAME_BYTES].decode(errors="ignore")
    return ServiceInfo(
        service.kind,
        f"{label}.{service.kind}",
        addresses=_addresses(service.host),
        port=service.port,
        properties=dict(service.properties),
        server=f"{machine}.local.",
    )


def _all_interfaces() -> list[str]:
    """Return the IPv4 addresses of this machine that other machines may reach."""
    ips = (ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips)
    texts = (ip for ip in ips if isinstance(ip, str))  # IPv6 addresses are tuples
    return [text for text in texts if not ipaddress.ip_address(text).is_loopback]


def _addresses(host: str) -> list[bytes]:
    """Return the packed addresses at which other machines reach a socket that listens
    on ``host``. Returns none for loopback addresses and for host names.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return []
    if not address.is_unspecified:
        return [] if address.is_loopback else [address.packed]
    return [ipaddress.ip_address(text).packed for text in _all_interfaces()]
