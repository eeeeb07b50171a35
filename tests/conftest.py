"""Virtual time is the default; ``real_time`` marks tests that open sockets, threads or
child processes.
"""

import asyncio
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from voicechat.processes.forked import ForkedStream, ForkServer
from voicechat.testing.virtual_time import VirtualTimeLoop

# A machine that is busy with something else is no fault of a test, and the same tree
# gives the same verdict. New examples are searched with --hypothesis-profile=search.
settings.register_profile(
    "search", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile(
    "same examples", settings.get_profile("search"), derandomize=True, database=None
)
settings.load_profile("same examples")

ROOT = Path(__file__).parent.parent


PROCESSES = 2


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the suite out among processes, file by file; a part of it that is named
    runs in this one.

    So do the long tests, which measure, and everything without pytest-xdist.
    """
    options = config.option
    whole = (
        config.args_source is not pytest.Config.ArgsSource.ARGS and options.markexpr == "not long"
    )
    may_share = getattr(options, "numprocesses", 1) is None and not hasattr(config, "workerinput")
    if whole and may_share and not options.collectonly and not options.usepdb:
        options.numprocesses = PROCESSES
        options.dist = "loadfile"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("real_time"):
        return {"real": asyncio.SelectorEventLoop}
    return {"virtual": VirtualTimeLoop}


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings of people."""
    return ROOT / "tests" / "recordings"


class OnDemand(ForkServer):
    """Starts its process for the first job, not before: most tests have none, and a
    start takes 0.2 s.
    """

    _wanted = False

    async def start(self) -> None:
        if self._wanted:
            await super().start()

    async def fork(self, options: bytes) -> ForkedStream:
        self._wanted = True
        return await super().fork(options)


@pytest.fixture(scope="session", autouse=True)
def _servers_start_quickly() -> Iterator[None]:
    """Let the servers that run in the tests' own process decode on demand, and read the
    voice model once for all.
    """
    serve = sys.modules.get("voicechat.server.serve")
    with pytest.MonkeyPatch.context() as patch:
        if serve is not None:
            command = serve.open_decoding()._command
            patch.setattr(serve, "open_decoding", lambda: OnDemand(command))
            patch.setattr(serve, "open_silero", functools.cache(serve.open_silero))
        yield
