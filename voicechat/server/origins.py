"""Which web pages may use the server, and the client's address behind a proxy.

Only browsers send an Origin, and no page can forge it. Anyone can send the headers of
proxies (``X-Forwarded-*``), so they count only from the addresses in
``server.trusted_proxies``.
"""

import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import hdrs, web

from voicechat.names import ANY, quoted

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ALLOW_IT = "add it to server.allowed_origins"
NO_ORIGIN = "null"
"""The Origin of a page that has none: of a file, or in a sandbox."""
_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.\-]*)://([^/?#@\s:\[\]]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE
)
_HOST = re.compile(r"([^/?#@\s:\[\]]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE)
FORWARDED_FOR = "X-Forwarded-For"
FORWARDED_HOST = "X-Forwarded-Host"
_OF_PROXIES = (
    FORWARDED_FOR,
    FORWARDED_HOST,
    hdrs.FORWARDED,
    hdrs.VIA,
    hdrs.X_FORWARDED_PROTO,
    "X-Real-IP",
    "CF-Connecting-IP",
)
"""Headers that proxies add; each proxy adds some of them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A page's origin, normalised: lower case, with an explicit port."""

    scheme: str
    host: str
    port: int | None
    """None: the scheme has no default port, and the origin names none."""


def read_origin(text: str) -> Origin | None:
    """Parse an origin such as ``https://app.example:8443``; None if it is not one."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme = found[1].lower()
    return Origin(scheme, found[2].lower(), int(found[3]) if found[3] else _PORTS.get(scheme))


def came_through_proxy(request: web.Request) -> bool:
    """Return whether the request came through a proxy, trusted or not."""
    return any(name in request.headers for name in _OF_PROXIES)


def same_origin(one: str, other: str) -> bool:
    """Return whether two texts name the same origin."""
    read = read_origin(one)
    return read == read_origin(other) if read is not None else one == other


def origin_of(request: web.Request) -> str:
    """Quote the request's origins for a message."""
    return ", ".join(map(quoted, request.headers.getall(hdrs.ORIGIN, [])[:2]))


class Origins:
    """The origin rules of one server."""

    def __init__(
        self, allowed: Collection[str] = (), trusted_proxies: Collection[Network] = ()
    ) -> None:
        """``allowed`` are origins as ``read_origin`` parses them, ``null``, or ``*``
        for all.
        """
        self._any = ANY in allowed
        self._null = NO_ORIGIN in allowed
        self._allowed = frozenset(
            origin for each in allowed if (origin := read_origin(each)) is not None
        )
        self._proxies = tuple(trusted_proxies)

    def may_connect(self, request: web.Request) -> bool:
        """Return whether the page that sent a request may connect.

        Allowed are requests without a page, and pages of this host or of an allowed
        origin.
        """
        origins = request.headers.getall(hdrs.ORIGIN, [])
        if not origins:
            return True
        return len(origins) == 1 and (self.allows(origins[0]) or self._is_own(request, origins[0]))

    def allows(self, origin: str) -> bool:
        """Return whether the configuration allows pages of ``origin``."""
        if self._any or (self._null and origin == NO_ORIGIN):
            return True
        read = read_origin(origin)
        return read is not None and read in self._allowed

    @property
    def allow_all(self) -> bool:
        """Whether every page may connect."""
        return self._any

    def client_address(self, request: web.Request) -> str:
        """Return the client's address: the sender's, or the last one before the trusted
        proxies.
        """
        address = plain_address(request.remote or "")
        forwarded = ",".join(request.headers.getall(FORWARDED_FOR, [])).split(",")
        for before in map(_without_port, reversed(forwarded)):
            if not _is_address(before) or not self._is_proxy(address):
                break
            address = plain_address(before)
        return address

    def public_url(self, request: web.Request) -> str:
        """Return how the client reached the server, without a path: scheme and host, as
        stated by a trusted proxy, else by the request.
        """
        scheme, host = request.scheme, request.host
        if self._is_proxy(plain_address(request.remote or "")):
            scheme = _first(request.headers.get(hdrs.X_FORWARDED_PROTO, "")) or scheme
            host = _first(request.headers.get(FORWARDED_HOST, "")) or host
        return f"{'https' if scheme in ('https', 'wss') else 'http'}://{host}"

    def _is_own(self, request: web.Request, text: str) -> bool:
        """Return whether a page is one of this server's.

        Behind a proxy that terminates TLS the server does not know its own scheme, so
        http and https both match. It does not know its own port either where the proxy
        leaves that out of Host. A browser that connects directly never leaves it out,
        so then only the host is compared.
        """
        origin = read_origin(text)
        if origin is None or origin.scheme not in _PORTS:
            return False
        for host in self._hosts(request):
            found = _HOST.fullmatch(host.strip())
            if found is None or found[1].lower() != origin.host:
                continue
            if origin.port == int(found[2] or 0):
                return True  # Host names the port, and it is the page's
            if not found[2] and (
                origin.port in _PORTS.values() or _port(request) not in _PORTS.values()
            ):
                return True
        return False

    def _hosts(self, request: web.Request) -> Iterable[str]:
        yield request.host
        if self._is_proxy(plain_address(request.remote or "")):
            yield from request.headers.get(FORWARDED_HOST, "").split(",")

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)


def _first(header: str) -> str:
    """Return the first value of a header to which each proxy adds one."""
    return header.partition(",")[0].strip()


def _port(request: web.Request) -> int:
    """Return the port at which the server was reached; 0 if unknown."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return int(name[1]) if isinstance(name, tuple) else 0


def _without_port(address: str) -> str:
    """Strip the port of ``1.2.3.4:80`` and ``[::1]:80``, which some proxies write."""
    found = _HOST.fullmatch(address.strip())
    return found[1].strip("[]") if found else address.strip()


def plain_address(address: str) -> str:
    """Convert an IPv4-mapped IPv6 address, as a dual-stack socket reports it, to
    IPv4.
    """
    try:
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return str(mapped) if mapped is not None else address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
