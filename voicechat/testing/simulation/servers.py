"""A whole server on a simulated machine: its endpoints, sessions, admission and
services are the real ones.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from aiohttp import web

from voicechat.config.endpoints import endpoints_of
from voicechat.config.loader import load_config
from voicechat.config.sections import Config
from voicechat.runtime.fallback.chains import chat_chains, recognition_chains, speech_chains
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.services import Services
from voicechat.server.admission import Admission
from voicechat.server.app import build_app
from voicechat.server.auth import Authoriser
from voicechat.server.metric_events import MetricEvent
from voicechat.server.mount import Mount
from voicechat.server.session_opening import Conditions
from voicechat.session.limits import SessionLimits
from voicechat.store.keys import KeyStore
from voicechat.store.ledger import Ledger
from voicechat.testing.simulation.network import ServerEnd, SimulatedLink, upgrade_request
from voicechat.testing.simulation.providers import (
    ProviderStage,
    SimulatedModel,
    SimulatedRecognizer,
    SimulatedSynthesizer,
)

KEY = "simulated-key"
MOST_SESSIONS = 1_000
_NO_FOLDER = Path("/nonexistent")
_ORDERS = {"default": ("default", "second")}
"""Each service has one fallback."""

_machine: ContextVar["SimulatedServer | None"] = ContextVar("machine", default=None)


class SimulatedServer:
    """One server. Everything that it starts belongs to it, and dies with it."""

    def __init__(self, number: int, stage: ProviderStage, *, clock_off_s: float = 0.0) -> None:
        """Within a running loop with ``machine_tasks``."""
        self.number = number
        self.clock_off_s = clock_off_s
        """How much its wall clock is ahead."""
        self.alive = True
        self._tasks: WeakValueDictionary[int, asyncio.Task[Any]] = WeakValueDictionary()
        self._task_count = 0
        self._links: dict[int, SimulatedLink] = {}
        self._context = copy_context()
        self._context.run(_machine.set, self)
        self._context.run(self._build, stage)

    def _build(self, stage: ProviderStage) -> None:
        config = _config()
        limits = config.limits
        self.ledger = Ledger()
        self.admission = Admission(MOST_SESSIONS, self.ledger)
        authorise = Authoriser(
            KeyStore(_NO_FOLDER / "keys"), {"simulation": KEY}, ledger=self.ledger
        )
        self.facts = 0
        self.mount = Mount(
            endpoints_of(config),
            _services(stage, limits),
            self.admission,
            authorise,
            Conditions(limits=limits, observe=self._observe, make_socket=ServerEnd),
        )
        self.app: web.Application = build_app(self.mount.routes())
        self.app.freeze()

    def _observe(self, fact: MetricEvent) -> None:
        self.facts += 1

    def connect(self, link: SimulatedLink, target: str, headers: Mapping[str, str]) -> None:
        """Take a connection, which begins with a request for ``target``."""
        self._links[link.number] = link
        serving = asyncio.get_running_loop().create_task(
            self._serve(link, target, headers), context=self._context.copy()
        )
        serving.add_done_callback(lambda _: self._links.pop(link.number, None))

    async def _serve(self, link: SimulatedLink, target: str, headers: Mapping[str, str]) -> None:
        task = asyncio.current_task()
        assert task is not None
        request = upgrade_request(link, target, headers, task)
        response = await self.app._handle(request)
        if response.status != 200:
            link.refuse(response.status)

    async def drain(self, deadline_s: float) -> None:
        """Stop as a server does that is told to."""
        loop = asyncio.get_running_loop()
        draining = loop.create_task(self.mount.drain(deadline_s), context=self._context.copy())
        await draining
        self.alive = False

    def crash(self, *, told: bool) -> None:
        """Die at once: nothing that is not written yet is ever written, and nothing
        leaves any more. ``told``: the machine's system still resets the connections.
        """
        self.alive = False
        for link in list(self._links.values()):
            link.crash(told=told)
        self._links.clear()
        for task in list(self._tasks.values()):
            task.cancel()

    @property
    def tasks(self) -> list[str]:
        """The names of its tasks that have not ended."""
        return sorted(
            getattr(task.get_coro(), "__qualname__", task.get_name())
            for task in list(self._tasks.values())
            if not task.done()
        )

    def adopt(self, task: "asyncio.Task[Any]") -> None:
        """Own a task."""
        self._task_count += 1
        self._tasks[self._task_count] = task


@cache
def _config() -> Config:
    """Return the configuration of a server: the defaults."""
    return load_config(Path(os.devnull), {"VOICECHAT_DATA_DIR": str(_NO_FOLDER)}, {})


def _services(stage: ProviderStage, limits: SessionLimits) -> Services:
    names = _ORDERS["default"]
    recognizers = {name: ChainLink(f"asr.{name}", SimulatedRecognizer(stage)) for name in names}
    models = {name: ChainLink(f"llm.{name}", SimulatedModel(stage)) for name in names}
    voices = {name: ChainLink(f"tts.{name}", SimulatedSynthesizer(stage)) for name in names}
    return Services(
        recognition_chains(recognizers, _ORDERS, limits),
        chat_chains(models, _ORDERS, limits),
        speech_chains(voices, _ORDERS, limits),
    )


@contextmanager
def machine_tasks(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """While the context lasts, each new task belongs to the server that starts it."""

    def start(loop: asyncio.AbstractEventLoop, work: Any, **how: Any) -> "asyncio.Task[Any]":
        task = asyncio.Task(work, loop=loop, **how)
        context = how.get("context")
        machine = _machine.get() if context is None else context.get(_machine)
        if machine is not None:
            machine.adopt(task)
        return task

    loop.set_task_factory(start)
    try:
        yield
    finally:
        loop.set_task_factory(None)


def machine_clock_off_s() -> float:
    """Return how much the wall clock of the server that asks is ahead; 0 elsewhere."""
    machine = _machine.get()
    return 0.0 if machine is None else machine.clock_off_s
