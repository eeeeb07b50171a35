"""The common part of all chains: a request is relayed to one service after the other
until one answers.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.wrapping import as_provider
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.plan import AttemptPlan
from voicechat.runtime.provider_deadlines import TimedItems

P = TypeVar("P")
T = TypeVar("T")


class Chain(Generic[P]):
    """A service followed by its fallbacks. Links may belong to several chains."""

    def __init__(self, links: Sequence[ChainLink[P]]) -> None:
        """``links``: the service itself comes first."""
        self.links = tuple(links)
        self.stood_in: Counter[str] = Counter()
        """Requests that a fallback was asked to answer, by its name."""

    @property
    def name(self) -> str:
        """The name of the service itself."""
        return self.links[0].name

    @property
    def patience_s(self) -> float:
        """As `Provider.patience_s`: that of the service, if it has no fallback."""
        return as_provider(self.links[0].provider).patience_s if len(self.links) == 1 else 0.0

    def count_request(self, link: ChainLink[P]) -> None:
        """Count a request to a fallback."""
        if link is not self.links[0]:
            self.stood_in[link.name] += 1


@dataclass(frozen=True, slots=True)
class ItemVerdict:
    """How an item of a service is treated."""

    passes: bool
    """Pass it on."""
    answers: bool
    """The service has answered: no other one is asked from here on."""
    within_s: float | None
    """Seconds until the next item is due; None: the deadline stays, because this item
    does not show progress.
    """


IGNORED = ItemVerdict(passes=False, answers=False, within_s=None)


class ChainRequest(ABC, Generic[P, T]):
    """One request to a chain: how a service is asked, and how its items are judged."""

    @abstractmethod
    def start_on(self, provider: P) -> AsyncIterator[T]:
        """Ask a service."""

    @abstractmethod
    def judge_item(self, item: T) -> ItemVerdict:
        """Return how ``item`` is treated. Raises ``ProviderError`` if it is invalid or
        not an answer.
        """

    def on_first_item(self, link: ChainLink[P]) -> None:
        """Called when the service has given its first answer."""

    def on_empty(self, plan: AttemptPlan[P]) -> None:
        """Called when the service has ended without an answer. May raise
        ``ProviderError`` if that is a failure.
        """

    def on_failure(self, plan: AttemptPlan[P]) -> None:
        """Called when the service has failed before its first answer; ``plan`` chooses
        the next one.
        """

    def on_break_off(self, link: ChainLink[P], failure: ProviderError) -> None:
        """Called when the service has failed after its first answer. May raise another
        ``ProviderError`` in place of the failure.
        """


async def relay(
    chain: Chain[P], plan: AttemptPlan[P], request: ChainRequest[P, T]
) -> AsyncGenerator[T, None]:
    """Yield the items of the first service that answers.

    Each item has a deadline, which is enforced only here. Raises ``ProviderError``:
    before the first answer when no service is left, after it when the service fails.
    Cancelling cancels the service that is being asked.
    """
    loop = asyncio.get_running_loop()
    while True:
        link, deadline_s = await plan.next_link()
        patience_s = chain.patience_s
        deadline_s += patience_s
        chain.count_request(link)
        cold, begun = link.cold, False
        try:
            async with (
                link.attempt(deadline_s) as attempt,
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
                        deadline_s = loop.time() + verdict.within_s + patience_s
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
                # The service may be loading its model, and many servers stop that when
                # the request is cancelled.
                link.warm_up(partial(started, link, request.start_on))


def started(link: ChainLink[P], begin: Callable[[P], AsyncIterator[T]]) -> AsyncIterator[T]:
    """Call the provider. Converts any exception other than ``ProviderError`` to one
    (BROKEN).
    """
    try:
        return begin(link.provider)
    except ProviderError:
        raise
    except Exception as error:
        raise ProviderError(
            link.name, FailureKind.BROKEN, f"raised {type(error).__name__}"
        ) from error
