"""The checks that providers of every kind must pass: see
`voicechat.testing.conformance`.
"""

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
"""A cancellation passes through nested tasks a turn of the loop each; waiting for a
timer, an answer or a thread takes longer than any number of turns.
"""
ROUNDS = 12
"""Uses after which a leak of one thing a use is plain."""
MOMENTS = (1, 2, 3, 5, 8, 13, 40)
"""Turns of the loop after which a use is cancelled."""
SETTLE_S = 2.0

Use: TypeAlias = Callable[[], AsyncIterator[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A provider as the checks see it: ways to use it, each giving the iterator of one
    use.
    """

    use: Use
    """An ordinary use that gives at least one item."""
    judge: Callable[[list[Any]], None]
    """Raises AssertionError when the items of an ordinary use are not as they should
    be.
    """
    variants: Mapping[str, Use] = field(default_factory=dict)
    """Further ordinary uses."""
    waiting: Use | None = None
    """A use whose input does not end."""
    silent: Mapping[str, Use] = field(default_factory=dict)
    """Uses that give nothing."""
    awkward: Mapping[str, Use] = field(default_factory=dict)
    """Uses that may give anything or fail with ProviderError."""
    probe: Callable[[], Awaitable[None]] | None = None
    """Of a provider that has one: asks whether its service works."""
    at_once: int = 3
    deadline_s: float = 60.0


def require(condition: bool, problem: str) -> None:
    """Raise AssertionError unless ``condition``, with ``-O`` too."""
    if not condition:
        raise AssertionError(problem)


async def check_all(subject: Subject) -> None:
    """Run every check, each within the subject's deadline. AssertionError begins with
    the name of the check.
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
    """Use it to its end; give the items."""
    items = use()
    require(hasattr(items, "aclose"), "the output iterator has no aclose: it cannot be cancelled")
    async with closing(items):
        return [item async for item in items]


async def is_well_formed(subject: Subject) -> None:
    """What comes out has the form and the order that the interface asks for."""
    subject.judge(await used(subject.use))
    for name, use in subject.variants.items():
        try:
            subject.judge(await used(use))
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


async def is_silent_on_nothing(subject: Subject) -> None:
    """Of nothing comes nothing, and no error."""
    for name, use in subject.silent.items():
        items = await used(use)
        require(not items, f"{name} gave {len(items)} items instead of none")


async def raises_only_provider_error(subject: Subject) -> None:
    """Whatever is asked, it is answered, or refused with ProviderError."""
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
    """``aclose`` in the middle returns at once, and leaves no task; afterwards nothing
    comes any more.
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
    """A task that is cancelled anywhere in a use ends at once, as cancelled, and leaves
    no task.
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
    """Uses at the same time do not disturb each other, also when one of them is
    cancelled.
    """
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
    """Using it again and again, to the end and not, takes no more sockets, threads and
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
    """A service that works says so, or its provider would be left alone for ever;
    asking leaves nothing, however.
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
"""By the names that failures begin with, in the order in which they run."""


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
    """Take one item, or find that none comes for a while; and wait for more."""
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
    """Keep the failure of one use from cancelling the others."""
    try:
        return await used(use)
    except Exception as error:  # noqa: BLE001 - reported by the caller
        return error


async def _cancelled(task: "asyncio.Task[Any]", watch: TaskTracker) -> None:
    """Cancel ``task``, unless it has ended: it must end at once, and as cancelled."""
    if not task.done():
        task.cancel()
        await _ends(task, watch, "cancelling", cancelled=True)
    else:
        task.result()


async def _ends(
    task: "asyncio.Task[Any]", watch: TaskTracker, how: str, *, cancelled: bool = False
) -> None:
    """Let it end within ``TURNS``, and nothing be left of it."""
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
