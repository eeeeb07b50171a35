"""What transcriptions stand on: recordings on disk, URLs that are fetched, recognisers, and the store of tasks."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp.abc import AbstractResolver
from yarl import URL

from voicechat.errors import AdmissionError, RemoteProtocolError, Status
from voicechat.providers.interfaces import SpeechRecognizer
from voicechat.runtime.decoding import open_decoding
from voicechat.runtime.services import Services
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.fetch import FetchError, FetchPolicy, fetch
from voicechat.server.rest.backend import pick
from voicechat.server.rest.failures import ServiceFailedError
from voicechat.server.rest.recognising import Recognised, recognise
from voicechat.server.rest.recordings import opening_with
from voicechat.server.rest.transcript_forms import lines
from voicechat.server.rest.uploads import DiskLimits, RecordingFolder, Upload
from voicechat.store.quotas import QuotaExceededError
from voicechat.store.tasks.interface import Report, Task, TaskFailedError, TaskStore
from voicechat.store.tasks.on_demand import OnDemandTaskStore, TaskSettings

RECORDING_FOLDER = "recordings"
SWEEP_S = 600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionSettings:
    """What the configuration says of transcription."""

    tasks: TaskSettings
    disk: DiskLimits = field(default_factory=DiskLimits)
    fetch: FetchPolicy = field(default_factory=FetchPolicy)
    keep_s: float = 86_400.0
    """How long a result is kept, and the recording with it."""
    max_audio_ms: int = 5 * 3_600_000
    """Of a task."""
    max_synchronous_ms: int = 30 * 60_000
    """Of a request that waits for its result."""


class Transcriber:
    """Does tasks, and requests that wait for their result. Used between ``start`` and ``aclose``."""

    def __init__(
        self,
        services: Services,
        settings: TranscriptionSettings,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """``resolver`` None: the system's."""
        self.settings = settings
        self.recordings = RecordingFolder(settings.tasks.folder / RECORDING_FOLDER, settings.disk)
        self._store = OnDemandTaskStore(settings.tasks, self._do)
        self._services = services
        self._decoding = open_decoding()
        self._resolver = resolver
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Go on with tasks that were left, and begin to clean up. Without a database that is done when there is one."""
        try:
            await self._store.start()
        except AdmissionError as error:
            logger.warning("no tasks for now: %s", error.message)
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep_for_ever(), name="sweep recordings")

    async def aclose(self) -> None:
        """Stop tasks in progress; they are done again after the next start."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        await self.tasks.aclose()
        await self._decoding.aclose()

    @property
    def tasks(self) -> TaskStore:
        """The tasks that this object does."""
        return self._store

    def recognizer(self, name: str, parameter: str = "easyllm_id") -> SpeechRecognizer:
        """The recogniser called so. Raises ``RemoteProtocolError`` (NOT_FOUND) that names the parameter."""
        return pick(parameter, name, self._services.recognizers)

    async def recognise(
        self, path: Path, recognizer: SpeechRecognizer, max_ms: int, report: Callable[[float], None]
    ) -> Recognised:
        """Recognise a recording on disk. Raises as ``recognising.recognise``; what cannot be opened too."""
        recording = await opening_with(self._decoding, max_ms)(path)
        return await recognise(recording, recognizer, report)

    async def fetch(self, url: URL, upload: Upload) -> None:
        """Fetch a recording. Raises ``FetchError``, and what ``Upload.write`` raises."""
        await fetch(url, upload.write, self.settings.fetch, self._resolver)
        await upload.finish()

    async def sweep(self) -> None:
        """Forget what has been kept long enough, and remove recordings that no task needs."""
        await self.tasks.expire(unix_s() - self.settings.keep_s)
        await self.recordings.sweep(await self.tasks.payload_values("recording"))

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                await self.sweep()
            except (AdmissionError, OSError) as error:
                logger.warning("old recordings could not be removed: %s", type(error).__name__)
            await asyncio.sleep(SWEEP_S)

    async def _do(self, task: Task, report: Report) -> str:
        """Do a task: see ``Work``. Its failure is told as the wire contract's status and a sentence."""
        try:
            recognizer = self.recognizer(str(task.payload["service"]))
            async with self._recording(task) as path:
                recognised = await self.recognise(path, recognizer, self.settings.max_audio_ms, report)
        except (RemoteProtocolError, ServiceFailedError, QuotaExceededError) as error:
            raise TaskFailedError(f"{int(error.status)}: {error.message}") from error
        except FetchError as error:
            raise TaskFailedError(f"{int(Status.INVALID_PARAMETER)}: audio_url: {error.reason}") from error
        except FileNotFoundError as error:
            raise TaskFailedError(f"{int(Status.INTERNAL)}: the recording is not on this machine") from error
        return lines(recognised)

    @asynccontextmanager
    async def _recording(self, task: Task) -> AsyncIterator[Path]:
        if "recording" in task.payload:
            yield self.recordings.path(str(task.payload["recording"]))
            return
        async with self.recordings.receiving(task.owner) as upload:
            await self.fetch(URL(str(task.payload["audio_url"])), upload)
            yield upload.path
