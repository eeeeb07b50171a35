"""The resources that a process shares with the server's other processes, and how
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
    """The context of one process."""

    ledger: Ledger
    listen: Callable[[web.Application], AbstractAsyncContextManager[int]]
    """Serves an application while the context lasts; yields the port."""
    pass_on: PassOn = lambda _request, _session: False
    on_level: Callable[[LoadLevel], None] = lambda _: None
    """Called with each new load level."""
    shared: Path | None = None
    """The folder where several processes collect their metrics; None with one process.
    """
    health: Health = field(default_factory=Health)


def single_process(config: Config) -> WorkerContext:
    """Return the context of a process that is the whole server."""
    return WorkerContext(
        ledger=Ledger(), listen=partial(listening, host=config.server.host, port=config.server.port)
    )
