"""The listening socket: an aiohttp application on one address, tuned for long-lived
WebSockets.
"""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from voicechat.errors import ConfigError
from voicechat.server.connections import HTTP_OPTIONS, Connections

BACKLOG = 1024
"""The kernel's backlog: connections not accepted yet."""
CLOSE_S = 2.0
"""How long open connections may take to close when the listener ends; sessions have
been drained before.
"""


@asynccontextmanager
async def handling(app: web.Application) -> AsyncIterator[Connections]:
    """Run an application while the context lasts; yields the factory of its
    connections.

    Leaving closes every connection within ``CLOSE_S``.
    """
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=CLOSE_S, **HTTP_OPTIONS)
    try:
        await runner.setup()
        assert runner.server is not None
        yield Connections(runner.server)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def listening(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Listen while the context lasts; yields the port, which the kernel chooses if
    ``port`` is 0.

    Raises ConfigError when the address cannot be bound. Leaving closes every connection
    within ``CLOSE_S``.
    """
    loop = asyncio.get_running_loop()
    async with handling(app) as connections:
        bound = await bind(host, port)
        servers = [
            await loop.create_server(connections, sock=each, backlog=BACKLOG) for each in bound
        ]
        try:
            yield int(bound[0].getsockname()[1])
        finally:
            for server in servers:
                server.close()


async def bind(host: str, port: int) -> list[socket.socket]:
    """Bind a socket to each address of ``host``, all with the same port.

    ``::`` means every address, IPv4 included, which asyncio alone would not do. Raises
    ConfigError when an address cannot be bound.
    """
    try:
        if _is_any_ipv6(host) and socket.has_dualstack_ipv6():
            family = socket.AF_INET6
            return [
                socket.create_server(
                    ("::", port), family=family, dualstack_ipv6=True, backlog=BACKLOG
                )
            ]
        return await _bind_each(host.strip("[]"), port)
    except OSError as error:
        raise ConfigError(why_not(host, port, error)) from error


async def _bind_each(host: str, port: int) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            given = (address[0], port, *address[2:])
            try:
                bound.append(socket.create_server(given, family=family, backlog=BACKLOG))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise  # in use, or not permitted: serve all addresses or none
                missing = error  # a name may resolve to a family that the machine lacks
            else:
                # With port 0 the kernel chooses for the first socket; the rest follow.
                port = int(bound[-1].getsockname()[1])
        if not bound:
            raise missing or OSError(errno.EADDRNOTAVAIL, "no such address")
    except BaseException:
        for each in bound:
            each.close()
        raise
    return bound


def _is_any_ipv6(host: str) -> bool:
    try:
        return ipaddress.IPv6Address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``.

    Of the names only ``localhost`` counts; nothing is resolved.
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def base_url(host: str, port: int) -> str:
    """Return the URL for a person to open, with loopback in place of an any-address."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def why_not(host: str, port: int, error: OSError) -> str:
    """Return the message for an address that cannot be listened on."""
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"server.port: {port} is in use on {host}; "
                "stop the other program or choose another port"
            )
        case errno.EACCES:
            return (
                f"server.port: {port} needs privileges that this user does not have; "
                "choose one above 1023"
            )
        case _:
            reason = error.strerror or "no such address"
            return f"server.host: cannot listen on {host} port {port}: {reason}"
