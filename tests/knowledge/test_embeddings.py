"""Embeddings over REST: the document's table row by row, and OpenAI's form by its SDK."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import openai
import pytest
import pytest_asyncio

from tests.knowledge.word_embedder import WordEmbedder
from tests.rest.live import KEY, PROJECT, Live, serving_live
from voicechat.errors import FailureKind, ProviderError, RequestRefusedError
from voicechat.runtime.media_services import MediaServices, ServicesOfKind

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]
PATH = f"{PROJECT}/easyllms/embeddings"


class Stage:
    """A server with one embedder for each of the document's models."""

    def __init__(self, live: Live, embedders: dict[str, WordEmbedder]) -> None:
        self.live = live
        self.embedders = embedders

    async def ask(self, *, status: int = 200, **fields: object) -> Any:
        body = {"easyllm_id": "any", "input_texts": ["你好"], "dimensions": 64} | fields
        answer = await self.live.ask(PATH, {k: v for k, v in body.items() if v != "absent"})
        assert answer.status == status, answer.content
        return answer.json if status == 200 else answer.json["message"]

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key=KEY, base_url=f"{self.live.url}/v1", max_retries=0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    embedders = {
        "default": WordEmbedder(),
        "clip-embeddings": WordEmbedder(images=True),
        "bge-m3": WordEmbedder(batch=1),
    }
    media = MediaServices(embedders=ServicesOfKind("embedders", embedders))
    async with serving_live(tmp_path_factory.mktemp("embeddings"), media=media) as live:
        yield Stage(live, embedders)


@pytest.fixture(autouse=True)
def _calm(stage: Stage) -> None:
    for embedder in stage.embedders.values():
        embedder.failure = None
        embedder.requests.clear()


async def test_the_answer_is_as_in_the_document(stage: Stage) -> None:
    answer = await stage.ask(input_texts=["你好", "很高兴 认识你"], dimensions=1024)
    assert answer["object"] == "list"
    assert isinstance(answer["id"], str)
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": None,
        "total_tokens": 3,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    assert [(item["index"], item["object"]) for item in answer["data"]] == [
        (0, "embedding"),
        (1, "embedding"),
    ]
    assert [len(item["embedding"]) for item in answer["data"]] == [1024, 1024]
    lengths = [np.linalg.norm(item["embedding"]) for item in answer["data"]]
    assert np.allclose(lengths, 1, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "dimensions"),
    [
        *(("absent", wanted) for wanted in (1024, 768, 512, 256, 128, 64)),
        ("text-embeddings", 256),
        ("clip-embeddings", 64),
        ("clip-embeddings", 100),
        ("clip-embeddings", 1024),
        ("bge-m3", 1024),
    ],
)
async def test_each_model_has_its_dimensions(stage: Stage, model: str, dimensions: int) -> None:
    answer = await stage.ask(model=model, dimensions=dimensions)
    assert len(answer["data"][0]["embedding"]) == dimensions
    name = "default" if model in ("absent", "text-embeddings") else model
    assert stage.embedders[name].requests[-1].dimensions == dimensions


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"easyllm_id": "absent"}, "easyllm_id: "),
        ({"input_texts": "absent"}, "input_texts: "),
        ({"input_texts": "你好"}, "input_texts: "),
        ({"input_texts": []}, "input_texts: 0 texts are not between 1 and 10"),
        ({"input_texts": ["a"] * 11}, "input_texts: 11 texts are not between 1 and 10"),
        ({"input_texts": ["a", 7]}, "input_texts[1]: "),
        ({"input_texts": [" "]}, "input_texts[0]: there is nothing to embed"),
        ({"input_texts": ["a" * 32_769]}, "input_texts[0]: 32769 characters are more than 32768"),
        (
            {"input_texts": ["a", "b"], "model": "bge-m3", "dimensions": 1024},
            "input_texts: 2 are more than 1",
        ),
        ({"dimensions": "absent"}, "dimensions: "),
        ({"dimensions": 100}, "dimensions: 100 is not one of 1024, 768, 512, 256, 128, 64"),
        ({"dimensions": "64"}, "dimensions: "),
        (
            {"dimensions": 63, "model": "clip-embeddings"},
            "dimensions: 63 is not between 64 and 1024",
        ),
        (
            {"dimensions": 1025, "model": "clip-embeddings"},
            "dimensions: 1025 is not between 64 and 1024",
        ),
        ({"dimensions": 512, "model": "bge-m3"}, "dimensions: 512 is not 1024"),
        ({"input_images": ["aGk="]}, "input_images: text-embeddings embeds texts only"),
        (
            {"input_images": ["aGk="], "model": "bge-m3", "dimensions": 1024},
            "input_images: bge-m3 embeds texts only",
        ),
        ({"input_images": "aGk=", "model": "clip-embeddings"}, "input_images: "),
        ({"normalized": "yes"}, "normalized: "),
        ({"encoding_type": "hex", "model": "clip-embeddings"}, "encoding_type: "),
        ({"model": 7}, "model: "),
    ],
)
async def test_a_wrong_field_is_named(
    stage: Stage, fields: dict[str, object], complaint: str
) -> None:
    assert (await stage.ask(status=400, **fields)).startswith(complaint)


