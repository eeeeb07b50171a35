"""The listening socket: an aiohttp application on one address, set up for long-lived WebSockets."""

import asyncio
import errno
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from voicechat.errors import ConfigError
from voicechat.server.connections import HTTP_OPTIONS, Connections

CLOSE_S = 2.0
"""For connections that are still open when the listener ends; sessions have been drained before."""


@asynccontextmanager
async def handling(app: web.Application) -> AsyncIterator[Connections]:
    """Run an application while the context lasts; gives the factory of its connections.

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
    """Listen while the context lasts; gives the port, which matters when 0 was asked for.

    ConfigError when the address cannot be had. Leaving closes every connection within ``CLOSE_S``.
    """
    async with handling(app) as connections:
        try:
            server = await asyncio.get_running_loop().create_server(connections, host, port)
        except OSError as error:
            raise ConfigError(why_not(host, port, error)) from error
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``. A name counts when it is ``localhost``; no look-up is made."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def base_url(host: str, port: int) -> str:
    """Write the address as a person opens it: any-address hosts are reached through loopback."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def why_not(host: str, port: int, error: OSError) -> str:
    """Say why the address cannot be listened on."""
    match error.errno:
        case errno.EADDRINUSE:
            return f"server.port: {port} is in use on {host}; stop the other program or choose another port"
        case errno.EACCES:
            return f"server.port: {port} needs privileges that this user does not have; choose one above 1023"
        case _:
            return f"server.host: cannot listen on {host} port {port}: {error.strerror or 'no such address'}"
