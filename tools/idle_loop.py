"""The control of a measurement: how late an event loop is that computes nothing.

``python -m tools.idle_loop`` runs the server's event loop without a server, until its
input ends. It prints a line when it begins to measure, and at the end its largest lag
in seconds, measured as ``/metrics`` of the server measures its own. Run beside a server
under load, it shows how much of the server's lag comes from the machine: the wait for a
core that other processes use.
"""

import asyncio
import sys

from prometheus_client.parser import text_string_to_metric_families

from voicechat.server.metrics import LAG_PERIOD_S, LAG_WINDOW, Metrics
from voicechat.server.serve import loop_factory, tune_threads

LAG = "voicechat_loop_lag_seconds"


def main() -> None:
    """Run the command."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        print(runner.run(largest_lag_s()), flush=True)


async def largest_lag_s() -> float:
    """Measure until standard input ends; returns the largest lag."""
    tune_threads()
    print("measuring", flush=True)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    metrics = Metrics()
    largest_s = 0.0
    with metrics.measuring_loop_lag():
        while not ended.done():
            await asyncio.wait([ended], timeout=LAG_WINDOW * LAG_PERIOD_S / 2)
            for family in text_string_to_metric_families(metrics.text().decode()):
                largest_s = max([largest_s, *(s.value for s in family.samples if s.name == LAG)])
    return largest_s


if __name__ == "__main__":
    main()
