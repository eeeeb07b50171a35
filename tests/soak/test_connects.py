"""The short form of the soak; the long one is ``python -m tools.soak.connects``."""

import logging

import pytest

from tools.soak.connects import FLAT_OBJECTS, ROUND, growth, soak

pytestmark = [pytest.mark.real_time, pytest.mark.long]


@pytest.mark.parametrize("embedded", [False, True], ids=["scripted", "embedded"])
async def test_clients_that_come_and_go_in_every_state_leave_nothing_behind(
    embedded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest keeps every log record until the test's end, and with it the frames of its
    # traceback.
    monkeypatch.setattr(logging.getLogger("voicechat"), "propagate", False)
    remembered = await soak(4 * ROUND, embedded=embedded, tell=print)
    _, grown_objects = growth(remembered, 4 * ROUND)
    assert grown_objects < FLAT_OBJECTS
