"""The endpoints of the files of knowledge bases."""

from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from aiohttp import hdrs, web

from voicechat.errors import RemoteProtocolError, Status
from voicechat.knowledge.interface import (
    FileStatus,
    KnowledgeFile,
    KnowledgeScope,
)
from voicechat.server.auth import Principal
from voicechat.server.knowledge import FILES_PATH, AgentsKnowledge, file_url
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.forms import FORM, receive_form
from voicechat.server.rest.knowledge.envelope import (
    PAGE_PARAMETERS,
    KnowledgeAnswer,
    answer_in_pieces,
    answer_with,
    page_fields,
    read_page,
    scope_of,
)
from voicechat.server.rest.knowledge.schemas import (
    FileAnswer,
    FileDetailsAnswer,
    FilePage,
    FilePageAnswer,
    KnowledgeFileChange,
    KnowledgeFileForm,
    file_details,
    file_item,
)
from voicechat.server.rest.operation import BODY_ERRORS, FIND_ERRORS, JSON, Body, Operation
from voicechat.server.rest.uploads import Upload
from voicechat.store.access import ApiEndpoint

FILE_PATH = FILES_PATH + "/{fileId}"
DOWNLOAD_PATH = FILE_PATH + "/download"
MAX_TITLE_CHARACTERS = 255
NO_FILES = "this server takes no files: pip install 'voicechat[knowledge]'"
_HEADERS = {
    hdrs.CACHE_CONTROL: "private, no-cache",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
_CHANGE_ERRORS = tuple(sorted({*BODY_ERRORS, *FIND_ERRORS, 409}))


class FileIntake(Protocol):
    """Keeps uploaded files, and makes passages of them in durable tasks."""

    def receiving(self, key_id: str) -> AbstractAsyncContextManager[Upload]:
        """Receive a file, which is removed unless it is ``kept``."""

    async def ingest(self, principal: Principal, file: KnowledgeFile) -> None:
        """Submit the durable task that makes a stored file's passages. Raises
        ``QuotaExceededError`` and ``AdmissionError``.
        """

    async def forget(self, file: KnowledgeFile) -> None:
        """Remove the bytes of a deleted file."""

    async def progress_of(self, file: KnowledgeFile) -> float:
        """Return the share of the reading that is done, 0 to 1. Raises
        ``AdmissionError``.
        """

    def path(self, file: KnowledgeFile) -> Path:
        """Return where the bytes of a file are."""


class KnowledgeFileEndpoints:
    """Upload, list, read, change and delete files."""

    def __init__(self, backend: Backend, intake: FileIntake | None) -> None:
        """``intake`` None: this server takes no files."""
        self._backend = backend
        self._taking = intake

    @property
    def _intake(self) -> FileIntake:
        if self._taking is None:
            raise RemoteProtocolError(Status.NOT_FOUND, NO_FILES)
        return self._taking

    @property
    def _agents(self) -> AgentsKnowledge:
        return self._backend.require_knowledge("serviceId")

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        file = Body(JSON, FileAnswer)
        return [
            Operation(
                method="POST",
                paths=(FILES_PATH,),
                tag="knowledge",
                summary="Upload a document",
                details="A form (`multipart/form-data`) with `file`. The document is read, "
                "divided and embedded by a durable task, after which its status is ENABLED "
                "or, with the reason, ERROR. A knowledge base has at most 300 files that are "
                "not ERROR.",
                handle=self._upload,
                forms=(Body(FORM, KnowledgeFileForm),),
                answers={200: (file,)},
                errors=(*_CHANGE_ERRORS, 415),
            ),
            Operation(
                method="GET",
                paths=(FILES_PATH,),
                tag="knowledge",
                summary="List the documents, the newest first",
                handle=self._list,
                parameters=PAGE_PARAMETERS,
                answers={200: (Body(JSON, FilePageAnswer),)},
                errors=(400, *FIND_ERRORS),
            ),
            Operation(
                method="GET",
                paths=(FILE_PATH,),
                tag="knowledge",
                summary="Read a document",
                details="Only with the status ENABLED or NOT_ENABLED.",
                handle=self._read,
                answers={200: (Body(JSON, FileDetailsAnswer),)},
                errors=(*FIND_ERRORS, 409),
            ),
            Operation(
                method="POST",
                paths=(FILE_PATH,),
                tag="knowledge",
                summary="Say whether a document is searched",
                details="Only with the status ENABLED or NOT_ENABLED.",
                handle=self._change,
                body=KnowledgeFileChange,
                answers={200: (file,)},
                errors=_CHANGE_ERRORS,
            ),
            Operation(
                method="DELETE",
                paths=(FILE_PATH,),
                tag="knowledge",
                summary="Delete a document",
                details="Not with the status UPLOADING. No answer quotes it any more; its bytes "
                "are removed.",
                handle=self._delete,
                answers={200: (Body(JSON, KnowledgeAnswer),)},
                errors=(*FIND_ERRORS, 409),
            ),
            Operation(
                method="GET",
                paths=(DOWNLOAD_PATH,),
                tag="knowledge",
                summary="Fetch a document as it was uploaded",
                handle=self._download,
                answers={200: (Body("application/octet-stream"),)},
                errors=(*FIND_ERRORS, 409),
            ),
        ]

    async def _upload(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            scope = scope_of(request, principal, self._agents)
            file = await self.receive_file(request, principal, scope)
        return answer_with(FileAnswer(result=file_item(file)))

    async def receive_file(
        self, request: web.Request, principal: Principal, scope: KnowledgeScope, field: str = "file"
    ) -> KnowledgeFile:
        """Receive the form of a request and ingest its file, which is durable on
        return.

        ``field`` is the name of the form's field. Raises ``RemoteProtocolError`` and
        ``AdmissionError``.
        """
        if request.content_type != FORM:
            raise RemoteProtocolError(Status.MALFORMED, f"the body should be {FORM}")
        self._backend.require_knowledge(field)
        async with self._intake.receiving(principal.key_id) as upload:
            form = await receive_form(request, upload, (field,))
            if not form.has_file:
                raise RemoteProtocolError(Status.INVALID_PARAMETER, f"{field}: must be present")
            title = title_of(form.file_name)
            file = await self._agents.store.add_file(scope, title, upload.size_bytes, upload.name)
            upload.kept = True
        await self._intake.ingest(principal, file)
        return file

    async def _list(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            number, size = read_page(request.query)
            scope = scope_of(request, principal, self._agents)
            files, total = await self._agents.store.list_files(scope, number, size)
            items = [file_item(file, await self._progress(file)) for file in files]
        return answer_with(
            FilePageAnswer(
                result=FilePage(**page_fields(len(files), total, number, size), list=items)
            )
        )

    async def _read(self, request: web.Request) -> web.StreamResponse:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            file = await self._readable(request, principal)
            content = await self._agents.store.content_of(principal.project, file.id)
            if content is None:
                raise _no_such_file()
        address = file_url(self._agents.public_url(request), file.scope, file.id)
        details = file_details(file, "", f"{address}/download")
        return await answer_in_pieces(
            request,
            FileDetailsAnswer(result=details).model_dump_json(),
            content,
            write_ms=self._backend.limits.write_ms,
        )

    async def _change(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            asked = await read_body(request, KnowledgeFileChange)
            file = await self._readable(request, principal)
            status = FileStatus(asked.status)
            changed = await self._agents.store.set_status(principal.project, file.id, status)
            if changed is None:
                raise _no_such_file()
        return answer_with(FileAnswer(result=file_item(changed)))

    async def _delete(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            file = await self._find(request, principal)
            if file.status is FileStatus.UPLOADING:
                raise _not_now(file, "deleted")
            deleted = await self._agents.store.delete_file(principal.project, file.id)
            if deleted is None:
                raise _no_such_file()
            await self._intake.forget(deleted)
        return answer_with(KnowledgeAnswer())

    async def _download(self, request: web.Request) -> web.StreamResponse:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            file = await self._readable(request, principal)
            name = quote(file.title, safe="")
            headers = {
                **_HEADERS,
                hdrs.CONTENT_TYPE: "application/octet-stream",
                hdrs.CONTENT_DISPOSITION: f"attachment; filename*=UTF-8''{name}",
            }
            response = web.FileResponse(self._intake.path(file), headers=headers)
            await response.prepare(request)
            return response

    async def _progress(self, file: KnowledgeFile) -> float:
        waits = file.status is FileStatus.UPLOADING
        return await self._intake.progress_of(file) if waits else 1.0

    async def _find(self, request: web.Request, principal: Principal) -> KnowledgeFile:
        scope = scope_of(request, principal, self._agents)
        file = await self._agents.store.find_file(principal.project, request.match_info["fileId"])
        if file is None or file.scope != scope:
            raise _no_such_file()
        return file

    async def _readable(self, request: web.Request, principal: Principal) -> KnowledgeFile:
        file = await self._find(request, principal)
        if not file.status.readable:
            raise _not_now(file, "read")
        return file


def title_of(file_name: str) -> str:
    """Return the title of an uploaded file: its name without a folder, as a single
    line. Some clients write other characters than ASCII with percent signs.
    """
    if file_name.isascii():
        with suppress(UnicodeDecodeError):
            file_name = unquote(file_name, errors="strict")
    name = file_name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(char for char in name if char.isprintable()).strip()
    return printable[-MAX_TITLE_CHARACTERS:] or "document"


def _no_such_file() -> RemoteProtocolError:
    return RemoteProtocolError(Status.NOT_FOUND, "fileId: there is no such file")


def _not_now(file: KnowledgeFile, done: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        Status.NOT_ALLOWED_NOW,
        f"fileId: a file with the status {file.status.value} cannot be {done}",
    )
