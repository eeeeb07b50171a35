"""Twice as many want in as the server holds: ``python -m tests.soak.overload``.

Users come one after the other and talk without end, until the server is full; then they go on coming until twice as
many have come as it held. What those who are in get is measured before and after that moment. The server has a
core to itself and the users another one, where the machine has two; of a machine that is busy otherwise it says little.
"""

import argparse
import asyncio
import sys
from collections import Counter
from dataclasses import dataclass, field

from aiohttp import ClientSession

from voicechat.bench.figures import spread
from voicechat.bench.script import DELAYS
from voicechat.bench.server import SCRIPTED, BenchServer, bench_server, running_on, separate_cores
from voicechat.bench.talker import LATE_MS, Talker, Tally
from voicechat.client import connect
from voicechat.errors import AdmissionError, Status, VoiceChatError
from voicechat.session.vocabulary import VoiceSettings

UNTIL_ADMISSION = "[admission]"
FOREVER_S = 1e9
MOST = 2_000
FULL = 10
"""So many refusals show that the server is full; the first ones are of those who came too fast after each other."""


@dataclass
class Crowd:
    """Everybody who came."""

    tally: Tally = field(default_factory=Tally)
    inside: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    limit: int = 0
    """How many were in when it was full."""
    before: Tally = field(default_factory=Tally)
    """What had been seen until then."""
    own_lags_ms: list[float] = field(default_factory=list)
    """Since then: how late the users' own timers were."""

    @property
    def attempts(self) -> int:
        return self.inside + self.refused.total()

    def refuse(self, refusal: AdmissionError) -> None:
        self.refused[refusal.message] += 1
        if self.refused.total() == FULL:
            self.limit = self.inside
            self.before.answers, self.tally.answers = self.tally.answers, []
            self.own_lags_ms.clear()
            self.before.interruptions_ms, self.tally.interruptions_ms = self.tally.interruptions_ms, []


async def user(server: BenchServer, crowd: Crowd, number: int) -> None:
    try:
        async with connect(server.url, key=server.key) as conversation:
            crowd.inside += 1
            talker = Talker(conversation, crowd.tally, output=VoiceSettings().format, interrupts_first=number % 2 == 1)
            await talker.talk_until(FOREVER_S)
    except AdmissionError as refusal:
        if refusal.status is not Status.AT_CAPACITY:
            raise
        crowd.refuse(refusal)
    except VoiceChatError:
        crowd.tally.lost += 1


async def watch_own_lag(crowd: Crowd) -> None:
    """How late the users' own timers are: as late as that they see everything."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + 0.05
        await asyncio.sleep(0.05)
        crowd.own_lags_ms.append((loop.time() - due_s) * 1000)


async def ramp(server: BenchServer, crowd: Crowd, per_second: float, hold_s: float) -> str:
    """Let users come until twice as many have come as were held; give what the server says of it."""
    async with asyncio.TaskGroup() as group:
        users: list[asyncio.Task[None]] = [group.create_task(watch_own_lag(crowd))]
        while crowd.attempts < MOST and (not crowd.limit or crowd.attempts < 2 * crowd.limit):
            users.append(group.create_task(user(server, crowd, len(users))))
            await asyncio.sleep(1 / per_second)
        await asyncio.sleep(hold_s)
        async with ClientSession() as http, http.get(server.url + "/metrics") as answer:
            lines = (await answer.text()).splitlines()
        for task in users:
            task.cancel()
    shown = ("voicechat_pressure", "voicechat_refused", "voicechat_loop")
    return "\n".join(line for line in lines if line.startswith(shown) and "_created" not in line)


async def measure(options: argparse.Namespace) -> tuple[Crowd, str]:
    scripted, _, services = SCRIPTED.partition(UNTIL_ADMISSION)
    admission = f"[admission]\nbusy_refuse_percent = {options.busy_percent}\n"
    config = scripted.replace("workers = 1", f"workers = {options.workers}") + admission
    config += services[services.index("[asr") :]
    cores, crowd = separate_cores(), Crowd()
    async with bench_server(config, cores.server if options.workers == 1 else None) as server:
        with running_on(cores.client if options.workers == 1 else None):
            told = await ramp(server, crowd, options.per_second, options.hold)
    return crowd, told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-second", type=float, default=4, help="users who come in a second")
    parser.add_argument("--hold", type=float, default=20, help="seconds to go on when all have come")
    parser.add_argument("--workers", type=int, default=1)
    busy = "how busy the server may be; less where other programs run beside it"
    parser.add_argument("--busy-percent", type=float, default=75.0, help=busy)
    crowd, told = asyncio.run(measure(parser.parse_args()))
    print(f"full with {crowd.limit}; in the end {crowd.attempts} had come, {crowd.inside} got in")
    for when, tally in (("until it was full", crowd.before), ("from then on", crowd.tally)):
        print(f"{when}: {tally.turns} turns, overhead over {DELAYS.first_audio_ms} ms of the script")
        print(f"  {spread(tally.overheads_ms)}; {tally.late} over {LATE_MS} ms")
        print(f"  cancel to canceled: {spread(tally.interruptions_ms)}")
    print(f"  the users' own timers were late by {spread(crowd.own_lags_ms)}")
    print(f"lost {crowd.tally.lost}, stale {crowd.tally.stale}")
    print(told)
    return int(crowd.tally.lost + crowd.tally.stale > 0 or not crowd.limit)


if __name__ == "__main__":
    sys.exit(main())
