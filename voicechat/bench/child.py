"""The server under test, as a child process with arguments ``CONFIG DATA_DIR [--core
N]``.

It runs the same server as ``voicechat serve``, without the user's environment
variables. Its last line of output reports its garbage collector's pauses since it
became ready.
"""

import argparse
import os
from pathlib import Path

import orjson

from voicechat.config import load_config
from voicechat.server.gc_tuning import measuring_gc_pauses
from voicechat.server.serve import run

READY = "ready"
"""Prefix of the line with the address."""


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="the server that a bench measures")
    parser.add_argument("config", type=Path)
    parser.add_argument("data_dir")
    parser.add_argument("--core", type=int, help="run on this core alone")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    config = load_config(options.config, {"VOICECHAT_DATA_DIR": options.data_dir})
    with measuring_gc_pauses() as pauses:

        def announce(line: str) -> None:
            if line.startswith(READY):
                pauses.reset_totals()  # collections before readiness delay no session
                # Flushed, because the bench waits for the line with the address.
            print(line, flush=True)  # noqa: T201 - a line of the protocol with the bench

        run(config, announce)
        account = {"pauses": pauses.pauses, "longest_us": pauses.longest_us}
    print(orjson.dumps(account).decode(), flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main()
