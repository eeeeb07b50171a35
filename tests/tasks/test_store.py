"""The promises of a task store, kept by each kind of database."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from tests.tasks.conftest import PREPARED
from voicechat.errors import AdmissionError, Status
from voicechat.runtime.wall_clock import unix_s
from voicechat.store.tasks.interface import (
    IdempotencyConflictError,
    ReportProgress,
    StoredTask,
    Submission,
    TaskFailedError,
    TaskStatus,
    TaskStore,
    Work,
)
from voicechat.store.tasks.on_demand import OnDemandTaskStore, TaskSettings, open_task_store

pytestmark = pytest.mark.real_time

ALICE, BOB = "alice", "bob"


@dataclass
class Clerk:
    """Does what a task's payload says, and remembers what it was given."""

    begun: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def work(self, task: StoredTask, report: ReportProgress) -> str:
        self.begun.append(task.id)
        what = task.payload["what"]
        report(0.5)
        if what == "fail":
            raise TaskFailedError("41502: it is broken")
        if what == "bug":
            raise ValueError("said in confidence")
        if what == "wait":
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.stopped.append(task.id)
                raise
        return f"did {what}"


@dataclass
class Office:
    """Where stores are opened, one after the other on the same database."""

    settings: TaskSettings

    @asynccontextmanager
    async def opened(self, work: Work) -> AsyncIterator[TaskStore]:
        store = await open_task_store(self.settings, work)
        try:
            yield store
        finally:
            await store.aclose()


def new_database(server_url: str) -> str:
    name = f"tasks_{secrets.token_hex(4)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {PREPARED}".encode())
    return server_url.rpartition("/")[0] + f"/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def office(request: pytest.FixtureRequest, tasks_folder: Path) -> Office:
    url = (
        new_database(request.getfixturevalue("prepared_postgres_url"))
        if request.param == "postgresql"
        else ""
    )
    return Office(
        TaskSettings(
            folder=tasks_folder, database_url=url, poll_s=0.02, adopt_s=0.1, max_attempts=2
        )
    )


def submission(what: str, owner: str = ALICE, **more: str) -> Submission:
    return Submission(owner=owner, payload={"what": what}, fingerprint=what, **more)


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(120):
        while not await condition():  # noqa: ASYNC110 - what another process does has no event
            await asyncio.sleep(0.02)


async def ended(store: TaskStore, task: StoredTask) -> StoredTask:
    async with asyncio.timeout(120):
        while True:
            found = await store.find_task(task.owner, task.id)
            assert found is not None
            if found.status.finished:
                return found
            await asyncio.sleep(0.02)


async def test_a_task_is_done_and_its_result_is_kept(office: Office) -> None:
    clerk = Clerk()
    async with office.opened(clerk.work) as store:
        task, is_new = await store.submit_task(submission("this"))
        # It may have been taken up while it was being written.
        assert task.status in (TaskStatus.WAITING, TaskStatus.DOING)
        assert (is_new, task.result) == (True, "")
        assert abs(task.created_s - unix_s()) < 5
        done = await ended(store, task)
    assert (done.status, done.result, done.error, done.progress) == (
        TaskStatus.SUCCESS,
        "did this",
        "",
        1.0,
    )
    assert clerk.begun == [task.id]
    async with office.opened(Clerk().work) as store:
        assert await store.find_task(ALICE, task.id) == done


