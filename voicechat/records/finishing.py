"""Finishes records in a process of its own, at the lowest priority: makes the summary,
the words by which a record is found and the audio file, and deletes what has expired.

It finds its work in the database, so it also finishes what a killed server left.
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from voicechat.records.database import RecordDatabase, RecordsUnavailableError, open_database
from voicechat.records.deliveries import DeliveryQueue, MessageWriter
from voicechat.records.folder import (
    AUDIO,
    EVENTS,
    SOUND,
    SUMMARY,
    open_private,
    record_folder,
    remove_folder,
    whole_lines,
    write_private,
)
from voicechat.records.heard import HeardReplies, Placement
from voicechat.records.index import RecordIndex, RecordRow, RecordState
from voicechat.records.line_format import read_line
from voicechat.records.mixing import mix
from voicechat.records.summary import Summary
from voicechat.records.usage import Prices, SessionOfKey, UsageIndex
from voicechat.runtime.wall_clock import unix_s
from voicechat.store.tasks.liveness import FileLiveness

LOOK_S = 0.5
RECOVER_LOOKS = 20
"""How many times it looks for ended conversations until it looks for those of dead
processes.
"""
PAGE = 50
EXPIRE_LOOKS = 1200
"""The same for records whose time is over."""
LOCKS = "writers"
NICENESS = 19

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """What is known of a record once all of its lines were read."""

    summary: Summary
    heard: Sequence[Placement]


def read_record(events: Path) -> Finished:
    """Read the lines of a record; a line that is none is left out."""
    summary, heard = Summary(), HeardReplies()
    with events.open("rb") as file:
        for text in whole_lines(file):
            try:
                line = read_line(text)
            except ValueError:
                continue
            summary.take(line)
            heard.take(line)
    return Finished(summary, heard.placements())


def write_audio(folder: Path, heard: Iterable[Placement]) -> int:
    """Make the audio file of a record; return its size, 0 if there is no audio."""
    sound = folder / SOUND
    if not sound.exists():
        audio = folder / AUDIO
        return audio.stat().st_size if audio.exists() else 0
    partial = folder / f"{AUDIO}.part"
    size = 0
    with sound.open("rb") as chunks:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(open_private(partial, flags), "wb") as file:
            for pages in mix(chunks, list(heard), folder):
                size += file.write(pages)
    partial.replace(folder / AUDIO)
    sound.unlink()
    return size


class Finisher:
    """Finishes the records of one folder."""

    def __init__(
        self,
        root: Path,
        index: RecordIndex,
        place: str,
        report: Callable[[RecordRow, Summary], None] | None = None,
    ) -> None:
        """``report`` is called with each finished record."""
        self._root = root
        self._index = index
        self._place = place
        self._report = report

    def finish_ended(self) -> int:
        """Finish the records whose conversation has ended; return how many."""
        rows = self._index.waiting(self._place, [RecordState.ENDED], PAGE)
        for row in rows:
            self.finish(row, RecordState.DONE)
        return len(rows)

    def recover(self) -> int:
        """Finish the records of processes that have died; return how many."""
        finished = 0
        for row in self._index.waiting(self._place, [RecordState.LIVE], 10_000):
            with FileLiveness(self._root / LOCKS, "").inherit(row.writer) as is_dead:
                if is_dead:
                    self.finish(row, RecordState.CUT)
                    finished += 1
        return finished

    def expire(self, now_ms: int) -> int:
        """Delete the records whose time is over; return how many."""
        deleted = 0
        while rows := self._index.expired(self._place, now_ms, PAGE):
            for row in rows:
                erase(self._root, self._index, row)
            deleted += len(rows)
        if deleted:
            self._index.forget_traces()
        return deleted

    def finish(self, row: RecordRow, state: RecordState) -> None:
        """Finish one record. A failure is logged, and the record keeps its events."""
        folder = record_folder(self._root, row.project, row.id)
        try:
            record = read_record(folder / EVENTS)
            size = write_audio(folder, record.heard)
            write_private(folder / SUMMARY, orjson.dumps(record.summary.written()))
        except FileNotFoundError:
            record, size = Finished(Summary(), ()), 0
        except Exception as error:  # noqa: BLE001 - one bad record must not stop the others
            logger.error("record %s cannot be finished: %s", row.id, type(error).__name__)
            record, size = Finished(Summary(), ()), 0
        if not self._index.finish(row.id, state, record.summary, size):
            remove_folder(folder)  # it was deleted meanwhile
        elif self._report is not None:
            self._report(row, record.summary)


def erase(root: Path, index: RecordIndex, row: RecordRow) -> bool:
    """Delete a record: first its row, so that nobody finds it any more. Returns False
    if it was deleted before. Call ``index.forget_traces`` afterwards.
    """
    existed = index.delete(row.id)
    remove_folder(record_folder(root, row.project, row.id))
    return existed


def _watch_parent(ended: threading.Event) -> None:
    """Set ``ended`` when the parent has closed its end of standard input."""
    with suppress(OSError):
        while sys.stdin.buffer.read(1):
            pass
    ended.set()


def _reporter(
    settings: dict[str, Any], database: RecordDatabase
) -> Callable[[RecordRow, Summary], None]:
    """Return what puts the message about a finished record into the queue."""
    writer = MessageWriter(public_url=settings["public_url"], prices=Prices(**settings["prices"]))
    queue, usage = DeliveryQueue(database), UsageIndex(database)

    def report(row: RecordRow, summary: Summary) -> None:
        session = SessionOfKey(
            session=row.id,
            began_ms=row.began_ms,
            project=row.project,
            key_id=row.key_id,
            agent=row.agent,
        )
        used = usage.of_session(row.project, row.id)
        queue.put(row.id, writer.ended(session, used, summary), int(unix_s() * 1000))

    return report


def run(settings: dict[str, Any], ended: threading.Event) -> None:
    """Work until ``ended``. ``settings`` are those of ``RecordKeeper``."""
    root = Path(settings["root"])
    database = open_database(settings["database_url"], root)
    report = _reporter(settings, database) if settings["webhooks"] else None
    finisher = Finisher(root, RecordIndex(database), settings["place"], report)
    looks = 0
    while not ended.is_set():
        try:
            busy = finisher.finish_ended()
            if looks % RECOVER_LOOKS == 0:
                busy += finisher.recover()
            if looks % EXPIRE_LOOKS == 0:
                finisher.expire(int(unix_s() * 1000))
            looks += 1
        except RecordsUnavailableError as error:
            logger.error("records are finished later: %s", error)
            busy = 0
        ended.wait(0 if busy else LOOK_S)
    database.close()


def main() -> None:
    """Read the settings, one line of JSON, from standard input; work until it is
    closed.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    settings = json.loads(sys.stdin.buffer.readline())
    ended = threading.Event()
    threading.Thread(target=_watch_parent, args=(ended,), daemon=True).start()
    run(settings, ended)


if __name__ == "__main__":
    main()
