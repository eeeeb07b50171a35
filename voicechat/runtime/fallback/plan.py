"""The plan of one request to a chain: which service is asked next, and for how long."""

import asyncio
from collections.abc import Iterable
from typing import Generic, TypeVar

from voicechat.errors import FailureKind, ProviderError
from voicechat.runtime.fallback.circuit_breaker import CircuitState
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.loop_clock import loop_now_s

AGAIN_S = 0.2
"""Wait this long before a lost connection is tried once more, if no other service is
left: the service may just have restarted.
"""

P = TypeVar("P")


class AttemptPlan(Generic[P]):
    """Asks each link once, in order. If time is left, asks those again for which a
    retry can help.
    """

    def __init__(self, links: Iterable[ChainLink[P]], until_s: float) -> None:
        """``until_s``: the deadline of the first item, whichever link gives it (loop
        time).

        Only the last link has longer, while it is cold: ``ServicePolicy.first_use_s``.
        """
        self._links = tuple(links)
        self._untried = list(self._links)
        self._again: list[tuple[float, ChainLink[P]]] = []
        self._until_s = until_s
        self._failed: set[ChainLink[P]] = set()
        self._failure: ProviderError | None = None

    @property
    def has_more(self) -> bool:
        """Whether another link could be asked now."""
        now_s = loop_now_s()
        return now_s < self._until_s and any(link.breaker.allows(now_s) for link in self._untried)

    def extend_deadline(self, until_s: float) -> None:
        """Move the deadline of the links that are asked from now on to ``until_s``
        (loop time), if that is later.
        """
        self._until_s = max(self._until_s, until_s)

    async def next_link(self) -> tuple[ChainLink[P], float]:
        """Return the next link and the deadline of its first item (loop time).

        May wait for a service that said when to retry. Raises ``ProviderError`` when no
        link is left: the last failure, if there was one.
        """
        while self._untried:
            link = self._untried.pop(0)
            if link.breaker.allows(loop_now_s()):
                return link, self._share_of(link)
            self._again.append((_when(link), link))
        while self._again:
            self._again.sort(key=lambda again: again[0])
            ready_at_s, link = self._again.pop(0)
            if ready_at_s >= self._until_s:
                break
            await asyncio.sleep(ready_at_s - loop_now_s())
            if link.breaker.allows(loop_now_s()):
                return link, self._until_s
            self._again.append((_when(link), link))
        raise self._failure or self._left_alone()

    def record_failure(self, link: ChainLink[P], failure: ProviderError) -> None:
        """Record a failure. The first failure of each link decides whether it is
        retried.
        """
        self._failure = failure
        if link in self._failed:
            return
        self._failed.add(link)
        if failure.kind is FailureKind.CONNECTIVITY:
            self._again.append((loop_now_s() + AGAIN_S, link))
        elif failure.retry_after_s is not None:
            self._again.append((loop_now_s() + failure.retry_after_s, link))

    def _left_alone(self) -> ProviderError:
        """Return the error of a request that no service was asked for. Services that
        asked to be called later are busy (RATE_LIMIT), not broken.
        """
        waits_s = [
            link.breaker.ready_at_s - loop_now_s()
            for link in self._links
            if link.breaker.rests(loop_now_s())
        ]
        if waits_s:
            message = "all have asked for a pause"
            return ProviderError(
                "services", FailureKind.RATE_LIMIT, message, retry_after_s=min(waits_s)
            )
        return ProviderError(
            "services", FailureKind.CONNECTIVITY, "all are suspended after failures"
        )

    def _share_of(self, link: ChainLink[P]) -> float:
        """Return the deadline of a link: ``attempt_s``, or an even share of the time
        that is left. The last link has all of it.
        """
        now_s = loop_now_s()
        after = sum(other.breaker.allows(now_s) for other in self._untried)
        if not after:
            return (
                max(self._until_s, now_s + link.policy.first_use_s) if link.cold else self._until_s
            )
        share_s = (self._until_s - now_s) / (1 + after)
        return min(self._until_s, now_s + (link.policy.attempt_s or share_s))


def _when(link: ChainLink[P]) -> float:
    """Return when to check again whether a link may be asked. Another session's trial
    may end at any time.
    """
    trying = link.breaker.state is CircuitState.TRYING
    return max(loop_now_s() + AGAIN_S, 0.0 if trying else link.breaker.ready_at_s)
