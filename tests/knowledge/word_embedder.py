"""An embedder for tests: texts that share words are near each other."""

import zlib

import numpy as np
import numpy.typing as npt

from voicechat.errors import ProviderError
from voicechat.providers.interfaces import EmbeddingRequest, Embeddings, TextEmbedder
from voicechat.providers.vector_length import normalized, with_dimensions

OWN_DIMENSIONS = 64


class WordEmbedder(TextEmbedder):
    """Adds up a fixed random vector for each word; a picture counts as a word."""

    def __init__(self, *, images: bool = False, batch: int = 64) -> None:
        self.requests: list[EmbeddingRequest] = []
        self.failure: ProviderError | None = None
        self._images = images
        self._batch = batch

    @property
    def identity(self) -> str:
        return f"words/{OWN_DIMENSIONS}"

    @property
    def embeds_images(self) -> bool:
        return self._images

    @property
    def longest_batch(self) -> int:
        return self._batch

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        texts = (*request.texts, *request.images)
        vectors = np.stack([_vector(text.lower().split()) for text in texts])
        tokens = sum(len(text.split()) for text in request.texts)
        made = normalized(vectors) if request.normalized else vectors.astype(np.float32)
        return Embeddings(with_dimensions(made, request.dimensions), tokens)


def _vector(words: list[str]) -> npt.NDArray[np.float64]:
    total = np.zeros(OWN_DIMENSIONS)
    for word in words:
        seed = zlib.crc32(word.strip(".,?!").encode())
        total += np.random.default_rng(seed).normal(size=OWN_DIMENSIONS)
    return total
