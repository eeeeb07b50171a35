from collections.abc import Iterator

import pytest

from voicechat.errors import ConfigError
from voicechat.processes import machine_share as shares
from voicechat.processes.machine_share import MachineShare, machine_share, set_machine_share
from voicechat.providers.pocketsphinx import open_recognizer


@pytest.fixture(autouse=True)
def the_share_is_given_back() -> Iterator[None]:
    before = shares._share
    yield
    shares._share = before


@pytest.mark.parametrize("processes", range(1, 9))
def test_the_shares_add_up_and_differ_by_one_at_most(processes: int) -> None:
    for total in range(40):
        parts = [MachineShare(number, processes).part_of(total) for number in range(processes)]
        assert sum(parts) == total
        assert max(parts) - min(parts) <= 1


def test_alone_a_process_has_everything() -> None:
    assert machine_share().part_of(7) == 7


def decoders(number: int, processes: int, workers: int, streams: int) -> tuple[int, int]:
    set_machine_share(number, processes)
    recognizer = open_recognizer(workers=workers, streams_per_worker=streams)
    (told,) = [word for word in recognizer.pool._command if word.startswith("--streams=")]
    assert recognizer.pool._workers[0] is None
    return len(recognizer.pool._workers), int(told.removeprefix("--streams="))


def test_the_decoders_of_a_machine_do_not_multiply_with_the_workers() -> None:
    assert [decoders(number, 2, workers=4, streams=4) for number in range(2)] == [(2, 4), (2, 4)]
    assert [decoders(number, 3, workers=4, streams=4) for number in range(3)] == [
        (2, 4),
        (1, 4),
        (1, 4),
    ]
    assert [decoders(number, 4, workers=2, streams=3) for number in range(4)] == [
        (1, 2),
        (1, 2),
        (1, 1),
        (1, 1),
    ]


def test_fewer_decoders_than_workers_are_told_of() -> None:
    set_machine_share(3, 4)
    with pytest.raises(
        ConfigError,
        match=r"1 with streams_per_worker = 3 are 3 decoders.*4 processes.*server\.workers",
    ):
        open_recognizer(workers=1, streams_per_worker=3)