async def test_an_unknown_model_is_told_the_names(stage: Stage) -> None:
    message = await stage.ask(status=404, model="gte-large")
    assert message == 'model: "gte-large" is not one of bge-m3, clip-embeddings, default'


async def test_pictures_are_passed_on_after_the_texts(stage: Stage) -> None:
    images = ["https://example.com/1.jpg", "iVBORw0KGgo="]
    answer = await stage.ask(
        model="clip-embeddings", input_texts=["海滩"], input_images=images, dimensions=1024
    )
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    assert stage.embedders["clip-embeddings"].requests[-1].images == tuple(images)


async def test_normalized_is_for_pictures_model_only(stage: Stage) -> None:
    await stage.ask(model="clip-embeddings", normalized=False)
    assert not stage.embedders["clip-embeddings"].requests[-1].normalized
    answer = await stage.ask(normalized=False)
    assert np.isclose(np.linalg.norm(answer["data"][0]["embedding"]), 1, atol=1e-5)


async def test_encoding_types(stage: Stage) -> None:
    async def encoded(kind: str, model: str = "clip-embeddings") -> Any:
        answer = await stage.ask(model=model, encoding_type=kind)
        return answer["data"][0]["embedding"]

    numbers = np.array(await encoded("float"), np.float32)
    assert np.array_equal(np.frombuffer(base64.b64decode(await encoded("base64")), "<f4"), numbers)
    bits = np.packbits(numbers > 0)
    assert await encoded("ubinary") == bits.tolist()
    assert await encoded("binary") == (bits.astype(int) - 128).tolist()
    assert len(await encoded("base64", "text-embeddings")) == 64


@pytest.mark.parametrize(
    ("failure", "status", "message"),
    [
        (
            ProviderError("e", FailureKind.CONNECTIVITY, "secret"),
            502,
            "the embedding service failed: connectivity",
        ),
        (
            ProviderError("e", FailureKind.RATE_LIMIT, "secret"),
            429,
            "the embedding service is asked too often",
        ),
        (
            RequestRefusedError("e", "secret", code="bad"),
            400,
            "the embedding service refuses the request: bad",
        ),
    ],
)
async def test_a_failing_service_is_told_apart(
    stage: Stage, failure: ProviderError, status: int, message: str
) -> None:
    stage.embedders["default"].failure = failure
    assert await stage.ask(status=status) == message


async def test_the_key_must_be_right(stage: Stage) -> None:
    answer = await stage.live.ask(PATH, {"input_texts": ["a"]}, key="wrong")
    assert answer.status == 401


async def test_the_documents_samples(stage: Stage) -> None:
    """The bodies of its two curl samples."""
    first = await stage.ask(
        easyllm_id="{YOUR_EASYLLM_ID}", input_texts=["你好", "很高兴认识你"], dimensions=1024
    )
    assert len(first["data"]) == 2
    second = await stage.ask(
        model="clip-embeddings",
        easyllm_id="{YOUR_EASYLLM_ID}",
        input_texts=["海滩上美丽的日落"],
        input_images=[
            "https://i.ibb.co/nQNGqL0/1beach1.jpg",
            "https://i.ibb.co/r5w8hG8/beach2.jpg",
            "iVBORw0KGgoAAAANSUhEUgAAABwAAAA4CAIAAABhUg/jAAAAMklEQVR4nO3MQREAMAgAoLkoFreTiSzhy4MARGe9bX99lEqlUqlUKpVKpVKpVCqVHksHaBwCA2cPf0cAAAAASUVORK5CYII=",
        ],
        dimensions=1024,
    )
    assert len(second["data"]) == 4


async def test_openais_sdk(stage: Stage) -> None:
    async with stage.client() as client:
        one = await client.embeddings.create(model="text-embedding-3-small", input="red fox")
        two = await client.embeddings.create(
            model="text-embedding-3-small",
            input=["red fox", "blue sky"],
            dimensions=32,
            encoding_format="float",
        )
    assert (one.model, one.object, one.usage.prompt_tokens) == ("text-embedding-3-small", "list", 2)
    assert len(one.data[0].embedding) == 64
    assert [(item.index, len(item.embedding)) for item in two.data] == [(0, 32), (1, 32)]


async def test_more_inputs_than_one_request_of_the_service(stage: Stage) -> None:
    async with stage.client() as client:
        made = await client.embeddings.create(model="bge-m3", input=["a", "b", "a"])
    assert len(stage.embedders["bge-m3"].requests) == 3
    assert made.usage.total_tokens == 3
    assert made.data[0].embedding == made.data[2].embedding != made.data[1].embedding


@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2], [3]]])
async def test_token_numbers_are_refused(stage: Stage, tokens: Any) -> None:
    async with stage.client() as client:
        with pytest.raises(openai.BadRequestError, match="input: token numbers"):
            await client.embeddings.create(model="default", input=tokens)


async def test_openais_errors(stage: Stage) -> None:
    async with stage.client() as client:
        with pytest.raises(openai.NotFoundError, match="gte-large"):
            await client.embeddings.create(model="gte-large", input="a")
        with pytest.raises(openai.BadRequestError, match="input"):
            await client.embeddings.create(model="default", input="")
        stage.embedders["default"].failure = ProviderError("e", FailureKind.BROKEN, "secret")
        with pytest.raises(openai.InternalServerError, match="the embedding service failed"):
            await client.embeddings.create(model="default", input="a")
