"""Kills task workers at random moments, and checks that every acknowledged
task ends in one result.

    python -m tools.task_chaos --tasks 200 [--seed N] [--database postgresql://...]

Several workers share one database. This process submits through them, kills one with
SIGKILL every so often, starts it again, and at the end compares what was acknowledged
with what the store and the log of begun work say.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tools.killable_worker import KillableWorker
from voicechat.store.tasks.interface import ReportProgress, StoredTask, Submission, Work
from voicechat.store.tasks.on_demand import TaskSettings, open_task_store

WORK_S = 0.15
LAST_RESULT_S = 60.0


@dataclass(slots=True)
class Tally:
    """What one run came to."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    """Task ids, and the number each was submitted with."""
    kills: int = 0
    unacknowledged: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    reruns: int = 0
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{len(self.acknowledged)} acknowledged, {self.unacknowledged} requests cut, "
            f"{self.kills} kills, "
            f"{self.reruns} attempts repeated; ended {dict(self.ended)}; wrong: "
            f"{self.wrong or 'none'}"
        )


def settings(folder: Path, database_url: str) -> TaskSettings:
    return TaskSettings(
        folder=folder, database_url=database_url, poll_s=0.05, adopt_s=0.2, max_attempts=50
    )


def logged_work(folder: Path) -> Work:
    """Work that writes down that it began."""

    async def work(task: StoredTask, report: ReportProgress) -> str:
        number = task.payload["number"]
        with (folder / "begun.log").open("a") as log:
            log.write(f"{task.id} {number}\n")
        await asyncio.sleep(WORK_S)
        report(1.0)
        return f"result of {number}"

    return work


async def work_until_killed(folder: Path, database_url: str) -> None:
    """One worker: takes numbers on its standard input as tasks, answers with their ids,
    and does whatever is due.
    """
    store = await open_task_store(settings(folder, database_url), logged_work(folder))
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        number = int(line)
        submission = Submission(
            owner=folder.name,
            payload={"number": number},
            fingerprint=str(number),
            idempotency_key=str(number),
        )
        task, _ = await store.submit_task(submission)
        print(task.id, flush=True)


async def torment(folder: Path, database_url: str, tasks: int, workers: int, seed: int) -> Tally:
    """Run it all; the tally says what came of it."""
    chance = random.Random(seed)
    tally = Tally()
    arguments = ("--worker", str(folder), "--database", database_url)
    crowd = [KillableWorker("tools.task_chaos", *arguments) for _ in range(workers)]
    for worker in crowd:
        await worker.start()
    enough = asyncio.Event()

    async def submit_all(worker: KillableWorker, numbers: range) -> None:
        for number in numbers:
            while not (task_id := await worker.ask(number)):
                tally.unacknowledged += 1
                await asyncio.sleep(0.1)
            tally.acknowledged[task_id] = number

    async def kill_some() -> None:
        while not enough.is_set():
            await asyncio.sleep(chance.uniform(0.1, 1.2))
            worker = chance.choice(crowd)
            await worker.kill()
            tally.kills += 1
            await worker.start()

    async with asyncio.TaskGroup() as group:
        killing = group.create_task(kill_some())
        submits = [
            group.create_task(submit_all(worker, range(index, tasks, workers)))
            for index, worker in enumerate(crowd)
        ]
        await asyncio.wait(submits)
        # The queue is longer than the submitting: most of the killing is still to come.
        async with asyncio.timeout(LAST_RESULT_S + tasks):
            while begun(folder).total() < tasks * 9 // 10:  # noqa: ASYNC110 - another process' log has no event
                await asyncio.sleep(0.1)
        enough.set()
        await killing
    for worker in crowd:
        await worker.kill()
    await examine(folder, database_url, tally)
    return tally


async def examine(folder: Path, database_url: str, tally: Tally) -> None:
    """Finish what is left, and hold what the store says against what was
    acknowledged.
    """
    store = await open_task_store(settings(folder, database_url), logged_work(folder))
    try:
        async with asyncio.timeout(LAST_RESULT_S):
            for task_id, number in tally.acknowledged.items():
                task = await store.find_task(folder.name, task_id)
                while task is not None and not task.status.finished:
                    await asyncio.sleep(0.05)
                    task = await store.find_task(folder.name, task_id)
                tally.ended[task.status.value if task else "lost"] += 1
                if task is None or task.result != f"result of {number}":
                    tally.wrong.append(f"{number}: {task.status.value if task else 'lost'}")
        known = await store.newest_tasks(folder.name, 2 * len(tally.acknowledged))
        if {task.id for task in known} != set(tally.acknowledged):
            tally.wrong.append(f"{len(known)} tasks in the store")
    finally:
        await store.aclose()
    tally.reruns = begun(folder).total() - len(begun(folder))


def begun(folder: Path) -> Counter[str]:
    log = folder / "begun.log"
    return Counter(log.read_text().splitlines()) if log.exists() else Counter()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--database", default="", help="postgresql://...; SQLite without it")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        asyncio.run(work_until_killed(arguments.worker, arguments.database))
        return 0
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        tally = asyncio.run(
            torment(
                Path(folder), arguments.database, arguments.tasks, arguments.workers, arguments.seed
            )
        )
    print(tally.line())
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
