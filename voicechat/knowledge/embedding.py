"""Texts as vectors, in as many requests as the embedder needs."""

from collections.abc import Sequence

import numpy as np

from voicechat.knowledge.interface import Vector, Vectors
from voicechat.providers.interfaces import EmbeddingRequest, TextEmbedder


async def embed_passages(embedder: TextEmbedder, texts: Sequence[str]) -> Vectors:
    """Embed texts that are searched in: each passage's ``searched_text``.

    Raises ``ProviderError``. The shape is (texts, dimensions).
    """
    batch = embedder.longest_batch
    pieces = [
        (await embedder.embed(EmbeddingRequest(texts=tuple(texts[begin : begin + batch])))).vectors
        for begin in range(0, len(texts), batch)
    ]
    return np.concatenate(pieces) if pieces else np.empty((0, 0), np.float32)


async def embed_question(embedder: TextEmbedder, text: str) -> tuple[Vector, str]:
    """Embed a text that is searched for, or the question of a Q&A record; returns its
    vector and the embedder's ``identity``. Raises ``ProviderError``.
    """
    made = await embedder.embed(EmbeddingRequest(texts=(text,), purpose="query"))
    return made.vectors[0], embedder.identity
