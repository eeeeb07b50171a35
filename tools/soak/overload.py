"""Overload test with twice as many clients as the server holds: ``python -m
tools.soak.overload``.

Users come one after the other and talk without end, until the server is full; then
nobody comes for a while; then they come again, until twice as many have come as it
held. What those who are in get while nobody comes they must get while the others knock,
too. The server has a core to itself and the users another one, where the machine has
two; of a machine that is busy otherwise it says little.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import ClientSession

from voicechat.bench.conversations import CLIENT_LAG_MS, LAG_PERIOD_S
from voicechat.bench.figures import spread
from voicechat.bench.ramp import OVERHEAD_P99_MS
from voicechat.bench.resource_usage import usage_of
from voicechat.bench.script import DELAYS
from voicechat.bench.server import SCRIPTED, BenchServer, bench_server, running_on, separate_cores
from voicechat.bench.talker import LATE_MS, Talker, Tally
from voicechat.client import connect
from voicechat.errors import AdmissionError, Status, VoiceChatError
from voicechat.session.types import VoiceSettings

UNTIL_ADMISSION = "[admission]"
FOREVER_S = 1e9
MOST = 2_000
FULL = 10
"""So many refusals show that the server is full; the first ones are of those who came
too fast after each other.
"""


@dataclass
class Seen:
    """What those who are in have seen in a part of the time."""

    name: str
    inside: int = 0
    """How many they were in the end."""
    tally: Tally = field(default_factory=Tally)
    own_lags_ms: list[float] = field(default_factory=list)
    """How late the users' own timers were: as late as that they see everything."""
    busy_cores: float = 0.0

    @property
    def void(self) -> bool:
        """Whether it says more about the users, or what else the machine does, than
        about the server.
        """
        lag = spread(self.own_lags_ms)
        return lag is not None and lag.p99_ms > CLIENT_LAG_MS

    @property
    def good(self) -> bool:
        added = spread(self.tally.overheads_ms)
        return added is not None and added.p99_ms <= OVERHEAD_P99_MS

    def lines(self) -> Iterator[str]:
        tally = self.tally
        yield (
            f"{self.name}: {self.inside} in, {tally.turns} turns; the server took "
            f"{self.busy_cores:.2f} cores"
        )
        overheads = f"{spread(tally.overheads_ms)}; {tally.late} over {LATE_MS} ms"
        yield f"  overhead over {DELAYS.first_audio_ms} ms of the script: {overheads}"
        yield f"  cancel to canceled: {spread(tally.interruptions_ms)}"
        yield (
            "  the users' own timers were late by "
            f"{spread(self.own_lags_ms)}{': void' if self.void else ''}"
        )


class Crowd:
    """Everybody who comes, and what they see of the server."""

    def __init__(self, server: BenchServer, users: asyncio.TaskGroup, per_second: float) -> None:
        self.inside = 0
        self.refused: Counter[str] = Counter()
        self.parts: list[Seen] = []
        self.tally = Tally()
        self._own_lags_ms: list[float] = []
        self._server = server
        self._period_s = 1 / per_second
        self._group = users
        self._tasks = [users.create_task(self._watch_own_lag())]

    @property
    def came(self) -> int:
        return self.inside + self.refused.total()

    async def another(self) -> None:
        """Let another user come, and give the next one's time."""
        self._tasks.append(self._group.create_task(self._visit(len(self._tasks))))
        await asyncio.sleep(self._period_s)

    def leave(self) -> None:
        for task in self._tasks:
            task.cancel()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Take what is seen in the context apart."""
        loop, tally, seen = asyncio.get_running_loop(), self.tally, Seen(name)
        begun_s, before = loop.time(), usage_of(self._server.pid)
        yield
        after = usage_of(self._server.pid)
        if before is not None and after is not None:
            seen.busy_cores = (after.cpu_s - before.cpu_s) / (loop.time() - begun_s)
        seen.inside = self.inside
        seen.tally.answers, tally.answers = tally.answers, []
        seen.tally.interruptions_ms, tally.interruptions_ms = tally.interruptions_ms, []
        seen.own_lags_ms, self._own_lags_ms = self._own_lags_ms, []
        self.parts.append(seen)

    async def _visit(self, number: int) -> None:
        try:
            async with connect(self._server.url, key=self._server.key) as conversation:
                self.inside += 1
                output, odd = VoiceSettings().format, number % 2 == 1
                talker = Talker(conversation, self.tally, output=output, interrupts_first=odd)
                await talker.talk_until(FOREVER_S)
        except AdmissionError as refusal:
            if refusal.status is not Status.AT_CAPACITY:
                raise
            self.refused[refusal.message] += 1
        except VoiceChatError:
            self.tally.lost += 1

    async def _watch_own_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_PERIOD_S
            await asyncio.sleep(LAG_PERIOD_S)
            self._own_lags_ms.append((loop.time() - due_s) * 1000)


async def overload(server: BenchServer, per_second: float, hold_s: float) -> tuple[Crowd, str]:
    """Let users come until twice as many have come as were held; give what the server
    says of it, too.
    """
    async with asyncio.TaskGroup() as users:
        crowd = Crowd(server, users, per_second)
        with crowd.part("until it was full"):
            while crowd.refused.total() < FULL and crowd.came < MOST:
                await crowd.another()
        most = 2 * crowd.inside
        with crowd.part("nobody comes"):
            await asyncio.sleep(hold_s)
        with crowd.part("the others knock"):
            while crowd.came < most:
                await crowd.another()
        async with ClientSession() as http, http.get(server.url + "/metrics") as answer:
            lines = (await answer.text()).splitlines()
        crowd.leave()
    shown = ("voicechat_pressure", "voicechat_refused", "voicechat_loop")
    return crowd, "\n".join(
        line for line in lines if line.startswith(shown) and "_created" not in line
    )


async def measure(options: argparse.Namespace) -> tuple[Crowd, str]:
    scripted, _, services = SCRIPTED.partition(UNTIL_ADMISSION)
    admission = f"[admission]\nbusy_refuse_percent = {options.busy_percent}\n"
    config = scripted.replace("workers = 1", f"workers = {options.workers}") + admission
    config += services[services.index("[asr") :]
    cores = separate_cores()
    async with bench_server(config, cores.server if options.workers == 1 else None) as server:
        with running_on(cores.client if options.workers == 1 else None):
            return await overload(server, options.per_second, options.hold)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-second", type=float, default=4, help="users who come in a second")
    parser.add_argument(
        "--hold", type=float, default=30, help="seconds for which nobody comes when it is full"
    )
    parser.add_argument("--workers", type=int, default=1)
    busy = "how busy the server may be; less where other programs run beside it"
    parser.add_argument("--busy-percent", type=float, default=75.0, help=busy)
    crowd, told = asyncio.run(measure(parser.parse_args()))
    for seen in crowd.parts:
        print("\n".join(seen.lines()))
    print(
        f"{crowd.came} came, {crowd.inside} got in; lost {crowd.tally.lost}, stale "
        f"{crowd.tally.stale}"
    )
    print(told)
    knocked = crowd.parts[-1]
    kept = crowd.refused.total() >= FULL and (knocked.good or knocked.void)
    return int(not kept or crowd.tally.lost + crowd.tally.stale > 0)


if __name__ == "__main__":
    sys.exit(main())
