"""Where a ramp ends, and what is told of it."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from voicechat.bench.conversations import ConversationFigures, Workload
from voicechat.bench.figures import Spread
from voicechat.bench.ramp import SIZES, Ramp, RampStep, bench_ramp
from voicechat.bench.ramp_page import page_of, row_of
from voicechat.bench.server import Cores

WORK = Workload(sessions=100, seconds=1, output="PCM_16000HZ_MONO_16BIT")


def all_at(ms: float) -> Spread:
    return Spread(9, ms, ms, ms)


GOOD = ConversationFigures(
    workload=WORK,
    cores=Cores(0, 1),
    turns=9,
    overhead=all_at(3),
    stages={},
    first_audio=all_at(4),
    script_late=all_at(1),
    wait=None,
    late_audio=all_at(0),
    interruption=all_at(1),
    stale=0,
    lost=0,
    late=0,
    cpu_s_per_session_minute=0.3,
    mib_per_session=0.5,
    idle_mib=90,
    collector_pauses=0,
    longest_pause_ms=0,
    client_lag=all_at(1),
    others_cores=1,
)
LAGGED = replace(GOOD, client_lag=all_at(6))


async def ramped(
    found: dict[int, list[ConversationFigures]], work: Workload = WORK
) -> tuple[Ramp, list[int]]:
    """A ramp that finds what is listed for a size, in order, and else that all is
    well.
    """
    tried: list[int] = []
    told: list[RampStep] = []

    async def measure(size: Workload) -> ConversationFigures:
        tried.append(size.sessions)
        listed = found.get(size.sessions)
        return replace(listed.pop(0) if listed else GOOD, workload=size)

    ramp = await bench_ramp(work, measure, told.append)
    assert tuple(told) == ramp.steps
    return ramp, tried


async def test_a_ramp_goes_as_far_as_was_asked_for() -> None:
    ramp, tried = await ramped({}, replace(WORK, sessions=60))
    assert tried == [size for size in SIZES if size < 60] + [60]
    assert (ramp.holds, ramp.ended) == (60, "60 sessions are the most that were asked for")


@pytest.mark.parametrize(
    ("broken", "verdict"),
    [
        (replace(GOOD, overhead=Spread(9, 3, 50.1, 60)), "overhead p99 over 50 ms"),
        (replace(GOOD, late_audio=Spread(9, 0, 20.1, 30)), "audio late by over 20 ms (p99)"),
        (replace(GOOD, lost=1), "1 turns lost"),
        (replace(GOOD, stale=2), "2 stale messages"),
        (replace(GOOD, turns=0, overhead=None), "no turn was answered"),
    ],
)
async def test_a_ramp_ends_where_the_figures_break(
    broken: ConversationFigures, verdict: str
) -> None:
    ramp, tried = await ramped({20: [broken]})
    assert tried == [1, 5, 10, 20]
    assert (ramp.holds, ramp.ended) == (10, f"20 sessions are too many: {verdict}")


async def test_figures_at_the_bound_hold() -> None:
    ramp, _ = await ramped(
        {20: [replace(GOOD, overhead=all_at(50), late_audio=all_at(20), client_lag=all_at(5))]}
    )
    assert ramp.holds == 100


async def test_a_step_whose_clients_lagged_is_tried_again_and_proves_nothing() -> None:
    broken_and_void = replace(LAGGED, lost=3)
    ramp, tried = await ramped({5: [broken_and_void], 20: [LAGGED, LAGGED]})
    assert tried[:6] == [1, 5, 5, 10, 20, 20]
    assert ramp.holds == 100
    ramp, tried = await ramped({20: [LAGGED, LAGGED], 35: [LAGGED, LAGGED]})
    assert tried == [1, 5, 10, 20, 20, 35, 35]
    assert ramp.holds == 10
    assert "the server may hold more" in ramp.ended


async def test_the_page_needs_nothing_and_shows_every_step() -> None:
    ramp, _ = await ramped({5: [LAGGED], 20: [replace(GOOD, overhead=Spread(9, 40, 80, 90))]})
    page = page_of(ramp)
    assert "voicechat holds 10 conversations here" in page
    assert "http" not in page
    assert "src=" not in page
    assert page.count("<tr class=") == len(ramp.steps) == 5
    assert page.count('<tr class="void">') == page.count('<tr class="broken">') == 1
    for step in ramp.steps:
        assert "".join(f"<td>{cell}</td>" for cell in row_of(step)) in page
    charts = [
        ElementTree.fromstring(f"<svg{each.split('</svg>')[0]}</svg>")
        for each in page.split("<svg")[1:]
    ]
    # Both percentiles of the overhead, then one line each; the void step is in none.
    assert [len(chart.findall("circle")) for chart in charts] == [8, 4, 4]


async def test_the_page_does_without_what_this_system_does_not_tell() -> None:
    unknown = replace(
        GOOD, cpu_s_per_session_minute=None, mib_per_session=None, overhead=None, wait=all_at(600)
    )
    ramp, _ = await ramped({1: [unknown]}, replace(WORK, sessions=1))
    assert ramp.holds == 1
    assert page_of(ramp).count("<svg") == 1
    assert row_of(ramp.steps[0])[2:4] == ("-", "-")
