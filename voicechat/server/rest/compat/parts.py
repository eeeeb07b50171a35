"""The parts that the documents' endpoints share."""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from voicechat.audio.formats import InputContainer, InputFormat
from voicechat.config.server_sections import PlatformConfig
from voicechat.providers.interfaces import ChatModel, ChatRequest, ReplyFinished, TextDelta
from voicechat.server.auth import Principal, request_keys
from voicechat.server.origins import Origins
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.chat import Chat, bounded_parts
from voicechat.server.rest.forms import receive_file
from voicechat.server.rest.media.media import Media
from voicechat.server.rest.transcribing import RecordingOptions, Transcriber
from voicechat.server.rest.transcript_forms import plain
from voicechat.session.types import Message
from voicechat.store.access import ApiEndpoint
from voicechat.store.conversations import ConversationStore

PCM = InputFormat(InputContainer.PCM, 16_000)
"""The format of samples without a header, the only one that the documents' recognisers
accept.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatSettings:
    """The settings of the documents."""

    platforms: Mapping[str, PlatformConfig] = field(default_factory=dict)
    guest_key: str = field(default="", repr=False)
    data_dir: Path = Path()
    origins: Origins = field(default_factory=Origins)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatParts:
    """The services, and the settings of the documents."""

    backend: Backend
    media: Media
    chat: Chat
    transcriber: Transcriber
    settings: CompatSettings

    @property
    def conversations(self) -> ConversationStore:
        """The conversations that the server keeps."""
        return ConversationStore(self.settings.data_dir)

    @asynccontextmanager
    async def admitted(
        self, request: web.Request, endpoint: ApiEndpoint, keys: Collection[str] = ()
    ) -> AsyncGenerator[Principal, None]:
        """Admit a request. A request without a key uses the guest key, if one is
        configured.

        Raises as ``Backend.admitted``.
        """
        if self.settings.guest_key and not keys and not request_keys(request):
            keys = (self.settings.guest_key,)
        async with self.backend.admitted(request, endpoint, keys) as principal:
            yield principal

    async def recognise_body(self, request: web.Request, principal: Principal) -> str:
        """Recognise the body, a recording of a known format or bare samples. Raises
        ``RemoteProtocolError`` and ``ServiceFailedError``.
        """
        transcriber = self.transcriber
        async with transcriber.recordings.receiving(principal.key_id) as upload:
            await receive_file(request, upload)
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
