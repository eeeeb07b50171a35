"""Processes that are killed, in short; `python -m tools.task_chaos` is the long
form.
"""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tools.task_chaos import torment
from voicechat.store.tasks.interface import ReportProgress, StoredTask, Submission, TaskStatus
from voicechat.store.tasks.on_demand import TaskSettings, open_task_store

pytestmark = pytest.mark.real_time

_KILLS_ITSELF = """
import asyncio, os, signal, sys
from pathlib import Path
from voicechat.store.tasks.on_demand import TaskSettings, open_task_store

async def work(task, report):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    await open_task_store(TaskSettings(folder=Path(sys.argv[1]), poll_s=0.02, adopt_s=0.1, max_attempts=2), work)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_every_acknowledged_task_ends_in_one_result(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else ""
    tally = await torment(tmp_path, url, tasks=12, workers=2, seed=5)
    assert tally.wrong == []
    assert tally.ended == {"success": 12}
    assert tally.kills > 0


@pytest.mark.long
async def test_a_task_that_kills_its_process_fails_after_its_attempts(tmp_path: Path) -> None:
    settings = TaskSettings(folder=tmp_path, poll_s=0.02, adopt_s=0.1, max_attempts=2)
    begun = False

    async def work_later(task: StoredTask, report: ReportProgress) -> str:
        await asyncio.Event().wait()
        return ""

    async def work(task: StoredTask, report: ReportProgress) -> str:
        nonlocal begun
        begun = True
        return ""

    store = await open_task_store(settings, work_later)
    task, _ = await store.submit_task(Submission(owner="a", payload={}, fingerprint="x"))
    await store.aclose()
    for _ in range(2):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _KILLS_ITSELF, str(tmp_path)
        )
        async with asyncio.timeout(120):
            assert await child.wait() == -signal.SIGKILL
    store = await open_task_store(settings, work)
    try:
        async with asyncio.timeout(120):
            while (found := await store.find_task("a", task.id)) and not found.status.finished:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        await store.aclose()
    assert found is not None
    assert (found.status, found.error) == (TaskStatus.FAILED, "attempts_exhausted")
    assert not begun
