"""Virtual time is the default; ``real_time`` marks tests that open sockets, threads or
child processes.
"""

import asyncio
import functools
import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from voicechat.config.server_sections import AdmissionConfig
from voicechat.processes.forked import ForkedStream, ForkServer
from voicechat.server.load_signals import LoadLimits
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


PROCESSES = 3
"""One more than the cores of a small machine: browsers and servers are waited for."""
TOGETHER = ("tests/web_demo/", "tests/tasks/")
"""Folders whose files share a browser or a database server: one process runs them."""
FIRST = (*TOGETHER, "tests/server/workers/", "tests/windows/", "tests/session/promises/")
"""What takes longest. The short files after it keep all processes busy to the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the suite out among processes; a part of it that is named runs in this one.

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
        options.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Share out file by file, but for the folders that are run together."""
    if config.option.dist != "loadfile":
        return None

    def split_scope(nodeid: str) -> str:
        folder = next((folder for folder in TOGETHER if nodeid.startswith(folder)), "")
        return folder or nodeid.split("::", 1)[0]

    scheduling = importlib.import_module("xdist.scheduler").LoadFileScheduling(config, log)
    scheduling._split_scope = split_scope
    return scheduling


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""

    def rank(item: pytest.Item) -> int:
        places = (place for place, folder in enumerate(FIRST) if item.nodeid.startswith(folder))
        return next(places, len(FIRST))

    items.sort(key=rank)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays until the end: with it, a full collection
    takes a quarter of a second.
    """
    freeze_all()


def freeze_all() -> None:
    gc.collect()
    gc.freeze()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("real_time"):
        return {"real": asyncio.SelectorEventLoop}
    return {"virtual": VirtualTimeLoop}


@pytest.fixture
def objects_are_frozen_again() -> Iterator[None]:
    """For a test that freezes objects, or has them thawed."""
    yield
    gc.unfreeze()
    freeze_all()


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
def _no_models_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep models that the user has pulled out of configurations without any."""
    folder = str(tmp_path_factory.mktemp("data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("platformdirs.user_data_dir", lambda *_names, **_options: folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def _servers_start_quickly_and_admit_everybody() -> Iterator[None]:
    """Let the servers that run in the tests' own process decode on demand, read the
    voice model once for all, and refuse nobody because the machine is busy with
    something else. A configuration that says who is admitted is kept. The package's
    client waits for a busy server.
    """
    serve = sys.modules.get("voicechat.server.serve")
    client = sys.modules.get("voicechat.client.connection")
    with pytest.MonkeyPatch.context() as patch:
        if client is not None:
            patch.setattr(client, "OPEN_TIMEOUT_S", 120.0)
        if serve is not None:
            load_limits = serve.load_limits

            def generous(config: AdmissionConfig) -> LoadLimits:
                limits: LoadLimits = load_limits(config)
                if config.model_fields_set:
                    return limits
                return replace(limits, unquestioned_sessions=1_000_000)

            patch.setattr(serve, "load_limits", generous)
            command = serve.open_decoding()._command
            patch.setattr(serve, "open_decoding", lambda: OnDemand(command))
            patch.setattr(serve, "open_silero", functools.cache(serve.open_silero))
        yield
