"""Soak test: clients connect and disconnect, half of them abruptly, in every state:
``python -m tools.soak.connects --count 1000``.

The server runs in this process, so that what it holds can be compared exactly with what
it held before.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tools.soak.holdings import Holdings, Memory, holdings, memory
from tools.soak.visits import ANSWER_S, STATES, Visit
from voicechat.config import build_services, load_config
from voicechat.runtime.services import Services
from voicechat.server.serve import Running, credentials, serving
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer

AT_ONCE = 8
RESUME_MS = 200
NEVER = {"unquestioned_sessions": 1_000_000}
"""The clients compute in this process, too: as much as they can."""
RELEASE_S = 60.0
"""Detached streams wait for ``RESUME_MS``, everything else is released within a second,
closing handshakes in two, on a machine that does nothing else.
"""
ROUND = len(STATES) * 4
"""Each state left in each way: by a close, cut (FIN), by a close again, cut (RST)."""
FLAT_BYTES = 2048
FLAT_OBJECTS = 2.0
"""A connect may leave so much: URLs in yarl's cache, cancelled timers that asyncio
still sorts. A session that is kept has more than a hundred objects.
"""

REPLIES = (("It is ", "a long way. ", "You should ", "take the train."),)


@dataclass
class Scene:
    """A running server and what its services count."""

    server: Running
    scripted: tuple[ScriptedRecognizer, ScriptedModel, ScriptedSynthesizer] | None

    @property
    def provider_streams(self) -> int:
        return sum(service.open for service in self.scripted or ())

    def reset_scripts(self) -> None:
        """Scripted services remember all that they were asked; that is no leak of the
        server's.
        """
        if self.scripted is not None:
            recognizer, model, synthesizer = self.scripted
            recognizer.heard_ms.clear()
            model.requests.clear()
            synthesizer.texts.clear()


@asynccontextmanager
async def scene(*, embedded: bool) -> AsyncIterator[Scene]:
    with tempfile.TemporaryDirectory() as directory:
        config = load_config(
            None,
            {"VOICECHAT_DATA_DIR": directory},
            {
                "server": {"port": 0, "drain_s": 0.0},
                "limits": {"resume_ms": RESUME_MS},
                "admission": NEVER,
            },
        )
        scripted = None
        if embedded:
            services = build_services(config)
        else:
            scripted = (
                ScriptedRecognizer(final_ms=30),
                ScriptedModel(REPLIES, first_ms=20, delta_ms=10),
                ScriptedSynthesizer(first_ms=10, chunk_delay_ms=10),
            )
            recognizer, model, synthesizer = scripted
            services = Services(
                {"default": recognizer}, {"default": model}, {"default": synthesizer}
            )
        async with serving(config, services, credentials(config), lambda _: None) as server:
            yield Scene(server, scripted)


async def visit_and_leave(server: Running, number: int) -> None:
    assert server.key is not None
    visit = Visit(server.url, server.key, number)
    await STATES[number % len(STATES)](visit)
    way = number // len(STATES) % 4
    if way % 2 == 0:
        await visit.leave()
    else:
        visit.cut(reset=way == 3)


async def visits(server: Running, numbers: range) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with places, asyncio.timeout(2 * ANSWER_S):
            await visit_and_leave(server, number)

    async with asyncio.TaskGroup() as tasks:
        for number in numbers:
            tasks.create_task(one(number))


async def returns_to(scene: Scene, before: Holdings) -> None:
    """Wait until everything is as it was; AssertionError with the difference when it
    does not come to that.
    """
    try:
        async with asyncio.timeout(RELEASE_S):
            while holdings(scene.server, scene.provider_streams) != before:  # noqa: ASYNC110 - see below
                await asyncio.sleep(0.02)  # nothing tells that the last descriptor is closed
    except TimeoutError:
        assert holdings(scene.server, scene.provider_streams) == before


async def soak(count: int, *, embedded: bool, tell: Callable[[str], None]) -> list[Memory]:
    """Let ``count`` clients come and go in rounds; after each all is as it was. Gives
    the memory after each round.

    The first round warms up: threads start, caches fill.
    """
    async with scene(embedded=embedded) as stage:
        await visits(stage.server, range(ROUND))
        await asyncio.sleep(1)
        before = holdings(stage.server, 0)
        tell(f"held: {before}")
        remembered: list[Memory] = []
        for begin in range(0, count, ROUND):
            await visits(stage.server, range(ROUND + begin, ROUND + min(begin + ROUND, count)))
            await returns_to(stage, before)
            stage.reset_scripts()
            remembered.append(memory())
            tell(f"{min(begin + ROUND, count):5d} connects: {remembered[-1]}")
        return remembered


def growth(remembered: list[Memory], connects: int) -> tuple[float, float]:
    """Bytes and objects for each connect of the second half; the first half fills
    caches of a fixed size.
    """
    half, last = remembered[(len(remembered) - 1) // 2], remembered[-1]
    of_half = max(1, connects // 2)
    return (
        (last.resident_bytes - half.resident_bytes) / of_half,
        (last.objects - half.objects) / of_half,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument(
        "--embedded", action="store_true", help="the real services instead of scripted ones"
    )
    options = parser.parse_args()
    remembered = asyncio.run(soak(options.count, embedded=options.embedded, tell=print))
    grown_bytes, grown_objects = growth(remembered, options.count)
    print(f"second half: {grown_bytes:.0f} bytes and {grown_objects:.2f} objects a connect")
    return int(grown_bytes > FLAT_BYTES or grown_objects > FLAT_OBJECTS)


if __name__ == "__main__":
    sys.exit(main())
