"""The parts that the documents' endpoints share."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Coroutine, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from voicechat.audio.formats import InputContainer, InputFormat
from voicechat.config.server_sections import PlatformConfig
from voicechat.errors import RemoteProtocolError, Status
from voicechat.providers.interfaces import ChatModel, ChatRequest, ReplyFinished, TextDelta
from voicechat.schema.checked import RequestModel
from voicechat.server.auth import Principal
from voicechat.server.origins import Origins
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.chat import Chat, bounded_parts
from voicechat.server.rest.forms import FORM, receive_file, receive_form
from voicechat.server.rest.knowledge.files import KnowledgeFileEndpoints
from voicechat.server.rest.media.media import Media
from voicechat.server.rest.media.openai_schemas import FilePart
from voicechat.server.rest.operation import Body
from voicechat.server.rest.transcribing import RecordingOptions, Transcriber
from voicechat.server.rest.transcript_forms import plain
from voicechat.session.types import Message
from voicechat.store.access import ApiEndpoint
from voicechat.store.conversations import ConversationStore

Result = TypeVar("Result")


class RecordingForm(RequestModel):
    """A form with a recording."""

    file: FilePart


PCM = InputFormat(InputContainer.PCM, 16_000)
"""The format of samples without a header, the only one that the documents' recognisers
accept.
"""
RECORDINGS = (Body("application/octet-stream"), Body(FORM, RecordingForm))
"""The forms of a body that is a recording. The documents have only the first one; a
form would otherwise be taken for samples.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatSettings:
    """The settings of the documents."""

    platforms: Mapping[str, PlatformConfig] = field(default_factory=dict)
    data_dir: Path = Path()
    origins: Origins = field(default_factory=Origins)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatParts:
    """The services, and the settings of the documents."""

    backend: Backend
    media: Media
    chat: Chat
    transcriber: Transcriber
    knowledge_files: KnowledgeFileEndpoints
    settings: CompatSettings

    @property
    def conversations(self) -> ConversationStore:
        """The conversations that the server keeps."""
        return ConversationStore(self.settings.data_dir)

    @asynccontextmanager
    async def admitted(
        self, request: web.Request, endpoint: ApiEndpoint, keys: Collection[str] = ()
    ) -> AsyncGenerator[Principal, None]:
        """Admit a request, also of a guest. Raises as ``Backend.admitted``."""
        async with self.backend.admitted(request, endpoint, keys, guests=True) as principal:
            yield principal

    async def recognise_body(self, request: web.Request, principal: Principal) -> str:
        """Recognise a body of one of ``RECORDINGS``, of a known format or bare samples.
        Raises ``RemoteProtocolError`` and ``ServiceFailedError``.
        """
        transcriber = self.transcriber
        async with transcriber.recordings.receiving(principal.key_id) as upload:
            if request.content_type != FORM:
                upload.field_name = "body"
                await receive_file(request, upload)
            elif not (await receive_form(request, upload)).has_file:
                raise RemoteProtocolError(Status.INVALID_PARAMETER, "file: must be present")
            options = RecordingOptions(
                principal.key_id, transcriber.settings.max_synchronous_ms, bare=PCM, together=True
            )
            recognizer = transcriber.recognizer("default")
            found = await transcriber.recognise(upload.path, recognizer, options, principal.account)
        return plain(found)


async def text_pieces(
    model: ChatModel, messages: tuple[Message, ...], options: Mapping[str, object]
) -> AsyncGenerator[str, None]:
    """Yield the pieces of a chat model's reply. Raises ``ServiceFailedError``."""
    parts = bounded_parts(model, ChatRequest(messages=messages, options=options))
    async with aclosing(parts):
        async for part in parts:
            if isinstance(part, TextDelta) and part.text:
                yield part.text


async def all_of(works: Iterable[Coroutine[object, object, Result]]) -> list[Result]:
    """Run coroutines at once and return their results, in order. The first failure is
    raised and cancels the others.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]


@dataclass(slots=True)
class ChatAnswer:
    """A chat model's whole reply."""

    text: str = ""
    finished: ReplyFinished = field(default_factory=ReplyFinished)


async def reply_of(
    model: ChatModel, messages: tuple[Message, ...], options: Mapping[str, object]
) -> ChatAnswer:
    """Ask a chat model. Raises ``ServiceFailedError``."""
    reply = ChatAnswer()
    parts = bounded_parts(model, ChatRequest(messages=messages, options=options))
    async with aclosing(parts):
        async for part in parts:
            if isinstance(part, TextDelta):
                reply.text += part.text
            elif isinstance(part, ReplyFinished):
                reply.finished = part
    return reply
