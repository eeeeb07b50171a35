"""The checks for providers of every kind, used by `voicechat.testing.conformance`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from voicechat.errors import ProviderError
from voicechat.runtime.provider_deadlines import closing
from voicechat.testing.leak_check import (
    HeldResources,
    TaskTracker,
    held_resources,
    tracking_tasks,
    wait_for_release,
)

TURNS = 10
"""Loop iterations that a cancellation may take: one for each nested task. Waiting for a
timer, an answer or a thread takes more.
"""
ROUNDS = 12
"""Repetitions that make a leak of one resource per use detectable."""
MOMENTS = (1, 2, 3, 5, 8, 13, 40)
"""Loop iterations after which a use is cancelled."""
SETTLE_S = 2.0

Use: TypeAlias = Callable[[], AsyncIterator[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The provider under test, as functions that each start one use and return its
    iterator.
    """

    use: Use
    """An ordinary use that yields at least one item."""
    judge: Callable[[list[Any]], None]
    """Raises AssertionError if the items of an ordinary use are malformed."""
    variants: Mapping[str, Use] = field(default_factory=dict)
    """Further ordinary uses."""
    waiting: Use | None = None
    """A use whose input does not end."""
    silent: Mapping[str, Use] = field(default_factory=dict)
    """Uses that must yield nothing."""
    awkward: Mapping[str, Use] = field(default_factory=dict)
    """Uses that may yield anything or raise ProviderError."""
    probe: Callable[[], Awaitable[None]] | None = None
    """The provider's probe; None if it has none."""
    at_once: int = 3
    deadline_s: float = 60.0


def require(condition: bool, problem: str) -> None:
    """Raise AssertionError unless ``condition``, also under ``python -O``."""
    if not condition:
        raise AssertionError(problem)


async def check_all(subject: Subject) -> None:
    """Run every check, each within the subject's deadline. The message of an
    AssertionError begins with the name of the check.
    """
    for name, check in CHECKS.items():
        limit = asyncio.timeout(subject.deadline_s)
        try:
            async with limit:
                await check(subject)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        except TimeoutError as error:
            if not limit.expired():
                raise AssertionError(f"{name}: it raised TimeoutError") from error
            raise AssertionError(
                f"{name}: it did not end within {subject.deadline_s:g} s"
            ) from None
        except Exception as error:
            raise AssertionError(f"{name}: it raised {type(error).__name__}: {error}") from error


async def used(use: Use) -> list[Any]:
    """Consume one use and return its items."""
    items = use()
    require(hasattr(items, "aclose"), "the output iterator has no aclose: it cannot be cancelled")
    async with closing(items):
        return [item async for item in items]


async def is_well_formed(subject: Subject) -> None:
    """The items have the form and the order that the interface requires."""
    subject.judge(await used(subject.use))
    for name, use in subject.variants.items():
        try:
            subject.judge(await used(use))
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


async def is_silent_on_nothing(subject: Subject) -> None:
    """Empty input yields no item and raises no error."""
    for name, use in subject.silent.items():
        items = await used(use)
        require(not items, f"{name} gave {len(items)} items instead of none")


async def raises_only_provider_error(subject: Subject) -> None:
    """Any input is answered, or refused with ProviderError and no other error."""
    for name, use in subject.awkward.items():
        try:
            await used(use)
        except ProviderError:
            continue
        except Exception as error:
            raise AssertionError(
                f"{name}: it raised {type(error).__name__} instead of ProviderError"
            ) from error


async def closes_at_once(subject: Subject) -> None:
    """``aclose`` in the middle of a use returns at once and leaves no task. The
    iterator yields nothing afterwards.
    """
    with tracking_tasks() as watch:
        begun, go = asyncio.Event(), asyncio.Event()
        later: list[Any] = []

        async def use() -> None:
            items = subject.use()
            try:
                require(await anext(items, None) is not None, "it gave no item")
            finally:
                begun.set()
            await go.wait()
            await items.aclose()  # type: ignore[attr-defined]
            later.append(await anext(items, None))

        task = watch.start_task(use())
        await begun.wait()
        go.set()
        await _ends(task, watch, "closing")
        require(later == [None], "it gave an item after it was closed")


async def cancels_at_once(subject: Subject) -> None:
    """A task that is cancelled at any point of a use ends at once, as cancelled, and
    leaves no task.
    """
    for use in (subject.use, subject.waiting or subject.use):
        for turns in MOMENTS:
            with tracking_tasks() as watch:
                using = watch.start_task(used(use))
                await _turns(turns)
                await _cancelled(using, watch)
    with tracking_tasks() as watch:
        taken = asyncio.Event()
        waiting = watch.start_task(_waiting(subject.waiting or subject.use, taken))
        await taken.wait()
        await _cancelled(waiting, watch)


