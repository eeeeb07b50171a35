import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.sherpa_batching import BatchScheduler

pytestmark = pytest.mark.real_time


class Work:
    """Is ready ``steps`` times."""

    def __init__(self, name: str, steps: int = 1, *, urgent: bool = False) -> None:
        self.name = name
        self.steps = steps
        self.urgent = urgent
        self.delivered = 0
        self.error: ProviderError | None = None
        self.over = asyncio.Event()

    @property
    def ready(self) -> bool:
        return self.steps > 0

    def deliver(self) -> None:
        self.delivered += 1
        if not self.ready:
            self.over.set()

    def fail(self, error: ProviderError) -> None:
        self.error = error
        self.steps = 0
        self.over.set()


class Decoder:
    """Notes who came together; waits for ``gate`` in every batch."""

    def __init__(self, spoil: Callable[[Work], bool] = lambda _: False) -> None:
        self.gate = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()
        self._spoil = spoil

    def __call__(self, jobs: Sequence[Work]) -> None:
        self.threads.add(threading.current_thread().name)
        self.batches.append([job.name for job in jobs])
        self.began.release()
        assert self.gate.acquire(timeout=30)
        if any(map(self._spoil, jobs)):
            raise RuntimeError("the model said something private")
        for job in jobs:
            job.steps -= 1


async def begun(decoder: Decoder) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, decoder.began.acquire, True, 10)


def opened(decoder: Decoder, max_batch: int = 8) -> BatchScheduler[Work]:
    return BatchScheduler(decoder, max_batch=max_batch, name="decoding")


async def test_the_first_goes_alone_and_those_who_come_meanwhile_go_together() -> None:
    decoder = Decoder()
    batching = opened(decoder)
    works = [Work(name) for name in "abcd"]
    batching.wake_job(works[0])
    await begun(decoder)
    for work in works[1:]:
        batching.wake_job(work)
        batching.wake_job(work)
    decoder.gate.release(2)
    await asyncio.gather(*(work.over.wait() for work in works))
    await batching.aclose()
    assert decoder.batches == [["a"], ["b", "c", "d"]]
    assert (batching.batches, batching.decoded) == (2, 4)
    assert len(decoder.threads) == 1
    assert threading.current_thread().name not in decoder.threads


async def test_who_has_more_goes_again_behind_those_who_wait() -> None:
    decoder = Decoder()
    batching = opened(decoder, max_batch=1)
    long, short = Work("long", 2), Work("short")
    batching.wake_job(long)
    batching.wake_job(short)
    decoder.gate.release(3)
    await asyncio.gather(long.over.wait(), short.over.wait())
    await batching.aclose()
    assert decoder.batches == [["long"], ["short"], ["long"]]


async def test_who_waits_for_the_last_word_goes_before_the_others() -> None:
    decoder = Decoder()
    batching = opened(decoder, max_batch=2)
    works = [
        Work("first"),
        *(Work(f"partial {index}") for index in range(3)),
        Work("last word", urgent=True),
    ]
    batching.wake_job(works[0])
    await begun(decoder)
    for work in works[1:]:
        batching.wake_job(work)
    decoder.gate.release(3)
    await asyncio.gather(*(work.over.wait() for work in works))
    await batching.aclose()
    assert decoder.batches == [["first"], ["last word", "partial 0"], ["partial 1", "partial 2"]]


async def test_who_is_forgotten_is_not_decoded_again() -> None:
    decoder = Decoder()
    batching = opened(decoder)
    gone, stays = Work("gone"), Work("stays")
    batching.wake_job(stays)
    await begun(decoder)
    batching.wake_job(gone)
    batching.forget_job(gone)
    decoder.gate.release(2)
    await stays.over.wait()
    await batching.aclose()
    assert decoder.batches == [["stays"]]
    assert gone.delivered == 0


async def test_alone_it_is_broken_and_among_others_it_may_have_been_them() -> None:
    decoder = Decoder(spoil=lambda job: job.name == "bad")
    batching = opened(decoder)
    alone = Work("bad")
    batching.wake_job(alone)
    await begun(decoder)
    together = [Work("bad"), Work("innocent")]
    for work in together:
        batching.wake_job(work)
    decoder.gate.release(2)
    await asyncio.gather(*(work.over.wait() for work in (alone, *together)))
    afterwards = Work("afterwards")
    batching.wake_job(afterwards)
    decoder.gate.release()
    await afterwards.over.wait()
    await batching.aclose()
    errors = [work.error for work in (alone, *together)]
    assert [error and error.kind for error in errors] == [
        FailureKind.BROKEN, FailureKind.CONNECTIVITY, FailureKind.CONNECTIVITY,
    ]  # fmt: skip
    assert not any(error.of_service for error in errors if error)
    assert "private" not in str(errors[0])
    assert afterwards.error is None


async def test_closing_waits_for_the_batch_fails_who_waits_and_ends_the_thread() -> None:
    before = set(threading.enumerate())
    decoder = Decoder()
    batching = opened(decoder)
    computed, waiting = Work("computed", 2), Work("waiting")
    batching.wake_job(computed)
    while not decoder.batches:  # noqa: ASYNC110 - until the thread has begun
        await asyncio.sleep(0.001)
    batching.wake_job(waiting)
    closing = asyncio.get_running_loop().create_task(batching.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    decoder.gate.release()
    await closing
    assert computed.delivered == 1
    for work in (computed, waiting):
        assert work.error is not None
        assert work.error.kind is FailureKind.CONNECTIVITY
    late = Work("late")
    batching.wake_job(late)
    await asyncio.sleep(0)
    assert decoder.batches == [["computed"]]
    with pytest.raises(ProviderError):
        await batching.run_on_thread(lambda: None)
    await batching.aclose()
    assert set(threading.enumerate()) == before
