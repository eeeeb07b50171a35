"""Writes records beside their conversations.

The event loop only appends to a queue; a thread writes what waits twice a second, so
that a process that is killed loses less than a second. If the thread cannot keep up,
because the disk or the database hangs, entries are dropped once ``MAX_WAITING_BYTES``
wait, and the record says how many: a conversation never waits for its record.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from voicechat.records.database import RecordsUnavailableError
from voicechat.records.folder import (
    EVENTS,
    SOUND,
    USER_RATE_HZ,
    ReplySound,
    Sound,
    UserSound,
    make_folder,
    open_private,
    record_folder,
    write_sound,
)
from voicechat.records.index import RecordIndex, RecordRow
from voicechat.records.line_format import (
    FORMAT_VERSION,
    Causes,
    JsonObject,
    as_written,
    line_of,
    write_event,
    write_setup,
)
from voicechat.records.setup import SessionSetup
from voicechat.session.effects import Effect
from voicechat.session.events import Event

FLUSH_S = 0.5
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""The most that waits for the thread, in one process: about six seconds of 120
conversations with audio.
"""
ENTRY_BYTES = 600
"""Approximate memory of an event with its effects. The bound need not be exact."""
PAUSE_SAMPLES = USER_RATE_HZ // 4
"""Audio that arrives this much later than the end of what came before begins anew at
the time of its arrival. Less is the jitter of a network.
"""
_SAMPLES_PER_MS = USER_RATE_HZ // 1000

