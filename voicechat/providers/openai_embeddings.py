"""OpenAI's embeddings API: OpenAI itself, DashScope, vLLM, TEI, Ollama, Xinference and
many other servers.
"""

import asyncio
import binascii
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voicechat.providers.interfaces import EmbeddingRequest, Embeddings, TextEmbedder
from voicechat.providers.openai_http import OpenAIEndpoint, read_whole
from voicechat.providers.openai_images import broken, read_answer
from voicechat.providers.vector_length import normalized, with_dimensions
from voicechat.schema.json_text import write_json

MAX_ANSWER_BYTES = 64 << 20
_JSON = {"Content-Type": "application/json", "Accept": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSettings:
    """How a service is asked; see `voicechat.providers.openai.open_embedder`."""

    model: str
    dimensions: int | None = None
    asks_dimensions: bool = True
    query_prefix: str = ""
    passage_prefix: str = ""
    batch: int = 64
    images: bool = False


class OpenAIEmbedder(TextEmbedder):
    """A `TextEmbedder` over HTTP."""

    def __init__(self, endpoint: OpenAIEndpoint, settings: EmbeddingSettings) -> None:
        self._endpoint = endpoint
        self._settings = settings

    @property
    def identity(self) -> str:
        """The configured model and dimensions."""
        return f"openai/{self._settings.model}/{self._settings.dimensions or 'own'}"

    @property
    def embeds_images(self) -> bool:
        """As configured."""
        return self._settings.images

    @property
    def longest_batch(self) -> int:
        """As configured."""
        return self._settings.batch

    async def start(self) -> None:
        """Warm up a connection, as `OpenAIEndpoint.start`."""
        await self._endpoint.start()

    async def probe(self) -> None:
        """Check that the server answers, as `OpenAIEndpoint.probe`."""
        await self._endpoint.probe()

    async def aclose(self) -> None:
        """Close all connections; requests in progress fail."""
        await self._endpoint.aclose()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Embed all at once. Raises `ProviderError` as `OpenAIEndpoint.post`, and
        BROKEN for an answer with other vectors than were asked for.
        """
        settings = self._settings
        prefix = settings.query_prefix if request.purpose == "query" else settings.passage_prefix
        texts = [prefix + text for text in request.texts]
        dimensions = request.dimensions or settings.dimensions
        fields: dict[str, object] = {
            "model": settings.model,
            # Jina's form, which vLLM and others have as well.
            "input": [{"text": text} for text in texts]
            + [{"image": image} for image in request.images]
            if request.images
            else texts,
            # A third of the size of numbers, and read without holding the interpreter.
            "encoding_format": "base64",
        }
        if not request.normalized:
            fields["normalized"] = False
        if dimensions is not None and settings.asks_dimensions:
            fields["dimensions"] = dimensions
        async with self._endpoint.post(
            "embeddings", write_json(fields).encode(), _JSON
        ) as response:
            content = await read_whole(response.content, MAX_ANSWER_BYTES)
        count = len(texts) + len(request.images)
        vectors, tokens = await asyncio.to_thread(_read_embeddings, content, count)
        if request.normalized:
            vectors = normalized(vectors)
        return Embeddings(with_dimensions(vectors, dimensions), tokens)


def _read_embeddings(content: bytes, count: int) -> tuple[npt.NDArray[np.float32], int | None]:
    answer = read_answer(content)
    items = answer.get("data")
    if not isinstance(items, list) or len(items) != count:
        raise broken("the server answered with another number of vectors than asked for")
    try:
        numbers = [item.get("index", place) for place, item in enumerate(items)]
        if sorted(numbers) != list(range(count)):
            raise broken("the server answered with vectors of unknown order")
        by_number = dict(zip(numbers, items, strict=True))
        vectors = np.stack([_read_vector(by_number[n]["embedding"]) for n in range(count)])
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise broken("the server answered with something that is no vector") from error
    if not np.isfinite(vectors).all() or not vectors.shape[1]:
        raise broken("the server answered with something that is no vector")
    usage = answer.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return vectors, tokens if isinstance(tokens, int) else None


def _read_vector(written: str | Sequence[float]) -> npt.NDArray[np.float32]:
    """Read base64 of little-endian float32, or a list of numbers from servers that
    ignore ``encoding_format``.
    """
    if isinstance(written, str):
        return np.frombuffer(b64decode(written, validate=True), "<f4")
    return np.array(written, np.float32)
