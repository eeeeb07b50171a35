"""Kills processes that ingest documents at random moments, and checks that every upload
ends in exactly one state, with its passages stored once.

    python -m tools.knowledge_chaos --uploads 100 [--seed N] [--database postgresql://...]

Several workers share one folder. This process uploads documents through them, kills one
with SIGKILL every so often, starts it again, and at the end looks at the store and at
the disk. Every fifth document cannot be read.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.killable_worker import KillableWorker
from voicechat.knowledge.ingestion import Ingestion
from voicechat.knowledge.interface import (
    FileStatus,
    KnowledgeFile,
    KnowledgeScope,
    KnowledgeStore,
)
from voicechat.knowledge.postgres_store import PostgresKnowledgeStore
from voicechat.knowledge.sqlite_store import SqliteKnowledgeStore
from voicechat.pictures.inspector import PictureInspector
from voicechat.runtime.media_services import MediaServices
from voicechat.runtime.services import Services
from voicechat.server.auth import Principal
from voicechat.server.rest.knowledge.document_texts import DocumentTexts
from voicechat.server.rest.knowledge.intake import KnowledgeIntake
from voicechat.server.rest.transcribing import Transcriber
from voicechat.server.rest.transcription_settings import TranscriptionSettings
from voicechat.store.tasks.on_demand import TaskSettings

SCOPE = KnowledgeScope(project="p", base="handbook")
SECTIONS = 20
"""Passages of each document that can be read."""
LEAST_KILLS = 5
LAST_END_S = 240.0
_UNREADABLE = 5


@dataclass(slots=True)
class Tally:
    """What one run came to."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    """Ids of files, and the number each was uploaded with."""
    kills: int = 0
    unacknowledged: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{len(self.acknowledged)} acknowledged, {self.unacknowledged} uploads cut, "
            f"{self.kills} kills; ended {dict(self.ended)}; wrong: {self.wrong or 'none'}"
        )


@dataclass(frozen=True, slots=True)
class Ingesting:
    """The parts of one process that ingests."""

    store: KnowledgeStore
    intake: KnowledgeIntake
    folder: Path


def document(number: int) -> bytes:
    """A text of ``SECTIONS`` passages; every fifth one is no text."""
    if number % _UNREADABLE == 0:
        return b"\x89PNG\r\n\x1a\n" + bytes(100)
    sections = [f"# Section {at}\n\nword{at} of document{number}." for at in range(SECTIONS)]
    return "\n\n".join(sections).encode()


@asynccontextmanager
async def ingesting(folder: Path, database_url: str) -> AsyncIterator[Ingesting]:
    """Open the store, the tasks and the files below ``folder``, and ingest."""
    store: KnowledgeStore = (
        PostgresKnowledgeStore(database_url)
        if database_url
        else SqliteKnowledgeStore(folder / "knowledge.sqlite3", 1 << 20)
    )
    await store.start()
    settings = TaskSettings(
        folder=folder, database_url=database_url, poll_s=0.05, adopt_s=0.2, max_attempts=50
    )
    transcriber = Transcriber(
        Services({}, {}, {}),
        TranscriptionSettings(tasks=settings),
        decoding=None,
        account_of=_nobody,
    )
    inspector = PictureInspector()
    texts = DocumentTexts(MediaServices(), inspector)
    files = folder / "files"
    intake = KnowledgeIntake(
        store, Ingestion(store, None, texts.read), transcriber, files, reconcile_s=0.5
    )
    await transcriber.start()
    await intake.start()
    try:
        yield Ingesting(store, intake, files)
    finally:
        await intake.aclose()
        await transcriber.aclose()
        await texts.aclose()
        await inspector.aclose()
        await store.aclose()


async def upload(parts: Ingesting, number: int) -> KnowledgeFile:
    """Do what the endpoint does."""
    async with parts.intake.receiving("key") as received:
        await received.write_piece(document(number))
        await received.finish_upload()
        title = f"{number}.txt"
        file = await parts.store.add_file(SCOPE, title, received.size_bytes, received.name)
        received.kept = True
    await parts.intake.ingest(Principal("key", SCOPE.project), file)
    return file


async def work_until_killed(folder: Path, database_url: str) -> None:
    """One worker: takes numbers on its standard input as uploads, and answers with the
    ids of the files.
    """
    async with ingesting(folder, database_url) as parts:
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print((await upload(parts, int(line))).id, flush=True)


async def torment(folder: Path, database_url: str, uploads: int, workers: int, seed: int) -> Tally:
    """Run it all; the tally says what came of it."""
    chance = random.Random(seed)
    tally = Tally()
    arguments = ("--worker", str(folder), "--database", database_url)
    crowd = [KillableWorker("tools.knowledge_chaos", *arguments) for _ in range(workers)]
    for worker in crowd:
        await worker.start()
    enough = asyncio.Event()

    async def upload_all(worker: KillableWorker, numbers: range) -> None:
        for number in numbers:
            while not (file_id := await worker.ask(number)):
                tally.unacknowledged += 1
                await asyncio.sleep(0.1)
            tally.acknowledged[file_id] = number

    async def kill_some() -> None:
        while not enough.is_set() or tally.kills < LEAST_KILLS:
            await asyncio.sleep(chance.uniform(0.5, 2.0))
            worker = chance.choice(crowd)
            await worker.kill()
            tally.kills += 1
            await worker.start()

    async with asyncio.TaskGroup() as group:
        killing = group.create_task(kill_some())
        submits = [
            group.create_task(upload_all(worker, range(index, uploads, workers)))
            for index, worker in enumerate(crowd)
        ]
        await asyncio.wait(submits)
        enough.set()
        await killing
    for worker in crowd:
        await worker.kill()
    await examine(folder, database_url, tally)
    return tally


async def examine(folder: Path, database_url: str, tally: Tally) -> None:
    """Finish what is left, and hold what the store and the disk say against what was
    acknowledged.
    """
    async with ingesting(folder, database_url) as parts:
        async with asyncio.timeout(LAST_END_S):
            while await parts.store.waiting_files():  # noqa: ASYNC110 - other processes' work has no event
                await asyncio.sleep(0.1)
        files, total = await parts.store.list_files(SCOPE, 1, 1000)
        # A cut upload may have been recorded before its worker died.
        unheard_of = [file for file in files if file.id not in tally.acknowledged]
        if len(unheard_of) > tally.unacknowledged or total != len(files):
            tally.wrong.append(f"{total} files in the store")
        for file in files:
            await _examine_file(parts, file, tally)
        blobs = await parts.store.blobs_in_use()
        missing = blobs - {path.name for path in parts.folder.iterdir()}
        if missing:
            tally.wrong.append(f"{len(missing)} files without their bytes")


async def _examine_file(parts: Ingesting, file: KnowledgeFile, tally: Tally) -> None:
    number = int(file.title.removesuffix(".txt"))
    expected = FileStatus.ERROR if number % _UNREADABLE == 0 else FileStatus.ENABLED
    if file.id in tally.acknowledged:
        tally.ended[file.status.value] += 1
        if tally.acknowledged[file.id] != number:
            tally.wrong.append(f"{number}: has another's id")
    passages = 0 if expected is FileStatus.ERROR else SECTIONS
    if (file.status, file.passages) != (expected, passages):
        tally.wrong.append(f"{number}: {file.status.value}, {file.passages} passages")
    found = await parts.store.by_words(
        "file", SCOPE.project, [SCOPE.base], f"document{number}", 500
    )
    if sum(each.source_id == file.id for each in found) != passages:
        tally.wrong.append(f"{number}: {len(found)} passages are found")


async def _nobody(_: str) -> Any:
    raise AssertionError("nobody is charged")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uploads", type=int, default=100)
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
                Path(folder),
                arguments.database,
                arguments.uploads,
                arguments.workers,
                arguments.seed,
            )
        )
    print(tally.line())
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
