"""Replays random conversations of the simulation: ``python -m tools.replay_histories
[1000]``. It ends with an error at the first one that does not repeat itself.
"""

import sys

from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

from tests.records.test_replay import Recorded, histories


def main() -> None:
    """Hold, record and replay the conversations."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    Recorded.replayed = 0
    run_state_machine_as_test(seed(7)(Recorded), settings=histories(count))
    print(f"{Recorded.replayed} conversations had the same effects")


if __name__ == "__main__":
    main()
