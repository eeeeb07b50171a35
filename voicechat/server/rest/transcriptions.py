"""Transcription tasks: submitted, polled, listed, deleted."""

import hashlib
import json
import re

from aiohttp import web
from pydantic import BaseModel

from voicechat.errors import RemoteProtocolError, Status
from voicechat.server.auth import Principal
from voicechat.server.fetch import check_url
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.forms import FORM, read_field, receive_form
from voicechat.server.rest.operation import (
    FIND_ERRORS,
    JSON,
    KEY_ERRORS,
    Body,
    Operation,
    Parameter,
)
from voicechat.server.rest.transcribing import Transcriber, owner_of
from voicechat.server.rest.transcription_schemas import (
    TaskAnswer,
    TaskCreated,
    TaskDeleted,
    TaskList,
    TaskState,
    TranscriptionForm,
    TranscriptionRequest,
)
from voicechat.store.access import ApiEndpoint
from voicechat.store.tasks.interface import (
    IdempotencyConflictError,
    Payload,
    StoredTask,
    Submission,
    TaskStatus,
)

TASKS_PATH = "/api/open-apis/projects/{project}/easyllms/speechtotext/transcriptions"
TASK_PATH = TASKS_PATH + "/{taskId}"
LISTED_TASKS = 100
SUBMIT_ERRORS = (400, 401, 404, 408, 409, 413, 415, 429, 500, 503)
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
IDEMPOTENCY_KEY = Parameter(
    "header",
    "Idempotency-Key",
    "A name of the client's for this request, which makes it safe to repeat: 1 to 255 ASCII "
    "characters without spaces.",
    {"type": "string", "pattern": r"^[!-~]{1,255}$"},
)
_ERRORS = {
    "attempts_exhausted": f"{int(Status.INTERNAL)}: the work was begun too often without coming "
    "to an end",
    "internal": f"{int(Status.INTERNAL)}: internal error",
}
"""The messages for the store's error codes."""


