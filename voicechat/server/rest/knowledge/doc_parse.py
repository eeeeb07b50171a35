"""Parsing of documents: a file in, Markdown out."""

from typing import Annotated

from aiohttp import web
from pydantic import Field

from voicechat.errors import ProviderError, RemoteProtocolError, Status
from voicechat.schema.checked import RequestModel
from voicechat.server.response_notes import add_note
from voicechat.server.rest.bodies import checked
from voicechat.server.rest.failures import service_failed
from voicechat.server.rest.forms import FORM, receive_form
from voicechat.server.rest.media.media import MEDIA_ERRORS, Media
from voicechat.server.rest.media.openai_media import json_response
from voicechat.server.rest.media.openai_schemas import FilePart
from voicechat.server.rest.operation import JSON, Body, Operation
from voicechat.server.rest.schemas import ResponseModel
from voicechat.store.access import ApiEndpoint

DOC_PARSE_PATH = "/api/open-apis/projects/{project}/easyllms/doc-parse"
MAX_BYTES = 50 * 1024**2 - 1
"""The document says less than 50 MB."""


class DocParseForm(RequestModel):
    """A document to be parsed."""

    easyllm_id: Annotated[str, Field(min_length=1)]
    """A name; this server has one service for documents, which serves any name."""
    file: FilePart = b""
    """pdf, docx, doc, xlsx, xls, pptx, ppt, txt, md, csv, html: less than 50 MB."""


class DocParseAnswer(ResponseModel):
    """What the document says."""

    data: str
    """Markdown."""


class DocParse:
    """The endpoint."""

    def __init__(self, media: Media) -> None:
        self._media = media

    def operations(self) -> list[Operation]:
        """List the endpoint."""
        return [
            Operation(
                method="POST",
                paths=(DOC_PARSE_PATH,),
                tag="knowledge",
                summary="Convert a document to Markdown",
                details="Headings, lists and tables are kept. The content of the file tells its "
                "format, not its name. Pages that are pictures are read where an OCR service "
                "is configured; otherwise they are left out, and a note says how many.",
                handle=self._parse,
                forms=(Body(FORM, DocParseForm),),
                answers={200: (Body(JSON, DocParseAnswer),)},
                errors=MEDIA_ERRORS,
            )
        ]

    async def _parse(self, request: web.Request) -> web.Response:
        async with (
            self._media.backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal,
            self._media.files.receiving(principal.key_id) as upload,
        ):
            if request.content_type != FORM:
                raise RemoteProtocolError(
                    Status.INVALID_PARAMETER, f"Content-Type: should be {FORM}"
                )
            upload.most_bytes = MAX_BYTES
            form = await receive_form(request, upload)
            checked(DocParseForm, {"easyllm_id": form.first("easyllm_id")})
            if not form.has_file:
                raise RemoteProtocolError(Status.INVALID_PARAMETER, "file: must be present")
            try:
                found = await self._media.documents.read(
                    upload.path, form.file_name, principal.key_id
                )
            except ProviderError as error:
                raise service_failed(Status.MEDIA_FAILED, error) from error
        if found.unread_pages:
            add_note(f"file: {found.unread_pages} pages are pictures and were left out")
        return json_response(DocParseAnswer(data=found.markdown))
