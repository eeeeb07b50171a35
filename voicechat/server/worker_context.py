"""Where a process stands among those of its server: what it shares with them, and how
connections reach it.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from aiohttp import web

from voicechat.config import Config
from voicechat.server.health import Health
from voicechat.server.listener import listening
from voicechat.server.load_signals import LoadLevel
from voicechat.server.mount import PassOn
from voicechat.store.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """One process' place."""

    ledger: Ledger
    listen: Callable[[web.Application], AbstractAsyncContextManager[int]]
    """Serve an application while the context lasts; gives the port."""
    pass_on: PassOn = lambda _request, _session: False
    on_level: Callable[[LoadLevel], None] = lambda _: None
    """Told each new level of pressure."""
    shared: Path | None = None
    """The folder that the metrics of several processes are collected in; None: there is
    only this one.
    """
    health: Health = field(default_factory=Health)


def single_process(config: Config) -> WorkerContext:
    """The place of a process that is the whole server."""
    return WorkerContext(
        ledger=Ledger(), listen=partial(listening, host=config.server.host, port=config.server.port)
    )
