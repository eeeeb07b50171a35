"""The records and the usage of the sessions of one process."""

import asyncio
import importlib
import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from voicechat.config import Config
from voicechat.errors import AdmissionError, ConfigError, Status
from voicechat.processes import python
from voicechat.records.database import RecordsUnavailableError, open_database
from voicechat.records.deliveries import DeliveryQueue, MessageWriter
from voicechat.records.finishing import LOCKS
from voicechat.records.folder import make_folder, new_id, write_private
from voicechat.records.index import RecordIndex, RecordRow, RecordState
from voicechat.records.setup import SessionSetup
from voicechat.records.usage import Prices, SessionOfKey, UsageIndex, Used
from voicechat.records.writer import RecordWriter, Redact
from voicechat.runtime.recording import SessionRecorder
from voicechat.runtime.tasks import SessionTasks
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.webhooks import WebhookSender
from voicechat.session.effects import Effect
from voicechat.session.events import Event, ReplyTextEnded
from voicechat.store.tasks.liveness import FileLiveness, LivenessUnknownError

USAGE_S = 10.0
"""How often the usage of open sessions is stored: a killed process loses at most this
much.
"""
MAX_WAITING = 10_000
"""Ends of sessions that may wait for the database."""
THREADS = 2
CLOSE_S = 10.0
CHILD_EXIT_S = 5.0
"""How long the process that finishes records may go on with the one in hand."""
RESTART_S = 5.0
"""How long to wait before the process that finishes records is started again."""
PLACE = "place"

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCaller:
    """Who is recorded."""

    project: str
    key_id: str
    person: str
    caller: str
    device: str
    agent: str
    dialect: str
    mode: str


class SessionRecording(SessionRecorder):
    """Counts the tokens of a session, and passes everything on to its record, if there
    is one.
    """

    def __init__(
        self,
        session: SessionOfKey,
        inner: SessionRecorder | None,
        over: Callable[["SessionRecording"], None],
    ) -> None:
        """``over`` is called when the session has ended."""
        self.session = session
        self.used = Used()
        self._inner = inner
        self._over = over

    @property
    def recorded(self) -> bool:
        """Whether there is a record."""
        return self._inner is not None

    def note(self, event: Event, now_ms: int, effects: Sequence[Effect]) -> None:
        """See ``SessionRecorder.note``."""
        self.used.length_ms = now_ms
        if isinstance(event, ReplyTextEnded) and event.usage is not None:
            self.used.prompt_tokens += event.usage.prompt_tokens
            self.used.completion_tokens += event.usage.completion_tokens
        if self._inner is not None:
            self._inner.note(event, now_ms, effects)

    @property
    def takes_audio(self) -> bool:
        """See ``SessionRecorder.takes_audio``."""
        return self._inner is not None and self._inner.takes_audio

    def heard(self, pcm: bytes, now_ms: int) -> None:
        """See ``SessionRecorder.heard``."""
        if self._inner is not None:
            self._inner.heard(pcm, now_ms)

    def spoken(self, reply: int, pcm: bytes, rate_hz: int) -> None:
        """See ``SessionRecorder.spoken``."""
        if self._inner is not None:
            self._inner.spoken(reply, pcm, rate_hz)

    def close(self, now_ms: int) -> None:
        """See ``SessionRecorder.close``."""
        self.used.length_ms = now_ms
        if self._inner is not None:
            self._inner.close(now_ms)
        self._over(self)


