"""The listening socket: an aiohttp application on one address, set up for long-lived WebSockets."""

import errno
import ipaddress
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from voicechat.errors import ConfigError
from voicechat.server.access_log import AccessLogger, without_request_text

CLOSE_S = 2.0
"""For connections that are still open when the listener ends; sessions have been drained before."""

_access_log = logging.getLogger("voicechat.access")
_http_log = logging.getLogger("voicechat.http")
_http_log.addFilter(without_request_text)


def app_runner(app: web.Application) -> web.AppRunner:
    """Make what serves an application's connections; ``cleanup`` closes every one within ``CLOSE_S``."""
    return web.AppRunner(
        app,
        handle_signals=False,
        access_log=_access_log,
        access_log_class=AccessLogger,
        logger=_http_log,
        shutdown_timeout=CLOSE_S,
    )


@asynccontextmanager
async def listening(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Listen while the context lasts; gives the port, which matters when 0 was asked for.

    ConfigError when the address cannot be had. Leaving closes every connection within ``CLOSE_S``.
    """
    runner = app_runner(app)
    try:
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(why_not(host, port, error)) from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


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
