"""Embeddings of an OpenAI-compatible service: what is asked, and which answers count."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from tests.providers.openai_service import Answer, Service, serving
from voicechat.errors import ConfigError, FailureKind, ProviderError, RequestRefusedError
from voicechat.providers.interfaces import EmbeddingRequest
from voicechat.providers.openai_embeddings import OpenAIEmbedder
from voicechat.providers.registry import find_factory
from voicechat.testing.conformance import check_embedder

pytestmark = pytest.mark.real_time
ASKED = EmbeddingRequest(texts=("one", "two"))


def saying(answer: object) -> Answer:
    """Answer with this JSON."""

    async def send(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Content-Type"] = "application/json"
        await response.prepare(request)
        await response.write(json.dumps(answer).encode())

    return send


def vectors(*written: object, **more: object) -> dict[str, object]:
    """Return an answer with these vectors."""
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(written)]
    return {"object": "list", "data": data} | more


@asynccontextmanager
async def embedding(
    answer: object, **options: object
) -> AsyncIterator[tuple[Service, OpenAIEmbedder]]:
    async with serving() as service:
        service.answers = [saying(answer)]
        embedder = find_factory("embedders", "openai")(
            model="m", base_url=service.base_url, api_key="secret", **options
        )
        assert isinstance(embedder, OpenAIEmbedder)
        try:
            yield service, embedder
        finally:
            await embedder.aclose()


async def test_the_request_and_the_vectors() -> None:
    packed = base64.b64encode(np.array([0, 3, 4], "<f4").tobytes()).decode()
    answer = vectors([3, 4, 0], packed, usage={"prompt_tokens": 2, "total_tokens": 2})
    async with embedding(answer) as (service, embedder):
        made = await embedder.embed(ASKED)
    assert np.allclose(made.vectors, [[0.6, 0.8, 0], [0, 0.6, 0.8]])
    assert made.vectors.dtype == np.float32
    assert made.prompt_tokens == 2
    [asked] = service.asked
    assert (asked.path, asked.authorization) == ("/v1/embeddings", "Bearer secret")
    assert asked.body == {"model": "m", "input": ["one", "two"], "encoding_format": "base64"}


async def test_the_order_is_that_of_the_indices() -> None:
    answer = vectors([1, 0], [0, 1])
    answer["data"] = list(reversed(answer["data"]))  # type: ignore[call-overload]
    async with embedding(answer) as (_, embedder):
        made = await embedder.embed(ASKED)
    assert made.vectors.tolist() == [[1, 0], [0, 1]]
    assert made.prompt_tokens is None


async def test_dimensions_are_asked_for_unless_the_server_knows_none() -> None:
    wanted = EmbeddingRequest(texts=("a",), dimensions=2)
    async with embedding(vectors([3, 4]), dimensions=3) as (service, embedder):
        await embedder.embed(wanted)
        assert service.asked[-1].body["dimensions"] == 2
        assert embedder.identity == "openai/m/3"
    async with embedding(vectors([3, 4, 12]), asks_dimensions=False) as (service, embedder):
        made = await embedder.embed(wanted)
        assert "dimensions" not in service.asked[-1].body
        assert np.allclose(made.vectors, [[0.6, 0.8]])


async def test_prefixes_and_pictures() -> None:
    options: dict[str, object] = {
        "query_prefix": "query: ",
        "passage_prefix": "passage: ",
        "images": True,
    }
    async with embedding(vectors([1.0]), **options) as (service, embedder):
        await embedder.embed(EmbeddingRequest(texts=("a",), purpose="query"))
        assert service.asked[-1].body["input"] == ["query: a"]
        await embedder.embed(EmbeddingRequest(texts=("a",)))
        assert service.asked[-1].body["input"] == ["passage: a"]
        service.answers = [saying(vectors([3.0], [4.0]))]
        made = await embedder.embed(
            EmbeddingRequest(texts=("a",), images=("https://x/y.png",), normalized=False)
        )
    assert service.asked[-1].body["input"] == [{"text": "passage: a"}, {"image": "https://x/y.png"}]
    assert service.asked[-1].body["normalized"] is False
    assert made.vectors.tolist() == [[3], [4]]


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"data": {}},
        vectors([1]),
        vectors([1], [1], [1]),
        vectors([1], [1, 2]),
        vectors([1], "%%%"),
        vectors([1], "aGk="),
        vectors([1], None),
        vectors([1], ["a"]),
        vectors([], []),
        {"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]},
        {"data": [1, 2]},
    ],
)
async def test_other_answers_are_broken(answer: object) -> None:
    async with embedding(answer) as (_, embedder):
        with pytest.raises(ProviderError) as raised:
            await embedder.embed(ASKED)
    assert raised.value.kind is FailureKind.BROKEN


async def test_refusals_are_told_from_failures() -> None:
    async with embedding({}) as (service, embedder):
        service.status = 400
        with pytest.raises(RequestRefusedError):
            await embedder.embed(ASKED)
        service.status = 500
        with pytest.raises(ProviderError) as raised:
            await embedder.embed(ASKED)
    assert raised.value.kind is FailureKind.CONNECTIVITY


def test_a_wrong_key_is_named() -> None:
    with pytest.raises(ConfigError, match="batch"):
        find_factory("embedders", "openai")(model="m", batch=0)


async def test_it_is_what_an_embedder_should_be() -> None:
    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        texts: list[Any] = (await request.json())["input"]
        made = [[1.0, float(len(text)), float(sum(map(ord, text)) % 97)] for text in texts]
        await saying(vectors(*made))(request, response)

    async with embedding({}) as (service, embedder):
        service.answers = [answer]
        await check_embedder(embedder)
