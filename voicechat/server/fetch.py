"""Fetches a client's URL, with protection against server-side request forgery (SSRF).

The check is made on the address of every dial of every redirect. Whatever a name
resolves to, however often the answer changes and however an address is written, the
socket is opened to a public or an explicitly allowed address, or not at all. Names and
URL texts are not trusted.

Proxies of the environment are not used: behind one the check would see only the proxy.

Names are resolved in separate threads, shared fairly among keys: a name server that
never answers delays only the key that named it.
"""

import asyncio
import ipaddress
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    hdrs,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from voicechat.errors import RemoteProtocolError, Status, VoiceChatError
from voicechat.server.fair_semaphore import FairSemaphore
from voicechat.server.min_data_rate import LEAST_BYTES_PER_S, MinDataRateReader, TooSlowError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Dial: TypeAlias = tuple[
    int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]
]
"""The argument of aiohttp's socket factory: an entry of ``socket.getaddrinfo``."""
Write: TypeAlias = Callable[[bytes], Awaitable[None]]

MAX_URL_CHARACTERS = 4096
MAX_REDIRECTS = 3
CONNECT_S = 5.0
RESOLVE_S = 5.0
HEAD_S = 30.0
"""Time limit for the head of one response."""
IDLE_S = 30.0
TOTAL_S = 1800.0
LOOKUPS = 12
"""Threads for name resolution, plus ``RESERVED_LOOKUPS`` for keys that hold none."""
RESERVED_LOOKUPS = 4
PIECE_BYTES = 256 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)

# Python's ipaddress counts some of these as global. They embed another address, belong
# to a site, or are where clouds run services for their own machines.
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # protocol assignments (RFC 6890), among them Oracle's metadata 192.0.0.192
        "168.63.129.16/32",  # Azure's platform services
        "161.26.0.0/16",  # IBM Cloud's own services
        "166.8.0.0/14",  # IBM Cloud's private endpoints
        "192.31.196.0/24",  # AS112 (RFC 7535)
        "192.52.193.0/24",  # AMT (RFC 7450)
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "192.175.48.0/24",  # AS112 (RFC 7534)
        "100.64.0.0/10",  # shared by carriers (RFC 6598), among them Alibaba's metadata
        "2001::/23",  # protocol assignments (RFC 2928), Teredo among them
        "2001:db8::/32",  # documentation (RFC 3849)
        "2620:4f:8000::/48",  # AS112 (RFC 7534)
        "3fff::/20",  # documentation (RFC 9637)
        "5f00::/16",  # segment routing (RFC 9602)
        "64:ff9b::/96",  # NAT64 (RFC 6052)
        "64:ff9b:1::/48",  # local NAT64 (RFC 8215)
        "2002::/16",  # 6to4 (RFC 3056)
        "::/96",  # IPv4-compatible (RFC 4291, 2.5.5.1)
        "fec0::/10",  # site-local (RFC 3879)
    )
)

logger = logging.getLogger(__name__)


class FetchError(VoiceChatError):
    """The recording could not be fetched.

    ``reason`` may be shown to the client: it reveals nothing about the server's
    network.
    """

    def __init__(self, reason: str, status: Status = Status.INVALID_PARAMETER) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What may be fetched. Cloud metadata services are refused like all private
    addresses.
    """

    allowed_networks: tuple[Network, ...] = ()
    """Networks allowed besides the public ones, for recordings on the operator's
    machines.
    """
    ports: frozenset[int] = frozenset({80, 443})
    max_bytes: int = 1024**3

    def allows(self, address: Address) -> bool:
        """Return whether a socket to ``address`` may be opened."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return is_public(address) or any(address in network for network in self.allowed_networks)


def is_public(address: Address) -> bool:
    """Return whether an address is on the public internet and embeds no other address.

    ``address`` must not be IPv4-mapped.
    """
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return not any(
        address in network for network in _NEVER_PUBLIC if network.version == address.version
    )


def check_url(text: str, policy: FetchPolicy, path: str = "audio_url") -> URL:
    """Refuse a URL that is not worth fetching. Raises ``RemoteProtocolError`` naming
    the parameter ``path``.
    """
    try:
        if not text:
            raise ValueError("must be present")
        if len(text) > MAX_URL_CHARACTERS:
            raise ValueError(f"longer than {MAX_URL_CHARACTERS} characters")
        url = URL(text)
        check_address(url, policy)
    except ValueError as error:
        raise RemoteProtocolError(Status.INVALID_PARAMETER, f"{path}: {error}") from None
    return url


def check_address(url: URL, policy: FetchPolicy) -> None:
    """Raise ``ValueError`` if the text of the URL shows that no socket would be opened
    for it.
    """
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("should be an absolute http or https URL")
    if url.user is not None or url.password is not None:
        raise ValueError("should hold no user name and password")
    if url.port not in policy.ports:
        raise ValueError(f"port {url.port} is not allowed")


