"""Virtual time is the default; ``real_time`` marks tests that open sockets, threads or child processes."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from voicechat.testing.virtual_time import VirtualTimeLoop

# A machine that is busy with something else is no fault of a test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ROOT = Path(__file__).parent.parent


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