async def test_a_task_that_fails_says_why_but_nothing_of_its_contents(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    async with office.opened(Clerk().work) as store:
        for what, error in (("fail", "41502: it is broken"), ("bug", "internal")):
            task, _ = await store.submit_task(submission(what))
            done = await ended(store, task)
            assert (await store.newest_tasks(ALICE, 1)) == [done]
            assert (done.status, done.error, done.result) == (TaskStatus.FAILED, error, "")
    assert "confidence" not in caplog.text


async def test_a_task_belongs_to_its_owner(office: Office) -> None:
    owner, other = secrets.token_hex(4), secrets.token_hex(4)
    async with office.opened(Clerk().work) as store:
        first, _ = await store.submit_task(submission("this", owner))
        second, _ = await store.submit_task(submission("that", owner))
        assert await store.find_task(other, first.id) is None
        assert await store.newest_tasks(other, 10) == []
        assert await store.delete_task(other, first.id) is None
        assert [task.id for task in await store.newest_tasks(owner, 10)] == [second.id, first.id]
        assert [task.id for task in await store.newest_tasks(owner, 1)] == [second.id]


async def test_one_idempotency_key_makes_one_task_however_many_ask_at_once(office: Office) -> None:
    key = secrets.token_hex(8)
    clerk = Clerk()
    async with office.opened(clerk.work) as store:
        answers = await asyncio.gather(
            *(store.submit_task(submission("this", idempotency_key=key)) for _ in range(8))
        )
        (task_id,) = {task.id for task, _ in answers}
        assert sorted(is_new for _, is_new in answers) == [False] * 7 + [True]
        with pytest.raises(IdempotencyConflictError):
            await store.submit_task(submission("that", idempotency_key=key))
        elsewhere, _ = await store.submit_task(submission("that", BOB, idempotency_key=key))
        assert elsewhere.id != task_id
        await ended(store, answers[0][0])
        again, is_new = await store.submit_task(submission("this", idempotency_key=key))
        assert (again.id, again.result, is_new) == (task_id, "did this", False)
    assert clerk.begun.count(task_id) == 1


async def test_a_store_that_closes_leaves_its_work_to_the_next_and_that_is_no_attempt(
    office: Office,
) -> None:
    once = submission("wait", idempotency_key="once")
    for _ in range(3):  # more often than attempts are allowed
        clerk = Clerk()
        async with office.opened(clerk.work) as store:
            task, _ = await store.submit_task(once)
            async with asyncio.timeout(120):
                while not clerk.begun:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        assert clerk.stopped == [task.id]
    clerk = Clerk()
    clerk.go_on.set()
    async with office.opened(clerk.work) as store:
        task, _ = await store.submit_task(once)
        done = await ended(store, task)
    assert (done.status, done.attempt, clerk.begun) == (TaskStatus.SUCCESS, 1, [task.id])


async def _true(value: bool) -> bool:
    return value


async def test_progress_shows_while_a_task_is_done(office: Office) -> None:
    clerk = Clerk()
    async with office.opened(clerk.work) as store:
        task, _ = await store.submit_task(submission("wait"))

        async def half_done() -> bool:
            found = await store.find_task(ALICE, task.id)
            return found is not None and found.progress == 0.5

        await until(half_done)
        found = await store.find_task(ALICE, task.id)
        assert found is not None
        assert (found.status, found.attempt) == (TaskStatus.DOING, 1)
        clerk.go_on.set()
        assert (await ended(store, task)).progress == 1.0


async def test_a_deleted_task_stops_and_is_gone(office: Office) -> None:
    clerk = Clerk()
    async with office.opened(clerk.work) as store:
        task, _ = await store.submit_task(submission("wait"))
        await until(lambda: _true(bool(clerk.begun)))
        deleted = await store.delete_task(ALICE, task.id)
        assert deleted is not None
        assert deleted.payload == {"what": "wait"}
        assert await store.find_task(ALICE, task.id) is None
        assert task.id not in {other.id for other in await store.newest_tasks(ALICE, 10)}
        assert await store.delete_task(ALICE, task.id) is None
        await until(lambda: _true(clerk.stopped == [task.id]))
        done, _ = await store.submit_task(submission("this"))
        await ended(store, done)
        assert await store.delete_task(ALICE, done.id) is not None
        assert await store.find_task(ALICE, done.id) is None


async def test_what_was_finished_long_ago_is_forgotten(office: Office) -> None:
    clerk = Clerk()
    owner = secrets.token_hex(4)
    async with office.opened(clerk.work) as store:
        old, _ = await store.submit_task(submission("old", owner))
        await ended(store, old)
        waiting, _ = await store.submit_task(submission("wait", owner))
        await store.expire_tasks(unix_s() - 100)
        assert await store.find_task(owner, old.id) is not None
        assert {"old", "wait"} <= (await store.count_tasks("what")).values
        await store.expire_tasks(unix_s() + 100)
        assert await store.find_task(owner, old.id) is None
        assert await store.find_task(owner, waiting.id) is not None
        assert "old" not in (await store.count_tasks("what")).values


async def test_one_process_does_only_so_many_at_once(office: Office) -> None:
    clerk = Clerk()
    async with office.opened(clerk.work) as store:
        tasks = [(await store.submit_task(submission("wait")))[0] for _ in range(4)]
        await until(lambda: _true(len(clerk.begun) == office.settings.workers))
        await asyncio.sleep(10 * office.settings.poll_s)
        assert len(clerk.begun) == office.settings.workers
        clerk.go_on.set()
        for task in tasks:
            await ended(store, task)
    assert sorted(clerk.begun) == sorted(task.id for task in tasks)


async def test_a_database_that_cannot_be_reached_is_said(tmp_path: Path) -> None:
    settings = TaskSettings(folder=tmp_path, database_url="postgresql://voicechat@127.0.0.1:1/none")
    with pytest.raises(AdmissionError) as refused:
        await open_task_store(settings, Clerk().work)
    assert refused.value.status is Status.AT_CAPACITY
    assert "127" not in refused.value.message


async def test_nothing_is_opened_before_the_first_task(tmp_path: Path) -> None:
    settings = TaskSettings(folder=tmp_path / "tasks", poll_s=0.02)
    store = OnDemandTaskStore(settings, Clerk().work)
    await store.start()
    assert await store.find_task(ALICE, "x") is None
    assert await store.newest_tasks(ALICE, 10) == []
    assert (await store.count_tasks("what")).values == set()
    assert not settings.folder.exists()
    task, _ = await store.submit_task(submission("this"))
    await ended(store, task)
    await store.aclose()
    assert (settings.folder / "tasks.sqlite3").stat().st_mode & 0o077 == 0
    reopened = OnDemandTaskStore(settings, Clerk().work)
    await reopened.start()
    assert await reopened.find_task(ALICE, task.id) is not None
    await reopened.aclose()
