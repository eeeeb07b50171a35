"""Runs a scenario: servers, clients and the network between them on one virtual clock.

A run depends on nothing but its scenario: the clock is virtual, random numbers and the
wall clock are simulated, and no thread takes part. ``RunOutcome.digest`` tells two runs
apart.
"""

import asyncio
import gc
import logging
import random
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from voicechat.runtime import wall_clock
from voicechat.session.types import Message
from voicechat.testing.simulation.clients.client import SimulatedClient
from voicechat.testing.simulation.clients.speech_chat import SpeechChatClient
from voicechat.testing.simulation.invariants import Violation
from voicechat.testing.simulation.network import SimulatedLink, Trace
from voicechat.testing.simulation.providers import ProviderStage
from voicechat.testing.simulation.scenario import Incident, Scenario, Visit
from voicechat.testing.simulation.servers import (
    SimulatedServer,
    machine_clock_off_s,
    machine_tasks,
)
from voicechat.testing.virtual_time import StalledError, VirtualTimeLoop

_EPOCH_S = 1_800_000_000
_SETTLE_S = 100.0
"""After the last client: longer than any session outlives a client that has vanished.
"""
_DRAIN_S = 5.0
_MOST_VIOLATIONS = 20
_CLIENTS: Mapping[str, Callable[[Visit, "World"], SimulatedClient]] = {
    "speech-chat": SpeechChatClient,
}


@dataclass(slots=True)
class RunOutcome:
    """What a run has shown."""

    scenario: Scenario
    violations: list[Violation]
    digest: str
    """Of all that crossed the network, with its times."""
    hours: float
    """How long clients were connected, together."""
    turns: int
    connects: int
    virtual_s: float
    entries: list[str] | None = None
    """The trace, if it was kept."""

    @property
    def failed(self) -> bool:
        """Whether a rule did not hold."""
        return bool(self.violations)


class World:
    """Everything of one run."""

    def __init__(self, scenario: Scenario, *, keep_trace: bool = False) -> None:
        self.scenario = scenario
        self.stage = ProviderStage(
            {turn.head: turn for visit in scenario.visits for turn in visit.turns}
        )
        self.stage.on_request = self._on_request
        self.trace = Trace(keep=keep_trace)
        self.violations: list[Violation] = []
        self.servers: list[SimulatedServer] = []
        self.connects = 0
        self.turns = 0
        self._asking: dict[int, SimulatedClient] = {}
        self._next_server = 0

    # --- for the clients --------------------------------------------------------------

    def connect(
        self, visit: Visit, target: str, headers: Mapping[str, str]
    ) -> SimulatedLink | None:
        """Connect a client to the next server that is alive."""
        for _ in self.servers:
            self._next_server += 1
            server = self.servers[self._next_server % len(self.servers)]
            if server.alive:
                self.connects += 1
                link = SimulatedLink(
                    self.connects,
                    visit.quality,
                    random.Random(f"{visit.seed}/{self.connects}"),
                    self.trace,
                    f"10.0.{visit.number // 250}.{visit.number % 250 + 1}",
                )
                server.connect(link, target, headers)
                return link
        return None

    def report(self, violation: Violation) -> None:
        """Note a violation; of a visit only the first one, from which others follow."""
        if violation.visit >= 0 and violation.visit in {known.visit for known in self.violations}:
            return
        if len(self.violations) < _MOST_VIOLATIONS:
            self.violations.append(violation)

    def expect_requests(self, client: SimulatedClient, heads: list[int]) -> None:
        """Tell the client of each request to a model about its utterances."""
        self._asking.update(dict.fromkeys(heads, client))

    def count_turn(self) -> None:
        """Count a turn."""
        self.turns += 1

    def _on_request(self, head: int, messages: tuple[Message, ...]) -> None:
        if client := self._asking.get(head):
            client.asked(head, messages)

    # --- the run ----------------------------------------------------------------------

    async def run(self) -> RunOutcome:
        """Play the scenario."""
        loop = asyncio.get_running_loop()
        with machine_tasks(loop):
            self.servers = [
                SimulatedServer(number, self.stage) for number in range(self.scenario.servers)
            ]
            clients = [_CLIENTS[visit.client](visit, self) for visit in self.scenario.visits]
            incidents = [
                loop.create_task(self._befall(incident)) for incident in self.scenario.incidents
            ]
            await asyncio.gather(*[client.run() for client in clients])
            await asyncio.gather(*incidents)
            await asyncio.sleep(_SETTLE_S)
            self._check_servers()
            for server in self.servers:
                if server.alive:
                    await server.drain(_DRAIN_S)
        return RunOutcome(
            self.scenario,
            self.violations,
            self.trace.digest,
            sum(client.connected_s for client in clients) / 3600,
            self.turns,
            self.connects,
            loop.time(),
            self.trace.entries,
        )

    async def _befall(self, incident: Incident) -> None:
        await asyncio.sleep(incident.at_s)
        server = self.servers[incident.server % len(self.servers)]
        if not server.alive:
            return
        if incident.kind == "drain":
            await server.drain(_DRAIN_S)
        else:
            server.crash(told=incident.kind == "crash")
        await asyncio.sleep(incident.back_s)
        self.servers[incident.server % len(self.servers)] = SimulatedServer(
            server.number, self.stage
        )

    def _check_servers(self) -> None:
        """Check that nothing is left of the sessions."""
        now_s = asyncio.get_running_loop().time()

        def must(holds: bool, what: str) -> None:
            if not holds:
                self.report(Violation("leak", -1, now_s, what))

        for server in self.servers:
            if not server.alive:
                continue
            must(server.admission.sessions == 0, f"{server.admission.sessions} sessions are open")
            places = server.admission.all_sessions
            must(places == 0, f"{places} places are taken")
            must(not server.tasks, f"tasks are left: {server.tasks[:5]}")
            must(server.mount.resumable == 0, "resumable sessions are left")
        must(self.stage.open == 0, f"{self.stage.open} streams of providers are open")


