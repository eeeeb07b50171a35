"""Chat completions in OpenAI's form: whole or streamed, with tools; and the list of
models.
"""

import secrets
from collections.abc import AsyncGenerator, Callable
from typing import Annotated

from aiohttp import web
from pydantic import model_validator

from voicechat.errors import Fault, ProviderError
from voicechat.providers.interfaces import (
    ChatModel,
    ChatRequest,
    Extras,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    ThoughtDelta,
    ToolsStarted,
)
from voicechat.runtime.provider_deadlines import closing, next_item
from voicechat.runtime.reply_task import REPLY_CHARACTERS, THOUGHT_CHARACTERS
from voicechat.runtime.wall_clock import unix_s
from voicechat.schema.chat_options import MAX_MESSAGES, ChatCompletion, ChatMessage
from voicechat.schema.checked import Check, Items, RequestModel, between, only
from voicechat.schema.json_text import shown, write_json
from voicechat.server.knowledge import base_name
from voicechat.server.response_notes import add_note
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.completion import Completion
from voicechat.server.rest.event_stream import CONTENT_TYPE as EVENTS
from voicechat.server.rest.event_stream import DONE, answer_with_events, in_openais_form
from voicechat.server.rest.failures import ServiceFailedError, openai_failure, service_failed
from voicechat.server.rest.operation import CHAT_ERRORS, FIND_ERRORS, JSON, Body, Operation, Shape
from voicechat.server.rest.schemas import (
    ChatCompletionAnswer,
    ChatCompletionChunk,
    ModelCard,
    ModelList,
)
from voicechat.session.limits import SessionLimits
from voicechat.session.types import SourcesCited, ToolCall, ToolExchange
from voicechat.store.access import ApiEndpoint

COMPLETION_PATHS = (
    "/api/open-apis/v1/chat/completions",
    "/api/open-apis/projects/v1/chat/completions",
    "/api/open-apis/projects/{project}/chat/completions",
    "/v1/chat/completions",
)
"""The document's path, its first client's, one that names a project, and OpenAI's."""
MODEL_PATHS = ("/api/open-apis/v1/models", "/v1/models")
MAX_BODY_BYTES = 8 * 1024 * 1024
"""Enough for some images as data URLs."""
DOCUMENTED_DEFAULTS: dict[str, object] = {"temperature": 1.0, "top_p": 1.0}
"""The document's defaults. On OpenAI's paths the model's server has its own."""


def _one_reply(value: object) -> str:
    return f"{shown(value)} replies are not possible: only one"


class ChatCompletionStreamOptions(RequestModel):
    """Options of a streamed reply."""

    include_usage: bool = False


