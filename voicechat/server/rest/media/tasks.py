"""Tasks that make pictures and videos: durable as transcription tasks are, and in the
same store.

A task's inputs are on disk before it is acknowledged. Its result, stored once by the
store, names the files of the one attempt that counted; files of other attempts are
swept.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from voicechat.errors import (
    AdmissionError,
    FailureKind,
    ProviderError,
    RemoteProtocolError,
    Status,
)
from voicechat.pictures.inspection import read_size
from voicechat.pictures.picture import Picture
from voicechat.providers.media import (
    ImageGenerator,
    ImageRequest,
    VideoGenerator,
    VideoMade,
    VideoRequest,
)
from voicechat.runtime.media_services import MediaServices
from voicechat.runtime.wall_clock import unix_s
from voicechat.schema.json_text import write_json
from voicechat.server.auth import Principal
from voicechat.server.rest.failures import ServiceFailedError, service_failed
from voicechat.server.rest.media.files import MediaFiles
from voicechat.server.rest.transcribing import CLOCKS_S, Transcriber, owner_key_id, owner_of
from voicechat.server.rest.uploads import Upload
from voicechat.store.quotas import QuotaExceededError
from voicechat.store.tasks.interface import (
    ReportProgress,
    StoredTask,
    Submission,
    TaskFailedError,
    TaskStatus,
)

WORK = "media"
LISTED_TASKS = 100
STOP_S = 5.0
"""How long a service may take to name a job that is being cancelled, and to stop it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFile:
    """A file of a result."""

    name: str
    content_type: str
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaTask:
    """A task as its owner sees it."""

    id: str
    status: TaskStatus
    created_s: int
    progress: float
    model: str
    """The model as the client named it."""
    platform: str
    remix_of: str
    """The task whose video is changed; empty: none."""
    as_address: bool
    """Whether the client wants the addresses of the results, not the results
    themselves.
    """
    service: str
    """The configured service that performs it."""
    request: Mapping[str, object]
    """The request's fields, without pictures."""
    error: str = ""
    """The wire contract's status and a sentence."""
    finished_s: int = 0
    files: tuple[MadeFile, ...] = ()
    video: VideoMade = field(default_factory=VideoMade)

    @property
    def failure(self) -> tuple[Status, str]:
        """The status and the sentence of ``error``. The store's own errors have
        neither.
        """
        code, _, sentence = self.error.partition(": ")
        if code.isdecimal():
            return Status(int(code)), sentence
        return Status.INTERNAL, "the task could not be carried out"