class _ErrorLog(logging.Handler):
    """Notes what servers log as an error: a fault of theirs."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Note an entry."""
        with suppress(RuntimeError):
            now_s = asyncio.get_running_loop().time()
            text = f"{record.name}: {record.getMessage()}"
            self._world.report(Violation("fault", -1, now_s, text))


@contextmanager
def _simulated_chance(seed: int) -> Iterator[None]:
    """Take random numbers from the seed, and the wall clock from the loop."""
    source = random.Random(seed)

    def now_ns() -> int:
        now_s = asyncio.get_running_loop().time() + machine_clock_off_s()
        return int((_EPOCH_S + now_s) * 1e9)

    def token_bytes(nbytes: int | None = None) -> bytes:
        return source.randbytes(32 if nbytes is None else nbytes)

    def token_urlsafe(nbytes: int | None = None) -> str:
        return token_bytes(nbytes).hex()

    patches: list[tuple[Any, str, Any]] = [
        (secrets, "token_bytes", token_bytes),
        (secrets, "token_hex", token_urlsafe),
        (secrets, "token_urlsafe", token_urlsafe),
        (secrets, "randbelow", source.randrange),
        (uuid, "uuid4", lambda: uuid.UUID(bytes=token_bytes(16), version=4)),
        (wall_clock, "now_ns", now_ns),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        for owner, name, value in before:
            setattr(owner, name, value)


def run_scenario(scenario: Scenario, *, keep_trace: bool = False) -> RunOutcome:
    """Run a scenario on a loop of its own. Not while another loop runs in the
    thread.
    """
    world = World(scenario, keep_trace=keep_trace)
    log = _ErrorLog(world)
    logger = logging.getLogger()
    quiet = logging.getLogger("voicechat")
    level, propagate = quiet.level, quiet.propagate
    logger.addHandler(log)
    quiet.setLevel(logging.ERROR)
    try:
        with (
            _simulated_chance(scenario.seed),
            asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
        ):
            return runner.run(world.run())
    except StalledError as error:
        world.report(Violation("stall", -1, 0.0, str(error)))
        return RunOutcome(scenario, world.violations, world.trace.digest, 0.0, 0, 0, 0.0)
    finally:
        logger.removeHandler(log)
        quiet.setLevel(level)
        quiet.propagate = propagate
        gc.collect(0)