class CompletionRequest(ChatCompletion):
    """The document's table, and what OpenAI's SDKs send besides; other parameters pass
    through.
    """

    messages: Annotated[list[ChatMessage], Items(1, MAX_MESSAGES, "messages")]
    """The conversation so far."""
    model: str
    """A configured chat model, or an agent: then its model answers, by its
    instructions.
    """
    stream: bool = False
    """Whether the reply is sent while it is written."""
    stream_options: ChatCompletionStreamOptions = ChatCompletionStreamOptions()
    n: Annotated[int, only(1, _one_reply)] = 1
    """Only one reply is made."""
    max_completion_tokens: Annotated[int, between(1, 2**31 - 1)] | None = None
    """OpenAI's newer name of max_tokens."""
    seed: int | None = None
    tool_choice: object = None
    """Passed through."""
    parallel_tool_calls: bool | None = None
    category: Annotated[str, Check(base_name, {"maxLength": 64})] = ""
    """A knowledge base that the answer comes from, besides those of the agent."""

    model_id: str = ""
    """What the document's first client calls model. It reads every event as JSON: its
    streams end without [DONE].
    """

    @model_validator(mode="before")
    @classmethod
    def _model_by_its_first_name(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("model_id") and not value.get("model"):
            return value | {"model": value["model_id"]}
        return value

    def given(self) -> dict[str, object]:
        """Return the parameters that are passed through to the model, as far as the
        client sent them.
        """
        passed = {"max_completion_tokens", "seed", "tool_choice", "parallel_tool_calls"}
        return super().given() | self.model_dump(include=passed, exclude_unset=True)


class Chat:
    """The endpoints of the chat models."""

    def __init__(self, backend: Backend, *, guests: bool = False) -> None:
        """``guests``: whether requests without a key count as ones with the guest
        key.
        """
        self._backend = backend
        self._guests = guests
        self._started_s = int(unix_s())

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        return [
            Operation(
                method="POST",
                paths=COMPLETION_PATHS,
                tag="chat",
                summary="Ask a chat model",
                details="With `stream` the answer is events, a chunk each, and `data: [DONE]` "
                "at the end. Parameters that are not listed go to the model's server, "
                "and fields of its answer come back: log probabilities, references, "
                "thoughts.",
                handle=self._complete,
                body=CompletionRequest,
                answers={
                    200: (Body(JSON, ChatCompletionAnswer), Body(EVENTS, ChatCompletionChunk))
                },
                errors=CHAT_ERRORS,
                shape=Shape.OPENAI,
            ),
            Operation(
                method="GET",
                paths=MODEL_PATHS,
                tag="chat",
                summary="List the chat models",
                handle=self._models,
                answers={200: (Body(JSON, ModelList),)},
                errors=(401, 429, 500, 503),
                shape=Shape.OPENAI,
            ),
            Operation(
                method="GET",
                paths=tuple(f"{path}/{{model}}" for path in MODEL_PATHS),
                tag="chat",
                summary="Look whether a name may be asked for",
                handle=self._model,
                answers={200: (Body(JSON, ModelCard),)},
                errors=FIND_ERRORS,
                shape=Shape.OPENAI,
            ),
        ]

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        return await self.complete(request, lambda wanted: wanted, guests=self._guests)

    async def complete(
        self, request: web.Request, resolve: Callable[[str], str], *, guests: bool = False
    ) -> web.StreamResponse:
        """Answer a request for a completion. ``resolve`` returns the model for a
        client's name, or raises ``RemoteProtocolError``.
        """
        admitted = self._backend.admitted(request, ApiEndpoint.CHAT, guests=guests)
        async with admitted as principal:
            asked = await read_body(request, CompletionRequest, MAX_BODY_BYTES)
            wanted = resolve(asked.model)
            model, instructions = self._backend.talking_model(
                "model",
                wanted,
                principal,
                url=self._backend.public_url(request),
                keeps_marks=True,
                category=asked.category,
            )
            by_document = not in_openais_form(request)
            completion = Completion(
                f"chatcmpl-{secrets.token_hex(12)}",
                int(unix_s()),
                asked.model,
                with_nulls=by_document,
            )
            options = (DOCUMENTED_DEFAULTS if by_document else {}) | asked.given()
            parts = bounded_parts(
                model, ChatRequest(messages=instructions + asked.context(), options=options)
            )
            if asked.stream:
                events = _events(
                    parts,
                    completion,
                    include_usage=asked.stream_options.include_usage,
                    done=not asked.model_id,
                )
                write_ms = self.limits.write_ms
                return await answer_with_events(
                    request, events, write_ms=write_ms, failed=_failure_text
                )
            async with closing(parts):
                async for part in parts:
                    list(completion.add_part(part))
            return web.json_response(text=write_json(completion.answer()))

    @property
    def limits(self) -> SessionLimits:
        """The timeouts and limits of a reply."""
        return self._backend.limits

    async def _models(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.CHAT):
            names = list(self._backend.agents.names)
            return web.json_response(
                text=ModelList(data=list(map(self._card, names))).model_dump_json()
            )

    async def _model(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.CHAT):
            name = request.match_info["model"]
            add_note(self._backend.agents.names.resolve("model", name).note)
            return web.json_response(text=self._card(name).model_dump_json())

    def _card(self, name: str) -> ModelCard:
        return ModelCard(id=name, created=self._started_s, owned_by="voicechat")


async def bounded_parts(model: ChatModel, request: ChatRequest) -> AsyncGenerator[ReplyPart, None]:
    """Ask the model, and end a reply that is too long, or thinks for too long, as
    "length".

    Raises ``ServiceFailedError``. Closing the generator cancels the model.
    """
    parts = model.reply(request)
    characters = thought = 0
    try:
        async with closing(parts):
            while (part := await next_item(parts)) is not None:
                match part:
                    case TextDelta():
                        characters += len(part.text)
                    case ThoughtDelta():
                        thought += len(part.text)
                    case ToolCall():
                        characters += len(part.arguments)
                    case (
                        Extras()
                        | ReplyFinished()
                        | ToolsStarted()
                        | ToolExchange()
                        | SourcesCited()
                    ):
                        pass  # no text of the model
                yield part
                if characters > REPLY_CHARACTERS or thought > THOUGHT_CHARACTERS:
                    yield ReplyFinished("length")
                    return
    except ProviderError as error:
        raise service_failed(Fault.LLM_FAILED, error) from error


async def _events(
    parts: AsyncGenerator[ReplyPart, None],
    completion: Completion,
    *,
    include_usage: bool,
    done: bool,
) -> AsyncGenerator[str, None]:
    async with closing(parts):
        async for part in parts:
            for chunk in completion.add_part(part):
                yield write_json(chunk)
    yield write_json(completion.last_chunk())
    if include_usage and (usage := completion.usage_chunk()) is not None:
        yield write_json(usage)
    if done:
        yield DONE


def _failure_text(failure: ServiceFailedError) -> str:
    return openai_failure(failure).model_dump_json()