class MediaTasks:
    """Submits, finds and performs the tasks of one process."""

    def __init__(
        self, services: MediaServices, transcriber: Transcriber, files: MediaFiles
    ) -> None:
        self._services = services
        self._transcriber = transcriber
        self._files = files
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        transcriber.works[WORK] = self.perform
        transcriber.sweeps.append(self.sweep)

    async def submit(
        self,
        principal: Principal,
        service: str,
        asked: ImageRequest | VideoRequest,
        *,
        platform: str = "",
        remix_of: str = "",
        as_address: bool = True,
    ) -> MediaTask:
        """Store a task, and return it when it is durable.

        ``service`` is the configured name; the pictures have been inspected. Raises
        ``QuotaExceededError`` and ``AdmissionError``.
        """
        kind = "image" if isinstance(asked, ImageRequest) else "video"
        self._transcriber.check_room(principal.key_id)
        fields = {
            name: value
            for name, value in asdict(asked).items()
            if name not in ("pictures", "mask") and value not in (None, "")
        }
        mask = asked.mask if isinstance(asked, ImageRequest) else None
        pictures = [*asked.pictures, *([mask] if mask is not None else [])]
        names: list[str] = []
        stored = False
        try:
            for picture in pictures:
                names.append(await self._files.store(picture.content, principal.key_id))
            submission = Submission(
                owner=owner_of(principal.project, principal.key_id, principal.holder, kind),
                share=f"{principal.key_id}/{kind}",
                payload={
                    "work": WORK,
                    "kind": kind,
                    "service": service,
                    "platform": platform,
                    "remix_of": remix_of,
                    "as_address": as_address,
                    "request": write_json(fields),
                    "inputs": write_json(names),
                    "has_mask": mask is not None,
                },
                fingerprint="",
            )
            stored = True  # from here on only the sweep can determine whether it was
            task, is_new = await self._transcriber.tasks.submit_task(submission)
        finally:
            if not stored:
                await asyncio.shield(self._files.remove(names))
        if is_new:
            self._transcriber.count_task(principal.key_id, task.id)
        return _as_media(task)

    async def find(self, principal: Principal, kind: str, task_id: str, path: str) -> MediaTask:
        """Return a task of a key. Raises ``RemoteProtocolError`` (NOT_FOUND) naming
        ``path``.
        """
        task = await self._transcriber.tasks.find_task(_owner(principal, kind), task_id)
        if task is None:
            raise RemoteProtocolError(Status.NOT_FOUND, f"{path}: there is no such task")
        return _as_media(task)

    async def newest(self, principal: Principal, kind: str) -> list[MediaTask]:
        """Return the newest tasks of a key, the newest first."""
        owner = _owner(principal, kind)
        tasks = await self._transcriber.tasks.newest_tasks(owner, LISTED_TASKS)
        return [_as_media(task) for task in tasks]

    async def delete(self, principal: Principal, kind: str, task_id: str, path: str) -> MediaTask:
        """Delete a task and its files; one that is being performed is cancelled. Raises
        as ``find``.
        """
        task = await self._transcriber.tasks.delete_task(_owner(principal, kind), task_id)
        if task is None:
            raise RemoteProtocolError(Status.NOT_FOUND, f"{path}: there is no such task")
        self._transcriber.discount_task(principal.key_id, task.id)
        media = _as_media(task)
        await self._abandon_job(task)
        await self._files.remove([*_inputs(task), *(file.name for file in media.files)])
        return media

    async def perform(self, task: StoredTask, report: ReportProgress) -> str:
        """Perform a task; see ``Work``.

        If cancelled because the server stops, the name of a remote job stays stored, so
        that the next attempt continues it; because the task was deleted, the service is
        asked to stop the job.
        """
        try:
            result = await self._perform(task, report)
        except TaskFailedError:
            await self._files.forget_job(task.id)
            raise
        except asyncio.CancelledError:
            if not self._closed:
                ending = asyncio.get_running_loop().create_task(self._end_cancelled(task))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
            raise
        await self._files.forget_job(task.id)
        return result

    async def aclose(self) -> None:
        """Take the end of tasks from now on for the server's end: they are performed
        again after the next start. Waits until services have been asked to stop jobs of
        deleted tasks, for ``STOP_S`` at most.
        """
        self._closed = True
        if self._ending:
            await asyncio.wait(self._ending, timeout=STOP_S)

    async def _end_cancelled(self, task: StoredTask) -> None:
        with suppress(AdmissionError):  # then the sweep forgets the job
            if await self._transcriber.tasks.find_task(task.owner, task.id) is None:
                await self._abandon_job(task)

    async def _abandon_job(self, task: StoredTask) -> None:
        """Ask the service to stop the job of a deleted task, if it has one."""
        remote_id = await self._files.remembered_job(task.id)
        if not await self._files.forget_job(task.id) or task.status.finished:
            return
        service = str(task.payload["service"])
        try:
            async with asyncio.timeout(STOP_S):
                await self._generator(task.payload["kind"], service).stop_job(remote_id)
        except (ProviderError, RemoteProtocolError, TimeoutError) as error:
            # The service may have finished the job, or be down: nothing depends on it.
            logger.info("%s did not stop a job: %s", service, type(error).__name__)

    def _generator(self, kind: object, service: str) -> ImageGenerator | VideoGenerator:
        if kind == "video":
            return self._services.videos.find("model", service)
        return self._services.images.find("model", service)

    async def _perform(self, task: StoredTask, report: ReportProgress) -> str:
        service = str(task.payload["service"])
        try:
            request = await self._request(task)
            if isinstance(request, ImageRequest):
                made = await self._images(task, service, request)
            else:
                made = await self._video(task, service, request, report)
        except ProviderError as error:
            failed = service_failed(Status.MEDIA_FAILED, error)
            raise TaskFailedError(f"{int(failed.status)}: {failed.message}") from error
        except (RemoteProtocolError, ServiceFailedError, QuotaExceededError) as error:
            raise TaskFailedError(f"{int(error.status)}: {error.message}") from error
        except FileNotFoundError as error:
            raise TaskFailedError(
                f"{int(Status.INTERNAL)}: a picture of the request is not on this machine"
            ) from error
        return write_json(made | {"finished": int(unix_s())})

    async def sweep(self) -> None:
        """Remove expired files that no task needs."""
        summary = await self._transcriber.tasks.count_tasks("inputs", unix_s() - CLOCKS_S)
        needed = {name for value in summary.values for name in json.loads(value)}
        await self._files.folder.sweep(needed, self._files.settings.keep_s)
        await self._files.sweep_jobs()

    async def _images(
        self, task: StoredTask, service: str, request: ImageRequest
    ) -> dict[str, object]:
        key_id = owner_key_id(task.owner)
        job = await self._job(task)
        generator = self._services.images.find("model", service)
        try:
            async with asyncio.timeout(self._files.settings.image_deadline_s):
                pictures = await generator.make_images(request, job)
        except TimeoutError as error:
            message = f"it did not answer within {self._files.settings.image_deadline_s:g} s"
            raise ProviderError(service, FailureKind.TIMEOUT, message) from error
        stored: list[str] = []
        try:
            for picture in pictures:
                stored.append(await self._files.store(picture.content, key_id))
        except BaseException:
            await asyncio.shield(self._files.remove(stored))
            raise
        files = [
            MadeFile(
                name=name,
                content_type=picture.content_type,
                width=picture.width,
                height=picture.height,
            )
            for name, picture in zip(stored, pictures, strict=True)
        ]
        return {"files": [asdict(file) for file in files]}

    async def _video(
        self, task: StoredTask, service: str, request: VideoRequest, report: ReportProgress
    ) -> dict[str, object]:
        remote = await self._job(task)
        async with self._files.receiving(owner_key_id(task.owner)) as upload:
            job = _VideoJob(remote, upload, report)
            made = await self._services.videos.find("model", service).make_video(request, job)
            await upload.finish_upload()
            upload.kept = True
        file = MadeFile(name=upload.name, content_type="video/mp4")
        return {"files": [asdict(file)], "video": asdict(made)}

    async def _job(self, task: StoredTask) -> "_TaskJob":
        return _TaskJob(task.id, await self._files.remembered_job(task.id), self._files)

    async def _request(self, task: StoredTask) -> ImageRequest | VideoRequest:
        fields = json.loads(str(task.payload["request"]))
        pictures = [await self._picture(name) for name in _inputs(task)]
        if task.payload["kind"] == "video":
            return VideoRequest(**fields, pictures=tuple(pictures))
        mask = pictures.pop() if task.payload["has_mask"] else None
        return ImageRequest(**fields, pictures=tuple(pictures), mask=mask)

    async def _picture(self, name: str) -> Picture:
        return await asyncio.to_thread(read_size, await self._files.read(name))