class RecordKeeper:
    """Begins the records of one process, and gives access to all."""

    def __init__(
        self,
        config: Config,
        *,
        finishes: bool,
        on_ended: Callable[[Mapping[str, int], int], None] = lambda _used, _lost: None,
    ) -> None:
        """``finishes``: this process starts the one that finishes the records, and
        sends the webhook messages. ``on_ended`` is called with what an ended session
        has used, and how many entries of records were lost since the last call. Raises
        ConfigError.
        """
        records = config.records
        self.root = Path(records.folder) if records.folder else config.data_dir / "records"
        self._database_url = records.database_url
        self.database = open_database(records.database_url, self.root)
        self.index = RecordIndex(self.database)
        self.usage = UsageIndex(self.database)
        self.prices = Prices(**dict(config.prices))
        self._queue = DeliveryQueue(self.database)
        self._messages = MessageWriter(public_url=config.media.public_url, prices=self.prices)
        self._sender = WebhookSender(config.webhooks, self._queue) if config.webhooks.url else None
        self._redact = load_redaction(records.redact) if records.redact else None
        self._stores_usage = records.usage
        self._keep_ms = round(records.keep_days * 86_400_000)
        self._records_any = any(agent.record != "none" for agent in config.agents.agents.values())
        self._finishes = finishes
        self._on_ended = on_ended
        self._told_lost = 0
        self._writer_id = secrets.token_hex(8)
        self._place = ""
        self._liveness: FileLiveness | None = None
        self._writer: RecordWriter | None = None
        self._open: set[SessionRecording] = set()
        self._threads = ThreadPoolExecutor(THREADS, "records")
        self._usage_thread = ThreadPoolExecutor(1, "usage")
        self._tasks = SessionTasks(on_fault=lambda: _log.error("keeping records has failed"))
        self._child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Prepare the database if anything is recorded. Raises ConfigError."""
        if self._records_any or self._sender is not None:
            try:
                await self._in_thread(self._prepare)
            except (OSError, RecordsUnavailableError, LivenessUnknownError) as error:
                raise ConfigError(f"records.folder: {self.root} cannot be used: {error}") from error
        if self._finishes and (self._records_any or (self.root / PLACE).exists()):
            _ = self._tasks.spawn(self._keep_finishing(), "finish-records")
        _ = self._tasks.spawn(self._store_usage_regularly(), "usage")
        if self._sender is not None and self._finishes:
            _ = self._tasks.spawn(self._sender.run(self.call), "webhooks")

    def begin(self, caller: RecordedCaller, setup: SessionSetup | None) -> SessionRecording:
        """Begin the record of a session, if it is to have one, and count its usage."""
        record_id, began_ms = new_id(), int(unix_s() * 1000)
        session = SessionOfKey(
            session=record_id,
            began_ms=began_ms,
            project=caller.project,
            key_id=caller.key_id,
            agent=caller.agent,
        )
        inner = None
        if setup is not None and caller.mode != "none" and self._writer is not None:
            row = RecordRow(
                id=record_id,
                place=self._place,
                writer=self._writer_id,
                state=RecordState.LIVE.value,
                project=caller.project,
                key_id=caller.key_id,
                person=caller.person,
                caller=caller.caller,
                device=caller.device,
                agent=caller.agent,
                dialect=caller.dialect,
                mode=caller.mode,
                began_ms=began_ms,
                expires_ms=began_ms + self._keep_ms,
            )
            inner = self._writer.begin(row, setup)
        recording = SessionRecording(session, inner, self._note_over)
        self._open.add(recording)
        if self._sender is not None:
            started = self._messages.started(session, recorded=recording.recorded)
            self._in_usage_thread(lambda: self._queue.put(record_id, started, began_ms))
        return recording

    def _note_over(self, recording: SessionRecording) -> None:
        self._open.discard(recording)
        self._store_usage([recording])
        lost, self._told_lost = self.lost_entries - self._told_lost, self.lost_entries
        self._on_ended(asdict(recording.used), lost)
        if self._sender is not None and not recording.recorded:
            session, now_ms = recording.session, int(unix_s() * 1000)
            ended = self._messages.ended(session, recording.used, None)
            self._in_usage_thread(lambda: self._queue.put(session.session, ended, now_ms))

    @property
    def lost_entries(self) -> int:
        """Entries of records that could not be written in time."""
        return 0 if self._writer is None else self._writer.lost_entries

    async def call(self, work: Callable[[], T]) -> T:
        """Call the index, or read files, in a thread. Raises ``AdmissionError`` while
        the database does not answer.
        """
        try:
            return await self._in_thread(work)
        except RecordsUnavailableError as error:
            _log.error("%s", error)
            raise AdmissionError(
                Status.AT_CAPACITY, "records cannot be reached now; try again"
            ) from error

    async def aclose(self) -> None:
        """Write what waits; stop finishing. What is not finished yet is finished after
        the next start.
        """
        await self._tasks.close(CLOSE_S)
        self._store_usage(list(self._open))
        if self._writer is not None:
            await self._in_thread(self._writer.close)
        # A database that hangs must not hold up the end of the server.
        written = asyncio.get_running_loop().run_in_executor(self._usage_thread, _nothing)
        await asyncio.wait([written], timeout=CLOSE_S)
        self._usage_thread.shutdown(wait=False, cancel_futures=True)
        if self._liveness is not None:
            await self._in_thread(self._liveness.release)
        self._threads.shutdown()
        self.database.close()

    # --- internals --------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _prepare(self) -> None:
        make_folder(self.root)
        self.database.open()
        place = self.root / PLACE
        if not place.exists():
            write_private(place, secrets.token_hex(8).encode())
        self._place = place.read_text()
        self._liveness = FileLiveness(self.root / LOCKS, self._writer_id)
        self._liveness.hold()
        self._writer = RecordWriter(self.root, self.index, redact=self._redact)

    def _store_usage(self, recordings: Sequence[SessionRecording]) -> None:
        if recordings and self._stores_usage:
            self._in_usage_thread(lambda: self._put_usage(recordings))

    def _put_usage(self, recordings: Sequence[SessionRecording]) -> None:
        for each in recordings:
            self.usage.put(each.session, each.used)

    def _in_usage_thread(self, work: Callable[[], None]) -> None:
        """Have the one thread that writes usage and messages do something, in the order
        of the calls. If too much waits for it, it is left out.
        """
        if self._waiting >= MAX_WAITING:
            self._tell_unstored("too much waits for the database")
            return
        self._asked += 1
        self._usage_thread.submit(self._store, work)

    def _store(self, work: Callable[[], None]) -> None:
        try:
            if not self._prepared:
                make_folder(self.root)
                self.database.open()
                self._prepared = True
            work()
            self._told = False
        except (RecordsUnavailableError, ConfigError, OSError) as error:
            self._tell_unstored(str(error))
        finally:
            self._stored += 1

    @property
    def _waiting(self) -> int:
        """How much waits for the thread."""
        return self._asked - self._stored

    def _tell_unstored(self, why: str) -> None:
        """Log it, once until something can be stored again."""
        if not self._told:
            _log.error("what sessions use cannot be stored: %s", why)
        self._told = True

    _asked = 0
    """Counted by the event loop; ``_stored`` by the thread."""
    _stored = 0
    _prepared = False
    _told = False

    async def _store_usage_regularly(self) -> None:
        while True:
            await asyncio.sleep(USAGE_S)
            if not self._waiting:  # else the thread is late
                self._store_usage(list(self._open))

    async def _keep_finishing(self) -> None:
        """Run the process that finishes records, and start it again if it dies."""
        place = await self._in_thread((self.root / PLACE).read_text)
        settings = {
            "root": str(self.root),
            "database_url": self._database_url,
            "place": place,
            "webhooks": self._sender is not None,
            "public_url": self._messages.public_url,
            "prices": asdict(self.prices),
        }
        while True:
            child = await asyncio.create_subprocess_exec(
                *python.command("voicechat.records.finishing"),
                stdin=asyncio.subprocess.PIPE,
                env=python.bare_environment(),
            )
            assert child.stdin is not None
            try:
                child.stdin.write(json.dumps(settings).encode() + b"\n")
                status = await child.wait()
            finally:
                child.stdin.close()
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHILD_EXIT_S):
                        await child.wait()
                if child.returncode is None:
                    child.kill()
            _log.error("the process that finishes records ended with status %d", status)
            await asyncio.sleep(RESTART_S)


def _nothing() -> None:
    """Come to an end after the work that was submitted before."""


def load_redaction(path: str) -> Redact:
    """Load the function that ``records.redact`` names. Raises ConfigError."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"records.redact: {path!r} cannot be loaded: {error}") from error
    if not callable(found):
        raise ConfigError(f"records.redact: {path!r} is no function")
    redact: Redact = found
    return redact
