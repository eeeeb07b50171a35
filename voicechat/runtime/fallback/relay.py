"""What all chains share: a request is handed from one service to the next until one
answers.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from voicechat.errors import FailureKind, ProviderError
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.plan import AttemptPlan
from voicechat.runtime.provider_deadlines import TimedItems

P = TypeVar("P")
T = TypeVar("T")


class Chain(Generic[P]):
    """A service and those that stand in for it, in order. Its links may belong to other
    chains, too.
    """

    def __init__(self, links: Sequence[ChainLink[P]]) -> None:
        """``links``: the service itself first."""
        self.links = tuple(links)
        self.stood_in: Counter[str] = Counter()
        """Requests that another service than the first was asked to answer, by its
        name.
        """

    @property
    def name(self) -> str:
        """The name of the service itself."""
        return self.links[0].name

    def note_asked(self, link: ChainLink[P]) -> None:
        """Count who stands in."""
        if link is not self.links[0]:
            self.stood_in[link.name] += 1


@dataclass(frozen=True, slots=True)
class ItemVerdict:
    """What becomes of an item."""

    passes: bool
    """It is passed on."""
    answers: bool
    """With it the service has answered, and nobody else is asked."""
    within_s: float | None
    """How long the next item may take; None: as long as before, for this one is no sign
    of life.
    """


IGNORED = ItemVerdict(passes=False, answers=False, within_s=None)


class ChainRequest(ABC, Generic[P, T]):
    """One request to a chain: how it is put to a service, and what is made of the items
    that the service gives.
    """

    @abstractmethod
    def start_on(self, provider: P) -> AsyncIterator[T]:
        """Ask a service."""

    @abstractmethod
    def judge_item(self, item: T) -> ItemVerdict:
        """Say what becomes of ``item``. Raises ``ProviderError`` when it is no item at
        all, or no answer.
        """

    def on_first_item(self, link: ChainLink[P]) -> None:
        """It has given its first item."""

    def on_empty(self, plan: AttemptPlan[P]) -> None:
        """It has ended without one. May raise ``ProviderError``, if that is a failure."""

    def on_failure(self, plan: AttemptPlan[P]) -> None:
        """It has failed before its first item, and ``plan`` says who is asked next."""

    def on_break_off(self, link: ChainLink[P], failure: ProviderError) -> None:
        """It has failed after its first item. May raise another ``ProviderError`` than
        the failure.
        """


async def relay(
    chain: Chain[P], plan: AttemptPlan[P], request: ChainRequest[P, T]
) -> AsyncGenerator[T, None]:
    """Give the items of the first service that gives any.

    Each item has its deadline, and nobody else times a service. Raises
    ``ProviderError``: before the first item when no service is left, after it when the
    service fails. Cancelling cancels the service that is being asked.
    """
    loop = asyncio.get_running_loop()
    while True:
        link, deadline_s = await plan.next_link()
        chain.note_asked(link)
        cold, begun = link.cold, False
        try:
            async with (
                link.asked(deadline_s) as attempt,
                TimedItems(started(link, request.start_on), "nothing came in time") as items,
            ):
                while (item := await items.next_item(deadline_s)) is not None:
                    verdict = request.judge_item(item)
                    if verdict.answers and not begun:
                        begun = True
                        attempt.worked()
                        request.on_first_item(link)
                    if verdict.passes:
                        yield item
                    if verdict.within_s is not None:
                        deadline_s = loop.time() + verdict.within_s
                if not begun:
                    request.on_empty(plan)
            return
        except ProviderError as failure:
            if begun:
                request.on_break_off(link, failure)
                raise
            plan.record_failure(link, failure)
            request.on_failure(plan)
            if cold and failure.kind is FailureKind.TIMEOUT and plan.has_more:
                # It may be loading its model, and many servers stop that when the
                # request goes away.
                link.warm_up(partial(started, link, request.start_on))


def started(link: ChainLink[P], begin: Callable[[P], AsyncIterator[T]]) -> AsyncIterator[T]:
    """Call the provider; what it must not raise becomes a ``ProviderError``."""
    try:
        return begin(link.provider)
    except ProviderError:
        raise
    except Exception as error:
        raise ProviderError(
            link.name, FailureKind.BROKEN, f"raised {type(error).__name__}"
        ) from error