Redact: TypeAlias = Callable[[JsonObject], JsonObject | None]
"""Returns what is stored of a line; None: nothing."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Noted:
    at_ms: int
    event: Event
    effects: Sequence[Effect]


@dataclass(frozen=True, slots=True)
class _TimedLine:
    content: JsonObject


@dataclass(frozen=True, slots=True)
class _Gap:
    from_ms: int
    until_ms: int
    entries: int


@dataclass(frozen=True, slots=True)
class _End:
    at_ms: int


_Entry: TypeAlias = _Noted | _TimedLine | _Gap | _End | Sound


class ConversationRecording:
    """The record of one conversation, as its event loop sees it; see
    ``SessionRecorder``.
    """

    def __init__(self, writer: "RecordWriter", *, with_audio: bool) -> None:
        self._writer = writer
        self._with_audio = with_audio
        self.entries: deque[_Entry] = deque()
        """What waits for the thread, which takes it from the left."""
        self._now_ms = 0
        self._lost = 0
        self._lost_from_ms = 0
        self._heard_samples = 0
        self._next_sample: int | None = None
        """Where the user's audio continues on the session's clock."""

    def note(self, event: Event, now_ms: int, effects: Sequence[Effect]) -> None:
        """See ``SessionRecorder.note``."""
        self._now_ms = now_ms
        self._add(_Noted(now_ms, event, effects), ENTRY_BYTES)

    @property
    def takes_audio(self) -> bool:
        """See ``SessionRecorder.takes_audio``."""
        return self._with_audio

    def heard(self, pcm: bytes, now_ms: int) -> None:
        """See ``SessionRecorder.heard``."""
        self._now_ms = now_ms
        samples = len(pcm) // 2
        begins = max(0, now_ms * _SAMPLES_PER_MS - samples)
        if self._next_sample is None or begins > self._next_sample + PAUSE_SAMPLES:
            self._next_sample = begins
            audio_ms = self._heard_samples // _SAMPLES_PER_MS
            self._add(
                _TimedLine({"t": begins // _SAMPLES_PER_MS, "audio_from": audio_ms}), ENTRY_BYTES
            )
        self._add(UserSound(self._next_sample, pcm), len(pcm))
        self._next_sample += samples
        self._heard_samples += samples

    def spoken(self, reply: int, pcm: bytes, rate_hz: int) -> None:
        """See ``SessionRecorder.spoken``."""
        self._add(ReplySound(reply, rate_hz, pcm), len(pcm))

    def close(self, now_ms: int) -> None:
        """See ``SessionRecorder.close``."""
        self._tell_gap(now_ms)
        self.entries.append(_End(now_ms))

    def _add(self, entry: _Entry, size_bytes: int) -> None:
        if not self._writer.take(size_bytes, waits=self._lost > 0):
            if not self._lost:
                self._lost_from_ms = self._now_ms
            self._lost += 1
            return
        self._tell_gap(self._now_ms)
        self.entries.append(entry)

    def _tell_gap(self, now_ms: int) -> None:
        if self._lost:
            self.entries.append(_Gap(self._lost_from_ms, now_ms, self._lost))
            self._lost = 0


class RecordWriter:
    """Writes the records of one process."""

    def __init__(
        self,
        root: Path,
        index: RecordIndex,
        *,
        redact: Redact | None = None,
        flush_s: float = FLUSH_S,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        """``root`` is the folder of all records."""
        self._root = root
        self._index = index
        self._redact = redact
        self._flush_s = flush_s
        self._most = max_waiting_bytes
        self._taken_bytes = 0
        """Counted by the event loop; ``_written_bytes`` by the thread."""
        self._written_bytes = 0
        self.lost_entries = 0
        """Entries that were dropped since the start."""
        self._arrived: deque[_Writing] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    def begin(self, row: RecordRow, setup: SessionSetup) -> ConversationRecording:
        """Begin the record of a conversation. Nothing is on disk yet."""
        recording = ConversationRecording(self, with_audio=row.mode == "audio")
        begin: JsonObject = {
            "version": FORMAT_VERSION,
            "id": row.id,
            "began_ms": row.began_ms,
            "agent": row.agent,
            "dialect": row.dialect,
            "mode": row.mode,
        }
        if self._redact is not None:
            begin["redacted"] = True
        self._arrived.append(_Writing(row, recording, begin, setup))
        return recording

    def take(self, size_bytes: int, *, waits: bool) -> bool:
        """Count an entry that is to wait; False: there is no room for it. ``waits``:
        entries of this record were dropped, so that it waits until half is free.
        """
        if self._taken_bytes - self._written_bytes > (self._most // 2 if waits else self._most):
            self.lost_entries += 1
            return False
        self._taken_bytes += size_bytes
        return True

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the thread."""
        return self._taken_bytes - self._written_bytes

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, and end the thread. Blocks for at most ``timeout_s``; what
        is not written by then is lost.
        """
        self._stop.set()
        self._thread.join(timeout_s)

    # --- the thread -------------------------------------------------------------------

    def _run(self) -> None:
        writing: list[_Writing] = []
        while True:
            stops = self._stop.wait(0 if writing else self._flush_s)
            while self._arrived:
                writing.append(self._arrived.popleft())
            for each in writing:
                self._flush(each)
                # Spread over the period, so that the event loop gets the interpreter.
                if not stops:
                    self._stop.wait(self._flush_s / len(writing))
            writing = [each for each in writing if not each.over]
            if stops and not self._arrived:
                for each in writing:  # conversations that did not end
                    each.close_files()
                return

    def _flush(self, writing: "_Writing") -> None:
        try:
            if not writing.known:
                self._index.add(writing.row)
                writing.known = True
            self._written_bytes += writing.collect()
            if writing.write(self._root, self._redact):
                self._failing = False
            if writing.ended:
                self._index.set_ended(writing.row.id)
                writing.over = True
        except RecordsUnavailableError as error:
            self._tell_failure(str(error))
        except OSError as error:
            self._tell_failure(f"the folder of the records: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - a bug ends this record, not the thread
            logger.error("writing a record failed: %s", type(error).__name__)
            writing.give_up()

    _failing = False

    def _tell_failure(self, message: str) -> None:
        """Log a failure, once until a record can be written again."""
        if not self._failing:
            logger.error("records cannot be written now: %s", message)
        self._failing = True


class _Writing:
    """One record, as the thread sees it."""

    def __init__(
        self,
        row: RecordRow,
        recording: ConversationRecording,
        begin: JsonObject,
        setup: SessionSetup,
    ) -> None:
        self.row = row
        self._recording = recording
        self._begin = begin
        self._setup = setup
        self._causes = Causes()
        self.known = False
        """Whether the index has its row."""
        self.ended = False
        self.over = False
        self._given_up = False
        self._events = -1
        self._sound = -1
        self._events_bytes = 0
        """What was written of each file as a whole; a torn write is cut back to it."""
        self._sound_bytes = 0
        self._taken: list[_Entry] = []
        self._missing: _Gap | None = None
        """Entries that could not be written."""
        self._end_missing = False
        """Whether the last line is among them."""

    def collect(self) -> int:
        """Take what waits from the queue; return how many bytes that were."""
        entries = self._recording.entries
        self._taken = [entries.popleft() for _ in range(len(entries))]
        self.ended = self.ended or any(isinstance(entry, _End) for entry in self._taken)
        return sum(map(_size_of, self._taken))

    def write(self, root: Path, redact: Redact | None) -> bool:
        """Write what was collected; return whether anything was. Raises ``OSError``; it
        is lost then, and the next line tells it.
        """
        taken, self._taken = self._taken, []
        if self._given_up:
            return False
        if self._missing is not None:
            taken.insert(0, self._missing)
            if self._end_missing:
                taken.append(_End(self._missing.until_ms))
        if not taken:
            return False
        lines, sounds = self._laid_out(taken, redact)
        try:
            if self._events < 0:
                self._open(root)
            if self._events_bytes == 0:
                setup = {"begin": {**self._begin, "setup": write_setup(self._setup)}}
                lines.insert(0, self._line(setup, redact))
            if sounds:
                self._sound_bytes = _append(self._sound, sounds, self._sound_bytes)
            self._events_bytes = _append(self._events, lines, self._events_bytes)
        except OSError:
            self._note_missing(taken)
            raise
        self._missing = None
        if self.ended:
            self.close_files()
        return True

    def give_up(self) -> None:
        """Write nothing more."""
        self._given_up = True
        self.close_files()

    def close_files(self) -> None:
        """Close the files."""
        for descriptor in (self._events, self._sound):
            if descriptor >= 0:
                os.close(descriptor)
        self._events = self._sound = -1

    def _open(self, root: Path) -> None:
        folder = record_folder(root, self.row.project, self.row.id)
        make_folder(folder)
        self._events = open_private(folder / EVENTS)
        if self.row.mode == "audio":
            self._sound = open_private(folder / SOUND)

    def _laid_out(
        self, entries: Sequence[_Entry], redact: Redact | None
    ) -> tuple[list[bytes], list[bytes]]:
        lines: list[bytes] = []
        sounds: list[bytes] = []
        for entry in entries:
            match entry:
                case _Noted(at_ms, event, effects):
                    content = write_event(at_ms, event, effects, self._causes)
                    lines.append(self._line(content, redact))
                case _TimedLine(content):
                    lines.append(self._line(content, redact))
                case _Gap():
                    lines.append(self._line(_gap_line(entry), redact))
                case _End(at_ms):
                    lines.append(self._line({"t": at_ms, "end": {}}, redact))
                case UserSound() | ReplySound():
                    sounds += write_sound(entry)
        return lines, sounds

    def _line(self, content: JsonObject, redact: Redact | None) -> bytes:
        if redact is None:
            return line_of(content)
        try:
            kept = redact(as_written(content))
        except Exception as error:  # noqa: BLE001 - the hook is somebody else's code
            logger.error("the redaction of a record failed: %s", type(error).__name__)
            kept = None
        # The time stays, so that nobody takes the line for one that was never written.
        return line_of({"t": content.get("t", 0), "redacted": True} if kept is None else kept)

    def _note_missing(self, entries: Sequence[_Entry]) -> None:
        gaps = [entry for entry in entries if isinstance(entry, _Gap)]
        timed = [entry.at_ms for entry in entries if isinstance(entry, _Noted | _End)]
        times = [*timed, *(gap.from_ms for gap in gaps), *(gap.until_ms for gap in gaps)]
        count = len(entries) - len(gaps) + sum(gap.entries for gap in gaps)
        self._missing = _Gap(min(times, default=0), max(times, default=0), count)
        self._end_missing = self.ended


def _size_of(entry: _Entry) -> int:
    match entry:
        case UserSound() | ReplySound():
            return len(entry.pcm)
        case _Noted() | _TimedLine():
            return ENTRY_BYTES
        case _:
            return 0


def _gap_line(gap: _Gap) -> JsonObject:
    return {"t": gap.from_ms, "gap": {"until": gap.until_ms, "entries": gap.entries}}


def _append(descriptor: int, pieces: Sequence[bytes], written: int) -> int:
    """Append the pieces behind ``written`` bytes; return how many bytes there are now.
    A failed write is taken back. Raises ``OSError``.
    """
    content = memoryview(b"".join(pieces))
    try:
        rest = content
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, written)
        raise
    return written + len(content)
