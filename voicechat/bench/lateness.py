"""How late the timers behind the scripted delays are: what a bench counts although no engine adds it."""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from voicechat.runtime.edge import closing

T = TypeVar("T")


class ScriptLateness:
    """Gathers lateness by service. The clock is the system's: uvloop's own counts whole milliseconds."""

    def __init__(self) -> None:
        self._late_ms: defaultdict[str, list[float]] = defaultdict(list)

    @property
    def mean_ms(self) -> float:
        """How late all delays of a reply before its first audio are together, on average."""
        return sum(sum(late_ms) / len(late_ms) for late_ms in self._late_ms.values())

    def forget(self) -> None:
        """Begin anew."""
        self._late_ms.clear()

    async def watch_final(
        self, audio: AsyncIterator[bytes], recognize: Callable[[AsyncIterator[bytes]], AsyncIterator[T]], final_ms: int
    ) -> AsyncIterator[T]:
        """Hand a recogniser's results on; note how late the last came, due ``final_ms`` after its audio ended."""
        ended_ns = 0

        async def noted() -> AsyncIterator[bytes]:
            nonlocal ended_ns
            async for pcm in audio:
                yield pcm
            ended_ns = time.perf_counter_ns()

        results = recognize(noted())
        async with closing(results):
            async for result in results:
                if ended_ns:
                    self._late_ms["recognizer"].append((time.perf_counter_ns() - ended_ns) / 1e6 - final_ms)
                yield result

    async def watch(self, service: str, items: AsyncIterator[T], scripted_ms: tuple[int, ...]) -> AsyncIterator[T]:
        """Hand ``items`` on; of the first ones, whose delays are ``scripted_ms``, note how late they came together."""
        late_ms, seen = 0.0, 0
        begun_ns = time.perf_counter_ns()
        async with closing(items):
            async for item in items:
                if seen < len(scripted_ms):
                    late_ms += (time.perf_counter_ns() - begun_ns) / 1e6 - scripted_ms[seen]
                    seen += 1
                    if seen == len(scripted_ms):
                        self._late_ms[service].append(late_ms)
                yield item
                begun_ns = time.perf_counter_ns()


LATENESS = ScriptLateness()
"""Of this process: the bench's child makes one server."""
