"""Every store does what the simplest store would do, whatever happens in whatever order:
two processes that use it, leases that are lost, time that passes, a store that loses all.
"""

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from redis import Redis

from tests.redis_server import RedisServer, redis_server
from voicechat.store.resumption.interface import (
    Lease,
    LeaseLostError,
    ResumptionStore,
)
from voicechat.store.resumption.memory import MemoryResumptionStore
from voicechat.store.resumption.redis import PREFIX, RedisResumptionStore
from voicechat.store.resumption.sealed import SealedStore
from voicechat.store.resumption.sqlite import SqliteResumptionStore

__all__ = ["redis_server"]

LIFETIME_S = 40_000.0
"""Long, so that the time that a test takes does not count."""
DEADLINE_S = 60.0
NAMES = ("a", "b")
T = TypeVar("T")


@dataclass
class Record:
    """What the model keeps of one conversation."""

    lease: Lease
    state: bytes | None
    expires_s: float
    ended: bool = False


class Backend:
    """A store as two processes use it, on a clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.processes: list[ResumptionStore] = []

    def advance(self, seconds: float) -> None:
        self.now_s += seconds

    def lose_everything(self) -> None:
        raise NotImplementedError

    def restart(self, process: int) -> ResumptionStore:
        """Return what a new process would use in place of that one."""
        return self.processes[process]

    def close(self) -> None:
        """Free what the backend holds, after its stores were closed."""


class InMemory(Backend):
    def __init__(self) -> None:
        super().__init__()
        self._store = MemoryResumptionStore(LIFETIME_S, lambda: self.now_s)
        self.processes = [self._store, self._store]

    def lose_everything(self) -> None:
        self._store.forget_everything()


class Encrypted(InMemory):
    def __init__(self) -> None:
        super().__init__()
        old, new = bytes(32), bytes([1]) * 32
        # The second process has not been given the newer key yet.
        self.processes = [SealedStore(self._store, [new, old]), SealedStore(self._store, [new])]


class InSqlite(Backend):
    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.processes = [self._open(), self._open()]

    def _open(self) -> ResumptionStore:
        path = Path(self._folder.name) / "states.sqlite3"
        return SqliteResumptionStore(path, LIFETIME_S, lambda: self.now_s)

    def lose_everything(self) -> None:
        store = self.processes[0]
        assert isinstance(store, SqliteResumptionStore)
        store._database().execute("DELETE FROM conversation")

    def restart(self, process: int) -> ResumptionStore:
        return self._open()

    def close(self) -> None:
        self._folder.cleanup()


class InRedis(Backend):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._client = Redis.from_url(url)
        self._client.flushall()
        self.processes = [self._open(), self._open()]

    def _open(self) -> ResumptionStore:
        return RedisResumptionStore(self._url, LIFETIME_S, deadline_s=DEADLINE_S)

    def advance(self, seconds: float) -> None:
        """Let each key be as much nearer to its end, as Redis counts it."""
        super().advance(seconds)
        for key in self._client.keys(f"{PREFIX}*"):
            left_ms = self._client.pttl(key) - round(seconds * 1000)
            assert 0 < left_ms + round(seconds * 1000) <= LIFETIME_S * 1000, "no expiry is set"
            if left_ms > 0:
                self._client.pexpire(key, left_ms)
            else:
                self._client.delete(key)

    def lose_everything(self) -> None:
        self._client.flushall()

    def restart(self, process: int) -> ResumptionStore:
        return self._open()

    def close(self) -> None:
        self._client.close()


class Stores(RuleBasedStateMachine):
    """Compares a store with a model of it."""

    open_backend: Callable[[], Backend]
    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.backend = self.open_backend()
        self.records: dict[str, Record] = {}
        self.contents = itertools.count()
        for process in self.backend.processes:
            self.run(process.start())

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            for process in self.backend.processes:
                self.run(process.aclose())
            self.backend.close()
            self.runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def kept(self, name: str) -> Record | None:
        """The record of the model, unless it has expired."""
        record = self.records.get(name)
        if record is not None and record.expires_s <= self.backend.now_s:
            del self.records[name]
            return None
        return record

    def keep(self, lease: Lease, state: bytes | None, *, ended: bool = False) -> None:
        expires_s = self.backend.now_s + LIFETIME_S
        self.records[lease.conversation] = Record(lease, state, expires_s, ended)

    def is_lost(self, lease: Lease) -> bool:
        record = self.kept(lease.conversation)
        if record is None or record.lease.fence < lease.fence:
            return False
        return record.lease != lease or record.ended

    @rule(target=leases, name=st.sampled_from(NAMES), process=st.integers(0, 1))
    def acquire(self, name: str, process: int) -> tuple[Lease, int]:
        record = self.kept(name)
        owner = f"process-{process}"
        lease, state = self.run(self.backend.processes[process].acquire(name, owner))
        assert (lease.conversation, lease.owner) == (name, owner)
        assert state == (record.state if record else None)
        assert record is None or lease.fence > record.lease.fence
        self.keep(lease, state)
        return lease, process

    @rule(held=leases)
    def save(self, held: tuple[Lease, int]) -> None:
        lease, process = held
        state = f"state {next(self.contents)} of {lease.owner}".encode()
        saving = self.backend.processes[process].save(lease, state)
        if self.is_lost(lease):
            with pytest.raises(LeaseLostError):
                self.run(saving)
        else:
            self.run(saving)
            self.keep(lease, state)

    @rule(held=st.lists(leases, max_size=5))
    def renew(self, held: list[tuple[Lease, int]]) -> None:
        wanted = {lease.conversation: lease for lease, _ in held}.values()
        found = self.run(self.backend.processes[0].renew(wanted))
        lost = {lease for lease in wanted if self.is_lost(lease)}
        missing = set()
        for lease in set(wanted) - lost:
            record = self.kept(lease.conversation)
            state = record.state if record is not None and record.lease == lease else None
            if state is None:
                missing.add(lease)
            self.keep(lease, state)
        assert set(found.lost) == lost
        assert set(found.missing) == missing

    @rule(held=leases)
    def end(self, held: tuple[Lease, int]) -> None:
        lease, process = held
        self.run(self.backend.processes[process].end(lease))
        if not self.is_lost(lease):
            self.keep(lease, None, ended=True)

    @rule(seconds=st.sampled_from([1_000.0, LIFETIME_S - 1_000.0, LIFETIME_S + 1_000.0]))
    def advance(self, seconds: float) -> None:
        self.backend.advance(seconds)

    @rule()
    def lose_everything(self) -> None:
        self.backend.lose_everything()
        self.records.clear()

    @rule(process=st.integers(0, 1))
    def restart(self, process: int) -> None:
        opened = self.backend.restart(process)
        if opened is not self.backend.processes[process]:
            self.run(self.backend.processes[process].aclose())
            self.backend.processes[process] = opened
            self.run(opened.start())


def check(open_backend: Callable[[], Backend], examples: int, steps: int) -> None:
    machine = type("Machine", (Stores,), {"open_backend": staticmethod(open_backend)})
    run_machine(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],  # to shrink takes minutes
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_memory_keeps_states_as_the_model_does() -> None:
    check(InMemory, 12, 25)


@pytest.mark.long
def test_memory_keeps_states_as_the_model_does_for_long() -> None:
    check(InMemory, 100, 50)


@pytest.mark.long
def test_encrypted_states_are_kept_as_the_model_does() -> None:
    check(Encrypted, 30, 30)


@pytest.mark.long
def test_sqlite_keeps_states_as_the_model_does() -> None:
    check(InSqlite, 30, 30)


@pytest.mark.long
@pytest.mark.real_time
def test_redis_keeps_states_as_the_model_does(redis_server: RedisServer) -> None:
    check(lambda: InRedis(redis_server.url), 30, 30)