class _TaskJob:
    """The `RemoteJob` of a task."""

    def __init__(self, task_id: str, remote_id: str, files: MediaFiles) -> None:
        self.key = task_id
        self._remote_id = remote_id
        self._files = files

    async def begin(self, submit: Callable[[], Awaitable[str]]) -> str:
        if not self._remote_id:
            submitting = asyncio.get_running_loop().create_task(self._submit(submit))
            try:
                await asyncio.shield(submitting)
            except asyncio.CancelledError:
                await asyncio.wait({submitting}, timeout=STOP_S)
                if not submitting.cancel() and not submitting.cancelled():
                    submitting.exception()  # the job was not begun
                raise
        return self._remote_id

    async def _submit(self, submit: Callable[[], Awaitable[str]]) -> None:
        remote_id = await submit()
        await self._files.remember_job(self.key, remote_id)
        self._remote_id = remote_id


class _VideoJob:
    """The `VideoJob` of a task."""

    def __init__(self, job: _TaskJob, upload: Upload, report: ReportProgress) -> None:
        self.key = job.key
        self.begin = job.begin
        self._upload = upload
        self._report = report

    def report(self, done: float) -> None:
        self._report(done)

    async def write_piece(self, piece: bytes) -> None:
        await self._upload.write_piece(piece)


def _owner(principal: Principal, kind: str) -> str:
    return owner_of(principal.project, principal.key_id, principal.holder, kind)


def _inputs(task: StoredTask) -> Sequence[str]:
    names: list[str] = json.loads(str(task.payload["inputs"]))
    return names


def _as_media(task: StoredTask) -> MediaTask:
    made = json.loads(task.result) if task.result else {}
    fields = json.loads(str(task.payload["request"]))
    return MediaTask(
        id=task.id,
        status=task.status,
        created_s=task.created_s,
        progress=task.progress,
        model=str(fields.get("model") or task.payload["service"]),
        platform=str(task.payload["platform"] or ""),
        remix_of=str(task.payload["remix_of"] or ""),
        as_address=bool(task.payload["as_address"]),
        service=str(task.payload["service"]),
        request=fields,
        error=task.error,
        finished_s=int(made.get("finished", 0)),
        files=tuple(MadeFile(**file) for file in made.get("files", ())),
        video=VideoMade(**made.get("video", {})),
    )
