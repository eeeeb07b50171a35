"""Records of conversations that a test holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from voicechat.records.database import SqliteRecordDatabase
from voicechat.records.finishing import LOCKS, Finisher
from voicechat.records.folder import EVENTS, new_id, record_folder
from voicechat.records.index import RecordIndex, RecordRow
from voicechat.records.setup import SessionSetup
from voicechat.records.writer import ConversationRecording, RecordWriter
from voicechat.store.tasks.liveness import FileLiveness

BEGAN_MS = 1_700_000_000_000


def new_row(**fields: Any) -> RecordRow:
    row = RecordRow(
        id=new_id(),
        place="here",
        writer="w1",
        state="live",
        project="p",
        key_id="k",
        person="",
        caller="",
        device="",
        agent="default",
        dialect="direct",
        mode="audio",
        began_ms=BEGAN_MS,
        expires_ms=BEGAN_MS + 86_400_000,
    )
    return replace(row, **fields)


class Records:
    """The records of one folder."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.database = SqliteRecordDatabase(root / "index.sqlite")
        self.database.open()
        self.index = RecordIndex(self.database)
        self.liveness = FileLiveness(root / LOCKS, "w1")
        self.liveness.hold()
        self.writer = RecordWriter(root, self.index, flush_s=0.01, **options)
        self.finisher = Finisher(root, self.index, "here")

    def begin(self, row: RecordRow, setup: SessionSetup | None = None) -> ConversationRecording:
        return self.writer.begin(row, setup or SessionSetup())

    def folder(self, row: RecordRow) -> Path:
        return record_folder(self.root, row.project, row.id)

    def lines(self, row: RecordRow) -> list[bytes]:
        return (self.folder(row) / EVENTS).read_bytes().splitlines(keepends=True)

    def parsed(self, row: RecordRow) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.lines(row)]

    def finish(self) -> None:
        """Write everything down, and finish what has ended."""
        self.writer.close(60)
        self.finisher.finish_ended()

    def close(self) -> None:
        self.writer.close(60)
        self.liveness.release()
        self.database.close()


@contextmanager
def opened(root: Path, **options: Any) -> Iterator[Records]:
    records = Records(root, **options)
    try:
        yield records
    finally:
        records.close()
