"""What all chains share: a request is handed from one service to the next until one answers."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Generic, TypeVar

from voicechat.errors import FailureKind, ProviderError
from voicechat.runtime.edge import Timed
from voicechat.runtime.fallback.link import Link
from voicechat.runtime.fallback.plan import Plan

P = TypeVar("P")
T = TypeVar("T")


class Chain(Generic[P]):
    """A service and those that stand in for it, in order. Its links may belong to other chains, too."""

    def __init__(self, links: Sequence[Link[P]]) -> None:
        """``links``: the service itself first."""
        self.links = tuple(links)
        self.stood_in: Counter[str] = Counter()
        """Requests that another service than the first was asked to answer, by its name."""

    @property
    def name(self) -> str:
        """The name of the service itself."""
        return self.links[0].name

    def note_asked(self, link: Link[P]) -> None:
        """Count who stands in."""
        if link is not self.links[0]:
            self.stood_in[link.name] += 1


class Asking(ABC, Generic[P, T]):
    """One request, as it is put to one service after the other."""

    @abstractmethod
    def begin(self, provider: P) -> AsyncIterator[T]:
        """Ask a service."""

    @abstractmethod
    def patience_s(self, item: T) -> float | None:
        """How long the next item may take after ``item``; None: that is not worth passing on.

        Raises ``ProviderError`` when it is no item at all.
        """

    def answered(self, link: Link[P]) -> None:
        """It has given its first item."""

    def gave_nothing(self, plan: Plan[P]) -> None:
        """It has ended without one. May raise ``ProviderError``, if that is a failure."""

    def broke_off(self, link: Link[P], failure: ProviderError) -> None:
        """It has failed after its first item. May raise another ``ProviderError`` than the failure."""


async def relay(chain: Chain[P], plan: Plan[P], asking: Asking[P, T]) -> AsyncGenerator[T, None]:
    """Give the items of the first service that gives any.

    Raises ``ProviderError``: before the first item when no service is left, after it when the service fails. Cancelling
    cancels the service that is being asked.
    """
    loop = asyncio.get_running_loop()
    while True:
        link, deadline_s = await plan.next_link()
        chain.note_asked(link)
        begun = False
        try:
            async with (
                link.asked(deadline_s) as attempt,
                Timed(started(link, asking.begin), "nothing came in time") as items,
            ):
                while (item := await items.next(deadline_s)) is not None:
                    patience_s = asking.patience_s(item)
                    if patience_s is None:
                        continue
                    if not begun:
                        begun = True
                        attempt.worked()
                        asking.answered(link)
                    yield item
                    deadline_s = loop.time() + patience_s
                if not begun:
                    asking.gave_nothing(plan)
            return
        except ProviderError as failure:
            if begun:
                asking.broke_off(link, failure)
                raise
            plan.failed(link, failure)


def started(link: Link[P], begin: Callable[[P], AsyncIterator[T]]) -> AsyncIterator[T]:
    """Call the provider; what it must not raise becomes a ``ProviderError``."""
    try:
        return begin(link.provider)
    except ProviderError:
        raise
    except Exception as error:
        raise ProviderError(link.name, FailureKind.BROKEN, f"raised {type(error).__name__}") from error
