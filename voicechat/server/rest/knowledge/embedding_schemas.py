"""The models of the two embeddings endpoints."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from voicechat.schema.checked import Check, Items, RequestModel, between, one_of
from voicechat.server.rest.schemas import ResponseModel

TEXT_EMBEDDINGS, CLIP_EMBEDDINGS, BGE_M3 = "text-embeddings", "clip-embeddings", "bge-m3"
"""The document's models."""
MAX_TEXTS = {TEXT_EMBEDDINGS: 10, CLIP_EMBEDDINGS: 10, BGE_M3: 1}
"""Texts of one request. The document names no limit for ``clip-embeddings``."""
TEXT_DIMENSIONS = (1024, 768, 512, 256, 128, 64)
MAX_IMAGES = 10
MAX_INPUTS = 2048
"""OpenAI's own limit."""
MAX_CHARACTERS = 32_768
"""Of one text: four for each of 8,192 tokens. A model with a shorter context embeds the
beginning.
"""
MAX_DIMENSIONS = 16_384
EncodingType = Literal["float", "base64", "binary", "ubinary"]
ENCODING_TYPES: tuple[EncodingType, ...] = ("float", "base64", "binary", "ubinary")


def _embeddable(text: str) -> str:
    if not text.strip():
        raise ValueError("there is nothing to embed")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text)} characters are more than {MAX_CHARACTERS}")
    return text


Text = Annotated[str, Check(_embeddable, {"minLength": 1, "maxLength": MAX_CHARACTERS})]


def _as_texts(value: object) -> object:
    """Put a single text into a list. Raises ``ValueError`` for token numbers."""
    if isinstance(value, list) and value and isinstance(value[0], int | list):
        raise ValueError("token numbers are of one model only; send texts")
    return [value] if isinstance(value, str) else value


_TEXT_SCHEMA: dict[str, object] = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_CHARACTERS,
}
_TEXT_OR_TEXTS: dict[str, object] = {
    "anyOf": [
        _TEXT_SCHEMA,
        {"type": "array", "items": _TEXT_SCHEMA, "minItems": 1, "maxItems": MAX_INPUTS},
    ]
}


class EmbeddingsRequest(RequestModel):
    """The document's table."""

    easyllm_id: str
    """Any text: `model` says which service embeds."""
    model: str = TEXT_EMBEDDINGS
    """text-embeddings, clip-embeddings, bge-m3, or a configured embedding service."""
    input_texts: Annotated[list[Text], Items(1, max(MAX_TEXTS.values()), "texts")]
    """The texts to embed; one for bge-m3."""
    input_images: Annotated[list[str], Items(0, MAX_IMAGES, "pictures")] = []  # noqa: RUF012 - pydantic copies it
    """Pictures as addresses or base64, for clip-embeddings."""
    dimensions: Annotated[int, between(1, MAX_DIMENSIONS)]
    """Length of the vectors: 1024, 768, 512, 256, 128 or 64; for clip-embeddings 64 to
    1024; for bge-m3 1024.
    """
    normalized: bool = True
    """Whether clip-embeddings gives its vectors length 1; others always have it."""
    encoding_type: Annotated[str, one_of(*ENCODING_TYPES)] = "float"
    """The form of the vectors of clip-embeddings; others are numbers."""

    @model_validator(mode="after")
    def _suits_the_model(self) -> "EmbeddingsRequest":
        most = MAX_TEXTS.get(self.model)
        if most is not None and len(self.input_texts) > most:
            raise ValueError(f"input_texts: {len(self.input_texts)} are more than {most}")
        if self.input_images and self.model in (TEXT_EMBEDDINGS, BGE_M3):
            raise ValueError(f"input_images: {self.model} embeds texts only")
        if self.model == TEXT_EMBEDDINGS and self.dimensions not in TEXT_DIMENSIONS:
            listed = ", ".join(map(str, TEXT_DIMENSIONS))
            raise ValueError(f"dimensions: {self.dimensions} is not one of {listed}")
        if self.model == CLIP_EMBEDDINGS and not 64 <= self.dimensions <= 1024:
            raise ValueError(f"dimensions: {self.dimensions} is not between 64 and 1024")
        if self.model == BGE_M3 and self.dimensions != 1024:
            raise ValueError(f"dimensions: {self.dimensions} is not 1024")
        return self

    @property
    def encoding(self) -> EncodingType:
        """The encoding type, which only ``clip-embeddings`` has."""
        found = next(kind for kind in ENCODING_TYPES if kind == self.encoding_type)
        return found if self.model == CLIP_EMBEDDINGS else "float"


class OpenAIEmbeddingsRequest(RequestModel):
    """OpenAI's table; ``user`` and other keys are ignored."""

    model: str
    """A configured embedding service, or one of OpenAI's names for the default."""
    input: Annotated[
        Annotated[list[Text], Items(1, MAX_INPUTS, "texts")],
        BeforeValidator(_as_texts),
        WithJsonSchema(_TEXT_OR_TEXTS),
    ]
    """One text or several. Token numbers are refused: each model has its own."""
    encoding_format: Annotated[str, one_of("float", "base64")] = "float"
    dimensions: Annotated[int, between(1, MAX_DIMENSIONS)] | None = None
    """Length of the vectors; without it the model's own."""


class EmbeddingUsage(ResponseModel):
    """Tokens, as the service counted them; 0 if it did not."""

    prompt_tokens: int
    completion_tokens: int | None = None
    total_tokens: int
    prompt_tokens_details: dict[str, int] | None = None
    completion_tokens_details: dict[str, int] | None = None


class EmbeddingItem(ResponseModel):
    """One vector."""

    embedding: list[float] | str
    """Numbers; or base64 of float32, the lowest byte first."""
    index: int
    object: Literal["embedding"] = "embedding"


class EmbeddingsAnswer(ResponseModel):
    """The vectors: those of texts first, then those of pictures."""

    id: str
    object: Literal["list"] = "list"
    usage: EmbeddingUsage
    data: list[EmbeddingItem]


class OpenAIEmbeddingUsage(ResponseModel):
    """Tokens, as the service counted them; 0 if it did not."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbeddingsAnswer(ResponseModel):
    """OpenAI's form of the vectors."""

    object: Literal["list"] = "list"
    model: str = Field(description="The model that the request named.")
    usage: OpenAIEmbeddingUsage
    data: list[EmbeddingItem]
