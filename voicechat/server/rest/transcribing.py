"""Transcription: recordings on disk, fetched URLs, recognisers, and the store of
tasks.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp.abc import AbstractResolver
from yarl import URL

from voicechat.audio.formats import InputContainer, InputFormat
from voicechat.errors import AdmissionError, RemoteProtocolError, Status
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import SpeechRecognizer
from voicechat.runtime.services import Services
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.fair_semaphore import FairSemaphore
from voicechat.server.fetch import FetchError, NameResolver, fetch
from voicechat.server.rest.backend import noted
from voicechat.server.rest.failures import ServiceFailedError
from voicechat.server.rest.recognising import RecordingResult, RecordingUtterance, recognise
from voicechat.server.rest.recordings import opening_with
from voicechat.server.rest.retry import with_retries
from voicechat.server.rest.transcript_forms import lines
from voicechat.server.rest.transcription_settings import TranscriptionSettings
from voicechat.server.rest.uploads import RecordingFolder, Upload
from voicechat.store.quotas import Account, QuotaExceededError
from voicechat.store.tasks.interface import (
    ReportProgress,
    StoredTask,
    TaskFailedError,
    TaskStore,
    Work,
)
from voicechat.store.tasks.on_demand import OnDemandTaskStore

RECORDING_FOLDER = "recordings"
SWEEP_S = 600.0
CLOCKS_S = 60.0
"""How far the clocks of the task database and of this machine may differ."""
TASK_RETRY_S = 3600
"""Seconds that a client is asked to wait for tasks of its key to expire."""
DECODER_RETRY_S = (0.2, 2.0)
"""Waits before a recording is opened again after its decoder was lost. They are short,
because a client may be waiting.
"""

logger = logging.getLogger(__name__)


class Transcriber:
    """Performs tasks, and requests that wait for their result.

    Used between ``start`` and ``aclose``.
    """

    def __init__(
        self,
        services: Services,
        settings: TranscriptionSettings,
        *,
        decoding: ForkServer | None,
        account_of: Callable[[str], Awaitable[Account]],
        resolver_of: Callable[[str], AbstractResolver] | None = None,
    ) -> None:
        """``account_of`` returns the account of a key, which is charged for its tasks.

        ``resolver_of`` returns the name resolver of a key; None: the system's.
        """
        self.settings = settings
        self.recordings = RecordingFolder(settings.tasks.folder / RECORDING_FOLDER, settings.disk)
        self._store = OnDemandTaskStore(settings.tasks, self._do)
        self._services = services
        self._account_of = account_of
        self.decoding = decoding
        self._resolver_of = resolver_of or NameResolver().resolver_for
        self._task_slots = FairSemaphore(settings.tasks.workers)
        self._request_slots = FairSemaphore(settings.requests)
        self._tasks_of_key: Counter[str] = Counter()
        self._counted_since: dict[str, str] = {}
        """Tasks submitted since the last sweep began, by id, with their keys."""
        self._counted_by_sweep: frozenset[str] = frozenset()
        """Ids of tasks that the last sweep counted and whose submission may not have
        returned yet.
        """
        self._sweeping: asyncio.Task[None] | None = None
        self.works: dict[str, Work] = {}
        """The functions that perform other tasks than transcriptions, by the ``work``
        in their payload.
        """
        self.sweeps: list[Callable[[], Awaitable[None]]] = []
        """Further sweeps, besides that of the recordings."""

    async def start(self) -> None:
        """Resume unfinished tasks, and start sweeping.

        Without a database tasks are resumed once there is one.
        """
        try:
            await self._store.start()
        except AdmissionError as error:
            logger.warning("no tasks for now: %s", error.message)
        self._sweeping = asyncio.get_running_loop().create_task(
            self._sweep_regularly(), name="sweep recordings"
        )

    async def aclose(self) -> None:
        """Stop tasks in progress. They are performed again after the next start."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        await self.tasks.aclose()

    @property
    def tasks(self) -> TaskStore:
        """The store of this object's tasks."""
        return self._store

    def recognizer(self, name: str, parameter: str = "easyllm_id") -> SpeechRecognizer:
        """Return the recogniser of that name. Raises ``RemoteProtocolError``
        (NOT_FOUND) that names the parameter.
        """
        return noted(self._services.recognizer(parameter, name))

    async def recognise(
        self,
        path: Path,
        recognizer: SpeechRecognizer,
        options: "RecordingOptions",
        account: Account,
        report: Callable[[float], None] = lambda _: None,
        on_sentence: Callable[[RecordingUtterance], None] = lambda _: None,
    ) -> RecordingResult:
        """Recognise a recording on disk. Raises as ``recognising.recognise``, and when
        the file cannot be opened.

        ``account`` is charged once the recording is open, for all of its audio, so
        retries are not charged twice. Waits for a slot while too many recordings are
        being recognised.
        """
        slots = self._task_slots if options.in_task else self._request_slots
        async with slots.slot(options.key_id):
            open_recording = opening_with(self.decoding, options.max_ms, options.bare)
            recording = await with_retries(partial(open_recording, path), DECODER_RETRY_S)
            times = 1 if options.together else len(recording.speakers)
            account.use_audio(recording.length_ms * times)
            return await recognise(
                recording,
                recognizer,
                report,
                caller=options.key_id,
                together=options.together,
                on_sentence=on_sentence,
            )

    async def fetch(self, url: URL, upload: Upload, key_id: str) -> None:
        """Fetch a recording for a key. Raises ``FetchError``, and what
        ``Upload.write_piece`` raises.
        """
        await fetch(url, upload.write_piece, self.settings.fetch, self._resolver_of(key_id))
        await upload.finish_upload()

    def check_room(self, key_id: str) -> None:
        """Raise ``QuotaExceededError`` if the key has the maximum number of tasks."""
        if self._tasks_of_key[key_id] >= self.settings.key_tasks:
            raise QuotaExceededError(
                f"the key may have {self.settings.key_tasks} tasks; delete some, or wait until "
                "they expire",
                TASK_RETRY_S,
            )

    def count_task(self, key_id: str, task_id: str) -> None:
        """Count a new task of a key. Every ``sweep`` corrects the counts.

        A task that a sweep found in the store before its submission returned is
        counted already.
        """
        if task_id in self._counted_by_sweep:
            return
        self._tasks_of_key[key_id] += 1
        self._counted_since[task_id] = key_id

    def discount_task(self, key_id: str, task_id: str) -> None:
        """Count a task of a key as gone."""
        self._tasks_of_key[key_id] -= 1
        self._counted_since.pop(task_id, None)

    async def sweep(self) -> None:
        """Delete expired tasks, and recordings that no task needs."""
        await self.tasks.expire_tasks(unix_s() - self.settings.keep_s)
        self._counted_since.clear()
        summary = await self.tasks.count_tasks("recording", unix_s() - CLOCKS_S)
        missed = [
            key_id
            for task_id, key_id in self._counted_since.items()
            if task_id not in summary.recent
        ]
        self._counted_by_sweep = frozenset(summary.recent)
        self._tasks_of_key = Counter(missed)
        for owner, tasks in summary.tasks_of.items():
            self._tasks_of_key[owner_key_id(owner)] += tasks
        await self.recordings.sweep(summary.values)
        for sweep in self.sweeps:
            await sweep()

    async def _sweep_regularly(self) -> None:
        while True:
            try:
                await self.sweep()
            except (AdmissionError, OSError) as error:
                logger.warning("old recordings could not be removed: %s", type(error).__name__)
            await asyncio.sleep(SWEEP_S)

    async def _do(self, task: StoredTask, report: ReportProgress) -> str:
        """Perform a task; see ``Work``. The text of a failure is the wire contract's
        status and a sentence.
        """
        if "work" in task.payload:
            return await self.works[str(task.payload["work"])](task, report)
        try:
            recognizer = self.recognizer(str(task.payload["service"]))
            key_id = owner_key_id(task.owner)
            account = await self._account_of(key_id)
            options = RecordingOptions(key_id, self.settings.max_audio_ms, True, _bare(task))
            async with self._recording(task) as path:
                recognised = await self.recognise(path, recognizer, options, account, report)
        except (RemoteProtocolError, ServiceFailedError, QuotaExceededError) as error:
            raise TaskFailedError(f"{int(error.status)}: {error.message}") from error
        except FetchError as error:
            raise TaskFailedError(f"{int(error.status)}: audio_url: {error.reason}") from error
        except FileNotFoundError as error:
            raise TaskFailedError(
                f"{int(Status.INTERNAL)}: the recording is not on this machine"
            ) from error
        return lines(recognised)

    def resolver_of(self, key_id: str) -> AbstractResolver:
        """Return the name resolver for a key's fetches."""
        return self._resolver_of(key_id)

    @asynccontextmanager
    async def _recording(self, task: StoredTask) -> AsyncIterator[Path]:
        if "recording" in task.payload:
            yield self.recordings.path(str(task.payload["recording"]))
            return
        async with self.recordings.receiving(owner_key_id(task.owner)) as upload:
            await self.fetch(URL(str(task.payload["audio_url"])), upload, owner_key_id(task.owner))
            yield upload.path


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """How to recognise a recording."""

    key_id: str
    """The key: slots are shared fairly among keys."""
    max_ms: int
    in_task: bool = False
    """Whether a task is performed. False: a client waits for the result."""
    bare: InputFormat | None = None
    """The format of a recording without a header."""
    together: bool = False
    """Whether to recognise all channels at once, as one text."""


def _bare(task: StoredTask) -> InputFormat | None:
    if "format" not in task.payload:
        return None
    container = InputContainer(str(task.payload["format"]))
    return InputFormat(container, int(task.payload["sample_rate"] or 0))


def owner_of(project: str, key_id: str, holder: str = "", kind: str = "") -> str:
    """Return the owner of a task: a key in a project, or within it the ``holder`` of
    one of its tokens. Tasks of another ``kind`` than transcriptions have other owners,
    so that each kind is listed by itself.
    """
    of_key = json.dumps([project, key_id, kind] if kind else [project, key_id])
    return f"{of_key}/{holder}" if holder else of_key


def owner_key_id(owner: str) -> str:
    """Return the key of an owner that ``owner_of`` made."""
    of_key = owner[: owner.rindex("]") + 1]
    return str(json.loads(of_key)[1])
