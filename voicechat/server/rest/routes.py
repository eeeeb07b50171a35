"""All REST endpoints, and the documents about them."""

import json
from collections.abc import Iterable

from aiohttp import hdrs, web

from voicechat.server.pages import protocol_folder
from voicechat.server.record_keeping import RecordKeeper
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.chat import Chat
from voicechat.server.rest.client_secrets import ClientSecrets
from voicechat.server.rest.compat.documents import DOCUMENTS, PORTAL, document_operations
from voicechat.server.rest.compat.parts import CompatParts, CompatSettings
from voicechat.server.rest.docs.page import docs_headers, render_page
from voicechat.server.rest.knowledge.doc_parse import DocParse
from voicechat.server.rest.knowledge.embeddings import EmbeddingOperations
from voicechat.server.rest.knowledge.files import FileIntake, KnowledgeFileEndpoints
from voicechat.server.rest.knowledge.qa_records import QaRecordEndpoints
from voicechat.server.rest.media.media import Media
from voicechat.server.rest.media.openai_media import OpenAIMedia
from voicechat.server.rest.non_stream import NonStream
from voicechat.server.rest.openai_speech import OpenAISpeech
from voicechat.server.rest.openapi import Tree, build_document
from voicechat.server.rest.operation import JSON, Body, Operation
from voicechat.server.rest.records.endpoints import RecordEndpoints
from voicechat.server.rest.schemas import PhaseAnswer
from voicechat.server.rest.speech import Speech
from voicechat.server.rest.tokens import IssueToken, Tokens
from voicechat.server.rest.transcribing import Transcriber
from voicechat.server.rest.transcriptions import TranscriptionOperations
from voicechat.server.rest.voice_output import VoiceOutput

DOCUMENT_PATH = "/openapi.json"
DOCS_PATH = "/docs"


def rest_operations(
    backend: Backend,
    issue_token: IssueToken,
    transcriber: Transcriber,
    media: Media,
    documents: Iterable[str] = DOCUMENTS,
    compat: CompatSettings | None = None,
    *,
    intake: FileIntake | None = None,
    records: RecordKeeper | None = None,
) -> list[Operation]:
    """List the endpoints that need a key.

    ``documents``: the other systems' documents that are answered. ``intake`` takes the
    files of knowledge bases; None: files are refused. ``records`` None: there are none.
    """
    documents = frozenset(documents)
    guests = PORTAL in documents
    chat = Chat(backend, guests=guests)
    knowledge_files = KnowledgeFileEndpoints(backend, intake)
    families = (
        chat,
        VoiceOutput(backend),
        Speech(backend),
        OpenAISpeech(backend),
        TranscriptionOperations(backend, transcriber),
        NonStream(backend, transcriber),
        Tokens(backend, issue_token),
        ClientSecrets(backend, issue_token),
        OpenAIMedia(media, guests=guests),
        DocParse(media),
        EmbeddingOperations(backend),
        knowledge_files,
        QaRecordEndpoints(backend),
        RecordEndpoints(backend, records),
    )
    own = [operation for family in families for operation in family.operations()]
    parts = CompatParts(
        backend=backend,
        media=media,
        chat=chat,
        transcriber=transcriber,
        knowledge_files=knowledge_files,
        settings=compat or CompatSettings(),
    )
    return [*own, *document_operations(parts, documents)]


def rest_routes(operations: Iterable[Operation]) -> list[web.RouteDef]:
    """Return the routes of the operations, and of the two documents about them."""
    operations = list(operations)
    document = document_of(operations)
    content = json.dumps(document, ensure_ascii=False).encode()
    page = render_page(document, protocol_folder()).encode()

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(
            body=content, headers={hdrs.CONTENT_TYPE: JSON, hdrs.CACHE_CONTROL: "no-cache"}
        )

    async def docs(_: web.Request) -> web.Response:
        return web.Response(body=page, headers=docs_headers())

    routes = [route for operation in operations for route in operation.routes()]
    return [*routes, web.get(DOCUMENT_PATH, openapi), web.get(DOCS_PATH, docs)]


def document_of(operations: Iterable[Operation]) -> Tree:
    """Build the OpenAPI document of the operations and of the server's other routes."""
    return build_document([*operations, *_without_key()])


def _without_key() -> list[Operation]:
    """Describe the routes without a key, which are served elsewhere."""
    return [
        _open("/healthz", "Whether the process lives", Body(JSON, PhaseAnswer)),
        _open("/readyz", "Whether it takes new sessions", Body(JSON, PhaseAnswer), (503,)),
        Operation(
            method="GET",
            paths=("/metrics",),
            tag="server",
            summary="Counters for Prometheus",
            details="For this machine itself; with the configuration's `server.metrics_key` for "
            "who has that key.",
            answers={200: (Body("text/plain"),)},
            errors=(401,),
            needs_key=False,
        ),
        _open(DOCUMENT_PATH, "This document", Body(JSON)),
        _open(DOCS_PATH, "This document for people", Body("text/html")),
    ]


def _open(path: str, summary: str, body: Body, also: tuple[int, ...] = ()) -> Operation:
    answers = {status: (body,) for status in (200, *also)}
    return Operation(
        method="GET",
        paths=(path,),
        tag="server",
        summary=summary,
        answers=answers,
        errors=(),
        needs_key=False,
    )
