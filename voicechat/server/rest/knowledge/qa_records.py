"""The endpoints of the Q&A records of knowledge bases, and of trying a question."""

from aiohttp import web

from voicechat.errors import ProviderError, RemoteProtocolError, Status
from voicechat.knowledge.embedding import embed_question
from voicechat.knowledge.interface import Finding, QaRecord, Vector
from voicechat.server.auth import Principal
from voicechat.server.knowledge import RECORDS_PATH, SERVICE_PATH, AgentsKnowledge, source_url
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.knowledge.envelope import (
    PAGE_PARAMETERS,
    KnowledgeAnswer,
    answer_with,
    page_fields,
    read_page,
    scope_of,
)
from voicechat.server.rest.knowledge.schemas import (
    FoundAnswer,
    FoundItem,
    FoundItems,
    KnowledgeQuestion,
    QaAnswer,
    QaForm,
    QaPage,
    QaPageAnswer,
    qa_item,
)
from voicechat.server.rest.operation import BODY_ERRORS, FIND_ERRORS, JSON, Body, Operation
from voicechat.store.access import ApiEndpoint

RECORD_PATH = RECORDS_PATH + "/{qaId}"
SEARCH_PATH = SERVICE_PATH + "/search"
_CHANGE_ERRORS = tuple(sorted({*BODY_ERRORS, *FIND_ERRORS, 409}))


class QaRecordEndpoints:
    """Add, list, read, change and delete Q&A records; search."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def _agents(self) -> AgentsKnowledge:
        return self._backend.require_knowledge("serviceId")

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        record = Body(JSON, QaAnswer)
        return [
            Operation(
                method="POST",
                paths=(RECORDS_PATH,),
                tag="knowledge",
                summary="Add a question with its answer",
                details="Whoever asks this question gets this answer, and no model is asked.",
                handle=self._add,
                body=QaForm,
                answers={200: (record,)},
                errors=_CHANGE_ERRORS,
            ),
            Operation(
                method="GET",
                paths=(RECORDS_PATH,),
                tag="knowledge",
                summary="List the questions and answers, the newest first",
                handle=self._list,
                parameters=PAGE_PARAMETERS,
                answers={200: (Body(JSON, QaPageAnswer),)},
                errors=(400, *FIND_ERRORS),
            ),
            Operation(
                method="GET",
                paths=(RECORD_PATH,),
                tag="knowledge",
                summary="Read a question with its answer",
                handle=self._read,
                answers={200: (record,)},
                errors=FIND_ERRORS,
            ),
            Operation(
                method="POST",
                paths=(RECORD_PATH,),
                tag="knowledge",
                summary="Change a question and its answer",
                handle=self._change,
                body=QaForm,
                answers={200: (record,)},
                errors=_CHANGE_ERRORS,
            ),
            Operation(
                method="DELETE",
                paths=(RECORD_PATH,),
                tag="knowledge",
                summary="Delete a question with its answer",
                handle=self._delete,
                answers={200: (Body(JSON, KnowledgeAnswer),)},
                errors=FIND_ERRORS,
            ),
            Operation(
                method="POST",
                paths=(SEARCH_PATH,),
                tag="knowledge",
                summary="Try a question: see what an answer would be made from",
                handle=self._search,
                body=KnowledgeQuestion,
                answers={200: (Body(JSON, FoundAnswer),)},
                errors=tuple(sorted({*BODY_ERRORS, *FIND_ERRORS})),
            ),
        ]

    async def _add(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            asked = await read_body(request, QaForm)
            scope = scope_of(request, principal, self._agents)
            vector, embedder = await self._embedded(asked.question)
            record = await self._agents.store.add_qa(
                scope, asked.question, asked.answer, vector=vector, embedder=embedder
            )
        return answer_with(QaAnswer(result=qa_item(record)))

    async def _list(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            number, size = read_page(request.query)
            scope = scope_of(request, principal, self._agents)
            records, total = await self._agents.store.list_qa(scope, number, size)
        return answer_with(
            QaPageAnswer(
                result=QaPage(
                    **page_fields(len(records), total, number, size),
                    list=[*map(qa_item, records)],
                )
            )
        )

    async def _read(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            record = await self._find(request, principal)
        return answer_with(QaAnswer(result=qa_item(record)))

    async def _change(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            asked = await read_body(request, QaForm)
            record = await self._find(request, principal)
            vector, embedder = await self._embedded(asked.question)
            changed = await self._agents.store.change_qa(
                principal.project,
                record.id,
                asked.question,
                asked.answer,
                vector=vector,
                embedder=embedder,
            )
            if changed is None:
                raise _no_such_record()
        return answer_with(QaAnswer(result=qa_item(changed)))

    async def _delete(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            record = await self._find(request, principal)
            if await self._agents.store.delete_qa(principal.project, record.id) is None:
                raise _no_such_record()
        return answer_with(KnowledgeAnswer())

    async def _search(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE) as principal:
            asked = await read_body(request, KnowledgeQuestion)
            scope = scope_of(request, principal, self._agents)
            bases = self._agents.bases_read_by(scope.base)
            findings = await self._agents.retriever.search(
                principal.project, bases, asked.question, asked.limit
            )
        url = self._agents.public_url(request)
        found = [_found_item(finding, url) for finding in findings.found]
        answer = None if findings.answer is None else findings.answer.answer
        return answer_with(FoundAnswer(result=FoundItems(found=found, answer=answer)))

    async def _embedded(self, question: str) -> tuple[Vector | None, str]:
        """Return the vector of a question and the name of its embedder; None without
        an embedder. Raises ``RemoteProtocolError`` (AT_CAPACITY) if that fails.
        """
        embedder = self._agents.retriever.embedder
        if embedder is None:
            return None, ""
        try:
            return await embed_question(embedder, question)
        except ProviderError as error:
            raise RemoteProtocolError(
                Status.AT_CAPACITY, "the embedding service failed; try again"
            ) from error

    async def _find(self, request: web.Request, principal: Principal) -> QaRecord:
        scope = scope_of(request, principal, self._agents)
        record = await self._agents.store.find_qa(principal.project, request.match_info["qaId"])
        if record is None or record.scope != scope:
            raise _no_such_record()
        return record


def _found_item(finding: Finding, url: str) -> FoundItem:
    return FoundItem(
        type=finding.kind,
        title=finding.title,
        headings=list(finding.headings),
        content=finding.content,
        page=finding.page,
        score=finding.score,
        url=source_url(url, finding),
    )


def _no_such_record() -> RemoteProtocolError:
    return RemoteProtocolError(Status.NOT_FOUND, "qaId: there is no such record")
