"""Whether conversations survive what happens to a cluster: ``python -m
tools.cluster_chaos kill``.

    kill    every ``--every`` seconds one server is killed (SIGKILL) and started again
    roll    each server is terminated in turn, as a rolling restart does
    redis   Redis is killed and started again, in the middle
    cut     each user's connection is cut at a random moment, again and again
    calm    nothing happens
    scale   no faults: what a session costs with three servers, and with one

Real servers with scripted services behind HAProxy, with the configuration of
``deploy/``, and a real Redis. The users talk through the Python client. Each turn and
each request to the model has a number, so that a user notices what is lost, doubled or
forgotten. Ends with status 0 when every conversation has gone on and nothing was. It
needs Debian's packages ``haproxy`` and ``redis-server``; ``--database`` names a
PostgreSQL for the servers' tasks.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from tests.client.cutting_proxy import CuttingProxy, cutting_proxy
from tools.cluster_chaos.cluster import Cluster, ClusterError, running_cluster
from tools.cluster_chaos.users import Tally, User

MODES = ("kill", "roll", "redis", "cut", "calm")
WANTED_RATIO = 2.8
RETURN_P99_MS = 300
WARM_UP_S = 3.0
"""From the first user to the first fault, or to the first reading of CPU time."""
JOIN_S = 0.02
"""Between two users who join."""


async def run(options: argparse.Namespace, folder: Path) -> Tally:
    """Run one mode, and return what the users noticed."""
    chance = random.Random(options.seed)
    environ = (
        {"VOICECHAT_TRANSCRIPTION__DATABASE_URL": options.database} if options.database else {}
    )
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(
            running_cluster(folder, options.servers, environ=environ)
        )
        ways = [
            await stack.enter_async_context(cutting_proxy(cluster.url))
            for _ in range(options.clients if options.mode == "cut" else 0)
        ]
        urls = [way.url for way in ways] or [cluster.url] * options.clients
        faults = asyncio.create_task(inflict(options, cluster, ways, chance))
        try:
            return await converse(urls, options.seconds, options.seed)
        finally:
            faults.cancel()
            (result,) = await asyncio.gather(faults, return_exceptions=True)
            if isinstance(result, Exception):
                raise result


async def converse(urls: Sequence[str], seconds: float, seed: int) -> Tally:
    """Let one user for each address talk."""
    tally, end_s = Tally(), asyncio.get_running_loop().time() + seconds
    async with asyncio.TaskGroup() as users:
        for number, url in enumerate(urls, 1):
            users.create_task(User(number, url, tally, seed).talk_until(end_s))
            await asyncio.sleep(JOIN_S)
    return tally


async def inflict(
    options: argparse.Namespace, cluster: Cluster, ways: list[CuttingProxy], chance: random.Random
) -> None:
    """Inflict the mode's faults until cancelled."""
    await asyncio.sleep(WARM_UP_S)
    match options.mode:
        case "kill":
            while True:
                server = chance.choice(cluster.servers)
                await server.kill()
                await server.start()
                await server.wait_until_ready()
                await asyncio.sleep(options.every)
        case "roll":
            for server in cluster.servers:
                await server.terminate()
                await server.start()
                await server.wait_until_ready()
                # HAProxy sends connections again after two good answers.
                await asyncio.sleep(3)
        case "redis":
            assert cluster.redis is not None
            await asyncio.sleep(options.seconds / 2)
            await cluster.redis.kill()
            await asyncio.sleep(2)
            await cluster.redis.start()
        case "cut":
            while True:
                await asyncio.sleep(options.every / len(ways))
                chance.choice(ways).cut()
        case _:
            pass


def report(tally: Tally) -> str:
    """Write what the users noticed."""
    lines = [
        f"{tally.turns} turns answered, {tally.returns} connections lost and replaced, "
        f"{tally.repeated} turns said again"
    ]
    if len(tally.return_ms) > 1:
        lines.append(
            f"attempts that succeeded took {_percentiles(tally.return_ms)}; "
            f"users were away for {_percentiles(tally.away_ms)}"
        )
    for what, cases in tally.faults.items():
        lines.append(f"{len(cases)} {what}" + "".join(f"\n    {case}" for case in cases[:5]))
    return "\n".join(lines)


def _percentiles(values: list[float]) -> str:
    cuts = statistics.quantiles(values, n=100)
    return f"p50 {cuts[49]:.0f}, p99 {cuts[98]:.0f} ms"


async def cost_s(servers: int, clients: int, seconds: float, seed: int) -> float:
    """Return the CPU time that a session-minute costs the servers."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        async with running_cluster(Path(name), servers) as cluster:
            talking = asyncio.create_task(converse([cluster.url] * clients, seconds, seed))
            await asyncio.sleep(WARM_UP_S + clients * JOIN_S)
            before, begun_s = sum(each.cpu_s for each in cluster.servers), _now_s()
            await asyncio.wait([talking], timeout=seconds - WARM_UP_S - clients * JOIN_S)
            took_s, after = _now_s() - begun_s, sum(each.cpu_s for each in cluster.servers)
            tally = await talking
    if not tally.sound:
        raise ClusterError(report(tally))
    return (after - before) * 60 / (took_s * clients)


async def scale(options: argparse.Namespace) -> float:
    """Compare three servers with one, in turn: what else the machine does falls on
    both. Of each kind the cheapest run counts, because others only add to it.
    """
    costs: dict[int, list[float]] = {1: [], 3: []}
    for _ in range(options.rounds):
        for servers, found in costs.items():
            found.append(
                await cost_s(servers, servers * options.clients, options.seconds, options.seed)
            )
            print(
                f"{servers} x {options.clients} sessions: {found[-1]:.3f} s of a core per "
                "session-minute",
                flush=True,
            )
    return 3 * min(costs[1]) / min(costs[3])


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def main() -> int:
    """Run the mode that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=(*MODES, "scale"))
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument(
        "--clients", type=int, default=20, help="users; with scale: for each server"
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--every", type=float, default=20, help="kill: seconds between two; cut: for each user"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of scale")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", default="", help="postgresql://...")
    options = parser.parse_args()
    try:
        if options.mode == "scale":
            ratio = asyncio.run(scale(options))
            print(f"three servers hold {ratio:.2f} times what one holds")
            return int(ratio < WANTED_RATIO)
        with tempfile.TemporaryDirectory(prefix="cluster-") as name:
            tally = asyncio.run(run(options, Path(name)))
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 2
    print(report(tally))
    slow = len(tally.return_ms) > 1 and statistics.quantiles(tally.return_ms, n=100)[98]
    return int(not tally.sound or slow > RETURN_P99_MS)


if __name__ == "__main__":
    sys.exit(main())