async def fetch(url: URL, write: Write, policy: FetchPolicy, resolver: AbstractResolver) -> None:
    """Pass the content of ``url`` to ``write``, in pieces.

    Raises ``FetchError``; the caller then removes the partial content. Cancelling
    closes the connection.
    """
    guard = AddressGuard(policy)
    timeout = ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S, sock_read=IDLE_S)
    try:
        async with ClientSession(
            connector=guard.connector(resolver, limit=1),
            timeout=timeout,
            cookie_jar=DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: "voicechat"},
        ) as session:
            await _follow(session, url, write, policy)
    except TimeoutError:
        raise FetchError("its server does not answer in time") from None
    except TooSlowError:
        raise FetchError(f"its server sends less than {LEAST_BYTES_PER_S} bytes a second") from None
    except (ClientError, OSError, ValueError) as error:
        # ValueError: from yarl and the codecs, for an invalid host or Location.
        logger.info("a fetch failed: %s", type(error).__name__)
        refused = "it leads to an address that is not allowed"
        raise FetchError(refused if guard.refused else "it cannot be fetched") from None


async def _follow(session: ClientSession, url: URL, write: Write, policy: FetchPolicy) -> None:
    for _ in range(MAX_REDIRECTS + 1):
        async with asyncio.timeout(HEAD_S):
            answer = await session.get(url, allow_redirects=False)
        async with answer as response:
            if response.status not in _REDIRECTS:
                await _read(response, write, policy.max_bytes)
                return
            url = url.join(URL(response.headers.get(hdrs.LOCATION, "")))
        check_address(url, policy)
    raise FetchError(f"it redirects more than {MAX_REDIRECTS} times")


async def _read(response: ClientResponse, write: Write, max_bytes: int) -> None:
    if response.status != 200:
        raise FetchError(f"its server answers with status {response.status}")
    if response.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
        raise FetchError("its server sends compressed content unasked")
    too_large = FetchError(f"it may have {max_bytes} bytes", Status.TOO_LARGE)
    if (response.content_length or 0) > max_bytes:
        raise too_large
    read_bytes = 0
    reader = MinDataRateReader(lambda: response.content.read(PIECE_BYTES), IDLE_S)
    while piece := await reader.read_piece():
        read_bytes += len(piece)
        if read_bytes > max_bytes:
            raise too_large
        await write(piece)


class NameResolver:
    """Resolves the host names of clients' URLs, for all keys together."""

    def __init__(self) -> None:
        self._slots = FairSemaphore(LOOKUPS, RESERVED_LOOKUPS)

    def resolver_for(self, key: str) -> AbstractResolver:
        """Return the resolver for one key's fetches."""
        return _KeyResolver(self._slots, key)


class _KeyResolver(AbstractResolver):
    """The resolver of one key; see ``NameResolver``."""

    def __init__(self, slots: FairSemaphore, key: str) -> None:
        self._slots = slots
        self._key = key

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a name with the system's resolver. Raises ``OSError`` or
        ``TimeoutError``.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()
        async with asyncio.timeout(RESOLVE_S):
            await self._slots.acquire_slot(self._key)
            threading.Thread(
                target=self._look_up,
                args=(loop, found, host, port, family),
                name="resolve",
                daemon=True,
            ).start()
            return await found

    async def close(self) -> None:
        """Do nothing: nothing is open."""

    def _look_up(
        self,
        loop: asyncio.AbstractEventLoop,
        found: "asyncio.Future[list[ResolveResult]]",
        host: str,
        port: int,
        family: socket.AddressFamily,
    ) -> None:
        """Resolve in a thread, and hold the slot until the system has answered, even if
        the caller has been cancelled.
        """
        results: list[ResolveResult] = []
        failure: Exception | None = None
        try:
            infos = socket.getaddrinfo(
                host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
            results = [_resolved(host, port, info) for info in infos if len(info[4]) in (2, 4)]
        except (OSError, UnicodeError) as error:
            failure = error if isinstance(error, OSError) else OSError("the name is none")

        def deliver() -> None:
            self._slots.release_slot(self._key)
            if found.done():
                return
            if failure is not None:
                found.set_exception(failure)
            else:
                found.set_result(results)

        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(deliver)


def _resolved(host: str, port: int, info: Dial) -> ResolveResult:
    family, _, protocol, _, address = info
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(
        hostname=host, host=address[0], port=port, family=family, proto=protocol, flags=flags
    )


class AddressGuard:
    """Opens the sockets of one fetch, or of one connection, if the address is
    allowed.
    """

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy
        self.refused = False

    def connector(self, resolver: AbstractResolver, limit: int = 4) -> TCPConnector:
        """Make the connector of one ``ClientSession``, with at most ``limit``
        connections, each for one request.
        """
        return TCPConnector(
            socket_factory=self.open_socket,
            resolver=resolver,
            use_dns_cache=False,
            force_close=True,
            limit=limit,
        )

    def open_socket(self, dial: Dial) -> socket.socket:
        """Open a socket for an allowed address.

        Raises ``OSError`` for any other one; aiohttp then tries the next address.
        """
        family, kind, protocol, _, sockaddr = dial
        # A scoped address, as fe80::1%eth0, is not parsed; it is always link-local and
        # so never allowed.
        address = ipaddress.ip_address(sockaddr[0])
        if not self._policy.allows(address):
            self.refused = True
            logger.warning("refused to fetch from %s", address)
            raise OSError("the address is not allowed")
        return socket.socket(family, kind, protocol)