async def serves_several_at_once(subject: Subject) -> None:
    """Concurrent uses do not affect each other, even if one is cancelled."""
    async with asyncio.TaskGroup() as group:
        uses = [group.create_task(_outcome(subject.use)) for _ in range(subject.at_once)]
        if len(uses) > 1:
            await asyncio.sleep(0)
            uses.pop().cancel()
    for use in uses:
        result = use.result()
        if isinstance(result, Exception):
            raise AssertionError(
                f"of {subject.at_once} uses at once one raised {result!r}"
            ) from result
        subject.judge(result)


async def leaves_nothing(subject: Subject) -> None:
    """Repeated uses, complete and cut short, do not accumulate sockets, threads or
    processes.
    """
    before = held_resources()
    for _ in range(ROUNDS):
        with tracking_tasks() as watch:
            await watch.start_task(_first(subject.use))
            await watch.start_task(used(subject.use))
            await _turns(TURNS)
            require(not watch.left, f"tasks are left when a use has ended: {watch.left}")
    await _nothing_grew(before, f"{ROUNDS} uses")


async def answers_its_probe(subject: Subject) -> None:
    """The probe of a working service succeeds (otherwise the circuit breaker would
    never close again) and leaves nothing behind.
    """
    if subject.probe is None:
        return
    await _probe_once(subject.probe)  # a connection may be kept warm
    before = held_resources()
    for _ in range(ROUNDS):
        await _probe_once(subject.probe)
    for turns in MOMENTS:
        with tracking_tasks() as watch:
            probing = watch.start_task(_probed(subject.probe))
            await _turns(turns)
            await _cancelled(probing, watch)
    await _nothing_grew(before, f"{ROUNDS + len(MOMENTS)} probes")


CHECKS: Mapping[str, Callable[[Subject], Awaitable[None]]] = {
    "is well formed": is_well_formed,
    "is silent on nothing": is_silent_on_nothing,
    "raises only ProviderError": raises_only_provider_error,
    "closes at once": closes_at_once,
    "cancels at once": cancels_at_once,
    "serves several at once": serves_several_at_once,
    "leaves nothing": leaves_nothing,
    "answers its probe": answers_its_probe,
}
"""The checks by name, in the order in which they run."""


async def _probe_once(probe: Callable[[], Awaitable[None]]) -> None:
    with tracking_tasks() as watch:
        try:
            await watch.start_task(_probed(probe))
        except ProviderError as error:
            raise AssertionError(f"it failed although the service works: {error}") from error
        await _turns(TURNS)
        require(not watch.left, f"tasks are left when a probe has ended: {watch.left}")


async def _probed(probe: Callable[[], Awaitable[None]]) -> None:
    await probe()


async def _nothing_grew(before: HeldResources, after_what: str) -> None:
    now = await wait_for_release(before, SETTLE_S)
    grown = {
        "sockets": now.sockets - before.sockets,
        "child processes": now.children - before.children,
    }
    for kind, more in grown.items():
        require(more <= 0, f"after {after_what} {more} more {kind} are open")
    # A pool of threads may still have been growing.
    more = now.threads - before.threads
    require(more < ROUNDS, f"after {after_what} {more} more threads run")


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _first(use: Use) -> None:
    items = use()
    async with closing(items):
        await anext(items, None)


async def _waiting(use: Use, taken: asyncio.Event) -> None:
    """Take one item, or give up after ``SETTLE_S``; then wait for more."""
    loop = asyncio.get_running_loop()
    patience = loop.call_later(SETTLE_S, taken.set)
    items = use()
    try:
        async with closing(items):
            async for _ in items:
                taken.set()
                await asyncio.sleep(0)
    finally:
        patience.cancel()
        taken.set()


async def _outcome(use: Use) -> "list[Any] | Exception":
    """Return an error instead of raising it, so that it does not cancel other uses."""
    try:
        return await used(use)
    except Exception as error:  # noqa: BLE001 - reported by the caller
        return error


async def _cancelled(task: "asyncio.Task[Any]", watch: TaskTracker) -> None:
    """Cancel ``task`` unless it is done. It must end at once, as cancelled."""
    if not task.done():
        task.cancel()
        await _ends(task, watch, "cancelling", cancelled=True)
    else:
        task.result()


async def _ends(
    task: "asyncio.Task[Any]", watch: TaskTracker, how: str, *, cancelled: bool = False
) -> None:
    """Check that ``task`` ends within ``TURNS`` loop iterations and leaves no task."""
    for _ in range(TURNS):
        if task.done() and not watch.left:
            break
        await asyncio.sleep(0)
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
        raise AssertionError(
            f"{how} waited for something: it had not ended after {TURNS} turns of the loop"
        )
    if not task.cancelled() and (error := task.exception()) is not None:
        raise AssertionError(f"{how}: it raised {type(error).__name__}: {error}") from error
    require(task.cancelled() or not cancelled, "it went on although it was cancelled")
    require(not watch.left, f"{how} left tasks: {watch.left}")
