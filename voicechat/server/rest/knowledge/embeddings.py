"""Embeddings, in the document's form and in OpenAI's."""

import asyncio
import secrets

import numpy as np
import numpy.typing as npt
import orjson
import pybase64
from aiohttp import web

from voicechat.errors import ProviderError, RemoteProtocolError, Status
from voicechat.knowledge.embedding import embed_in_batches
from voicechat.providers.interfaces import EmbeddingRequest, Embeddings, TextEmbedder
from voicechat.server.response_notes import add_note
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.failures import ServiceFailedError, service_failed
from voicechat.server.rest.knowledge.embedding_schemas import (
    CLIP_EMBEDDINGS,
    TEXT_EMBEDDINGS,
    EmbeddingsAnswer,
    EmbeddingsRequest,
    EmbeddingUsage,
    EncodingType,
    OpenAIEmbeddingsAnswer,
    OpenAIEmbeddingsRequest,
    OpenAIEmbeddingUsage,
)
from voicechat.server.rest.operation import CHAT_ERRORS, JSON, Body, Operation, Shape
from voicechat.store.access import ApiEndpoint

EMBEDDINGS_PATH = "/api/open-apis/projects/{project}/easyllms/embeddings"
OPENAI_PATHS = ("/v1/embeddings", "/api/open-apis/v1/embeddings")
OPENAI_MODELS = ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002")
"""Model names of OpenAI's service, which select the default service."""
MAX_BODY_BYTES = 16 << 20
"""Ten pictures in base64, or OpenAI's 300,000 tokens."""
DEADLINE_S = 120.0
"""How long the vectors of one request may take."""
_SERVICE = "embedding service"


class EmbeddingOperations:
    """The endpoints."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        return [
            Operation(
                method="POST",
                paths=(EMBEDDINGS_PATH,),
                tag="knowledge",
                summary="Embed texts and pictures",
                handle=self._embed,
                body=EmbeddingsRequest,
                answers={200: (Body(JSON, EmbeddingsAnswer),)},
                errors=CHAT_ERRORS,
            ),
            Operation(
                method="POST",
                paths=OPENAI_PATHS,
                tag="knowledge",
                summary="Embed texts, in OpenAI's form",
                handle=self._embed_as_openai,
                body=OpenAIEmbeddingsRequest,
                answers={200: (Body(JSON, OpenAIEmbeddingsAnswer),)},
                errors=CHAT_ERRORS,
                shape=Shape.OPENAI,
            ),
        ]

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE):
            asked = await read_body(request, EmbeddingsRequest, MAX_BODY_BYTES)
            embedder = self._embedder("" if asked.model == TEXT_EMBEDDINGS else asked.model)
            made = await _made(
                embedder,
                EmbeddingRequest(
                    texts=tuple(asked.input_texts),
                    images=tuple(asked.input_images),
                    dimensions=asked.dimensions,
                    model=asked.model,
                    normalized=asked.normalized or asked.model != CLIP_EMBEDDINGS,
                ),
            )
            tokens = made.prompt_tokens or 0
            usage = EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)
            head: dict[str, object] = {"id": f"emb-{secrets.token_hex(12)}", "object": "list"}
            head["usage"] = usage.model_dump()
            return await _answer(head, made, asked.encoding)

    async def _embed_as_openai(self, request: web.Request) -> web.StreamResponse:
        async with self._backend.admitted(request, ApiEndpoint.KNOWLEDGE):
            asked = await read_body(request, OpenAIEmbeddingsRequest, MAX_BODY_BYTES)
            default = asked.model in (TEXT_EMBEDDINGS, *OPENAI_MODELS)
            embedder = self._embedder("" if default else asked.model)
            made = await _made(
                embedder,
                EmbeddingRequest(
                    texts=tuple(asked.input), dimensions=asked.dimensions, model=asked.model
                ),
            )
            tokens = made.prompt_tokens or 0
            usage = OpenAIEmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)
            head: dict[str, object] = {"object": "list", "model": asked.model}
            head["usage"] = usage.model_dump()
            encoding: EncodingType = "base64" if asked.encoding_format == "base64" else "float"
            return await _answer(head, made, encoding)

    def _embedder(self, wanted: str) -> TextEmbedder:
        embedders = self._backend.services.media.embedders
        resolved = embedders.resolve("model", wanted)
        if wanted:
            add_note(resolved.note)
        return embedders.services[resolved.name]


async def _made(embedder: TextEmbedder, asked: EmbeddingRequest) -> Embeddings:
    """Embed in as many requests as the service needs. Raises ``ServiceFailedError``,
    and ``RemoteProtocolError`` for pictures where there is no service for them.
    """
    if asked.images and not embedder.embeds_images:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER,
            "input_images: the service that `model` means embeds no pictures; the server's "
            "operator can configure one: [embedders.clip-embeddings]",
        )
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await embed_in_batches(embedder, asked)
    except ProviderError as error:
        raise service_failed(Status.MEDIA_FAILED, error, _SERVICE) from error
    except TimeoutError as error:
        message = f"the {_SERVICE} did not answer within {DEADLINE_S:g} s"
        raise ServiceFailedError(Status.MEDIA_FAILED, message) from error


async def _answer(
    head: dict[str, object], made: Embeddings, encoding: EncodingType
) -> web.Response:
    """Write the answer in a thread, because it may have millions of numbers."""
    body = await asyncio.to_thread(_written, head, made.vectors, encoding)
    return web.Response(body=body, content_type=JSON)


def _written(
    head: dict[str, object], vectors: npt.NDArray[np.float32], encoding: EncodingType
) -> bytes:
    # Item by item, because orjson holds the interpreter lock until it is done.
    items = [
        orjson.dumps(
            {"embedding": _encoded(vector, encoding), "index": index, "object": "embedding"},
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        for index, vector in enumerate(vectors)
    ]
    return orjson.dumps(head)[:-1] + b',"data":[' + b",".join(items) + b"]}"


def _encoded(vector: npt.NDArray[np.float32], encoding: EncodingType) -> object:
    """Encode a vector: its numbers, their bytes, or as bits which of them are more than
    0, eight to a byte that is signed or unsigned.
    """
    match encoding:
        case "float":
            return np.ascontiguousarray(vector)
        case "base64":
            return pybase64.b64encode(vector.astype("<f4").tobytes()).decode()
        case "binary":
            return (np.packbits(vector > 0).astype(np.int16) - 128).tolist()
        case "ubinary":
            return np.packbits(vector > 0).tolist()
