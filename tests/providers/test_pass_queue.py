import asyncio

import pytest

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.pass_queue import PassQueue


class Model:
    """Notes what is computed, and how much of it at once."""

    def __init__(self) -> None:
        self.queue = PassQueue("test")
        self.done: list[str] = []
        self.at_once = 0

    async def compute(self, name: str, *, complete: bool, takes_s: float = 1.0) -> str:
        async def work() -> str:
            assert self.at_once == 0
            self.at_once += 1
            try:
                await asyncio.sleep(takes_s)
            finally:
                self.at_once -= 1
            self.done.append(name)
            return name

        return await self.queue.run(work, complete=complete)


async def test_complete_utterances_go_before_partial_ones_in_their_order() -> None:
    model = Model()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(model.compute("final 1", complete=True))
        await asyncio.sleep(0.1)
        tasks.create_task(model.compute("final 2", complete=True))
        tasks.create_task(model.compute("final 3", complete=True))
        await asyncio.sleep(0.1)
        assert model.queue.waiting == 2
    assert model.done == ["final 1", "final 2", "final 3"]


async def test_a_complete_utterance_takes_the_model_from_a_partial_pass() -> None:
    model = Model()
    partial = asyncio.get_running_loop().create_task(model.compute("partial", complete=False))
    await asyncio.sleep(0.5)
    began_s = asyncio.get_running_loop().time()
    assert await model.compute("final", complete=True) == "final"
    assert asyncio.get_running_loop().time() - began_s == pytest.approx(1.0)
    with pytest.raises(ProviderError) as failure:
        await partial
    assert failure.value.kind is FailureKind.RATE_LIMIT
    assert not failure.value.of_service
    assert model.done == ["final"]


async def test_a_partial_pass_that_has_not_begun_gives_way_too() -> None:
    model = Model()
    tasks = [
        asyncio.get_running_loop().create_task(model.compute(name, complete=name == "final"))
        for name in ("partial", "final")
    ]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], ProviderError)
    assert results[1] == "final"


async def test_partial_passes_are_refused_while_a_complete_utterance_is_computed() -> None:
    model = Model()
    final = asyncio.get_running_loop().create_task(model.compute("final", complete=True))
    await asyncio.sleep(0.1)
    with pytest.raises(ProviderError, match="needed for complete"):
        await model.compute("partial", complete=False)
    await final


async def test_partial_passes_of_several_streams_take_turns() -> None:
    model = Model()
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(model.compute(str(n), complete=False)) for n in range(4)]
    await asyncio.gather(*tasks)
    assert model.done == ["0", "1", "2", "3"]


async def test_a_cancelled_pass_leaves_the_model_to_the_next() -> None:
    model = Model()
    loop = asyncio.get_running_loop()
    first = loop.create_task(model.compute("first", complete=True))
    second = loop.create_task(model.compute("second", complete=True))
    third = loop.create_task(model.compute("third", complete=True))
    await asyncio.sleep(0.1)
    first.cancel()
    second.cancel()
    assert await third == "third"
    assert model.done == ["third"]
    assert first.cancelled()
    assert second.cancelled()


async def test_a_failing_pass_leaves_the_model_to_the_next() -> None:
    model = Model()

    async def fail() -> None:
        raise ProviderError("test", FailureKind.BROKEN, "no")

    with pytest.raises(ProviderError):
        await model.queue.run(fail, complete=True)
    assert await model.compute("next", complete=False) == "next"
