"""Tells the local network by multicast DNS where devices and Home Assistant find this
server, so that nobody has to enter an address. It needs the package ``zeroconf``.

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
"""Ours: the firmware looks for no name, but set-up tools can."""
GOODBYE_S = 5.0
"""For taking the announcements back."""
_NAME_BYTES = 63
"""Of a label (RFC 1035, section 2.3.4)."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """One service."""

    kind: str
    """Such as ``WYOMING``."""
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
    """Announce the services while the context lasts. Nothing waits for it, and a
    network that does not want it costs a line in the log.

    ``interfaces``: addresses of the interfaces that are used; None: all.
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
    """Write a service as it is announced, by the name of this machine."""
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
    """Return the IPv4 addresses of this machine that others may reach."""
    ips = (ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips)
    texts = (ip for ip in ips if isinstance(ip, str))  # of IPv6 they are tuples
    return [text for text in texts if not ipaddress.ip_address(text).is_loopback]


def _addresses(host: str) -> list[bytes]:
    """Return the packed addresses at which others reach a socket that listens on
    ``host``; none for this machine's own, and for a name.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return []
    if not address.is_unspecified:
        return [] if address.is_loopback else [address.packed]
    return [ipaddress.ip_address(text).packed for text in _all_interfaces()]