class TranscriptionOperations:
    """The endpoints. A task belongs to its key and project; for others it does not
    exist.
    """

    def __init__(self, backend: Backend, transcriber: Transcriber) -> None:
        self._backend = backend
        self._transcriber = transcriber

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        return [
            Operation(
                method="POST",
                paths=(TASKS_PATH,),
                tag="transcription",
                summary="Transcribe a recording, as a task",
                details="A JSON body with `audio_url`, or a form (`multipart/form-data`) with "
                "`data`, which is that object as text, and `audio_file`. The task is "
                "durable when it is answered. A request repeated with its "
                "`Idempotency-Key` gives the same task.",
                handle=self._submit,
                body=TranscriptionRequest,
                forms=(Body(FORM, TranscriptionForm),),
                parameters=(IDEMPOTENCY_KEY,),
                answers={200: (Body(JSON, TaskCreated),)},
                errors=SUBMIT_ERRORS,
            ),
            Operation(
                method="GET",
                paths=(TASKS_PATH,),
                tag="transcription",
                summary="List the newest tasks",
                handle=self._list,
                answers={200: (Body(JSON, TaskList),)},
                errors=KEY_ERRORS,
            ),
            Operation(
                method="GET",
                paths=(TASK_PATH,),
                tag="transcription",
                summary="Look at a task, and get its result",
                details="Results are kept for 24 hours.",
                handle=self._look,
                answers={200: (Body(JSON, TaskAnswer),)},
                errors=FIND_ERRORS,
            ),
            Operation(
                method="DELETE",
                paths=(TASK_PATH,),
                tag="transcription",
                summary="Delete a task, its result and its recording",
                handle=self._delete,
                answers={200: (Body(JSON, TaskDeleted),)},
                errors=FIND_ERRORS,
            ),
        ]

    async def _submit(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.TRANSCRIPTION) as principal:
            idempotency_key = _idempotency_key(request)
            self._transcriber.check_room(principal.key_id)
            if request.content_type != FORM:
                asked = await read_body(request, TranscriptionRequest)
                task = await self._submit_url(principal, asked, idempotency_key)
            else:
                task = await self._submit_form(request, principal, idempotency_key)
        return _json(TaskCreated(taskId=task.id, task_id=task.id, created=task.created_s))

    async def _submit_form(
        self, request: web.Request, principal: Principal, idempotency_key: str
    ) -> StoredTask:
        transcriber = self._transcriber
        async with transcriber.recordings.receiving(principal.key_id) as upload:
            form = await receive_form(request, upload)
            asked = read_field(form, "data", TranscriptionRequest)
            if not form.has_file:
                return await self._submit_url(principal, asked, idempotency_key)
            if asked.audio_url:
                raise RemoteProtocolError(
                    Status.INVALID_PARAMETER, "audio_url: not together with audio_file"
                )
            transcriber.recognizer(asked.easyllm_id)
            payload: Payload = _payload(asked) | {"recording": upload.name}
            submission = _submission(principal, payload, upload.sha256, idempotency_key)
            # Keep the file from here on: if this is cancelled, only the sweep can
            # determine whether the submission was stored.
            upload.kept = True
            try:
                task, upload.kept = await transcriber.tasks.submit_task(submission)
                if upload.kept:
                    transcriber.count_task(principal.key_id, task.id)
            except IdempotencyConflictError:
                upload.kept = False
                raise
            return task

    async def _submit_url(
        self, principal: Principal, asked: TranscriptionRequest, idempotency_key: str
    ) -> StoredTask:
        check_url(asked.audio_url, self._transcriber.settings.fetch)
        self._transcriber.recognizer(asked.easyllm_id)
        payload: Payload = _payload(asked) | {"audio_url": asked.audio_url}
        submission = _submission(principal, payload, asked.audio_url, idempotency_key)
        task, is_new = await self._transcriber.tasks.submit_task(submission)
        if is_new:
            self._transcriber.count_task(principal.key_id, task.id)
        return task

    async def _list(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.TRANSCRIPTION) as principal:
            tasks = await self._transcriber.tasks.newest_tasks(_owner(principal), LISTED_TASKS)
        return _json(TaskList(tasks=[TaskState.model_validate(_state(task)) for task in tasks]))

    async def _look(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.TRANSCRIPTION) as principal:
            task = await self._transcriber.tasks.find_task(
                _owner(principal), request.match_info["taskId"]
            )
        if task is None:
            raise _no_such_task()
        result = task.result if task.status is TaskStatus.SUCCESS else None
        return _json(TaskAnswer.model_validate(_state(task) | {"result": result}))

    async def _delete(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.TRANSCRIPTION) as principal:
            task = await self._transcriber.tasks.delete_task(
                _owner(principal), request.match_info["taskId"]
            )
            if task is None:
                raise _no_such_task()
            self._transcriber.discount_task(principal.key_id, task.id)
            if "recording" in task.payload:
                await self._transcriber.recordings.remove(str(task.payload["recording"]))
        return _json(TaskDeleted(taskId=task.id, task_id=task.id))


def _owner(principal: Principal) -> str:
    return owner_of(principal.project, principal.key_id, principal.holder)


def _payload(asked: TranscriptionRequest) -> dict[str, str | int | float | bool | None]:
    payload: dict[str, str | int | float | bool | None] = {"service": asked.easyllm_id}
    if bare := asked.speech_recognition_param.bare:
        payload |= {"format": bare.container.value, "sample_rate": bare.rate_hz}
    return payload


def _submission(
    principal: Principal, payload: Payload, content: str, idempotency_key: str
) -> Submission:
    """Make a submission. ``content`` identifies the recording by its content, or by its
    URL.
    """
    parts = [content, *(payload.get(name) for name in ("service", "format", "sample_rate"))]
    fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return Submission(
        owner=_owner(principal),
        share=principal.key_id,
        payload=payload,
        fingerprint=fingerprint,
        idempotency_key=idempotency_key,
    )


def _idempotency_key(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return ""
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER,
            "Idempotency-Key: should be 1 to 255 ASCII characters without spaces",
        )
    return key


def _state(task: StoredTask) -> dict[str, object]:
    return {
        "taskId": task.id,
        "task_id": task.id,
        "status": task.status.value,
        "created": task.created_s,
        "progress": task.progress,
        "attempt": task.attempt,
        "errorMsg": _ERRORS.get(task.error, task.error) or None,
    }


def _no_such_task() -> RemoteProtocolError:
    return RemoteProtocolError(Status.NOT_FOUND, "taskId: there is no such task")


def _json(answer: BaseModel) -> web.Response:
    return web.json_response(text=answer.model_dump_json())
