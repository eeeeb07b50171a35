"""Texts as vectors, in as many requests as the embedder needs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from voicechat.knowledge.interface import Vector, Vectors
from voicechat.providers.interfaces import EmbeddingRequest, Embeddings, TextEmbedder


async def embed_in_batches(embedder: TextEmbedder, request: EmbeddingRequest) -> Embeddings:
    """Embed what may be more than one request of the embedder can have. Pictures are
    sent with the last texts. Raises ``ProviderError``.
    """
    batch = max(1, embedder.longest_batch - len(request.images))
    begins = range(0, len(request.texts), batch) or range(1)
    made = []
    for begin in begins:
        texts = request.texts[begin : begin + batch]
        images = request.images if begin == begins[-1] else ()
        made.append(await embedder.embed(replace(request, texts=texts, images=images)))
    if len(made) == 1:
        return made[0]
    tokens = [part.prompt_tokens for part in made if part.prompt_tokens is not None]
    return Embeddings(
        np.concatenate([part.vectors for part in made]), sum(tokens) if tokens else None
    )


async def embed_passages(embedder: TextEmbedder, texts: Sequence[str]) -> Vectors:
    """Embed texts that are searched in: the windows of passages.

    Raises ``ProviderError``. The shape is (texts, dimensions).
    """
    if not texts:
        return np.empty((0, 0), np.float32)
    return (await embed_in_batches(embedder, EmbeddingRequest(texts=tuple(texts)))).vectors


async def embed_question(embedder: TextEmbedder, text: str) -> tuple[Vector, str]:
    """Embed a text that is searched for, or the question of a Q&A record; returns its
    vector and the embedder's ``identity``. Raises ``ProviderError``.
    """
    made = await embedder.embed(EmbeddingRequest(texts=(text,), purpose="query"))
    return made.vectors[0], embedder.identity
