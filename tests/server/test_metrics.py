import asyncio
from typing import get_args

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from voicechat.errors import Status
from voicechat.providers.interfaces import VoiceOptions
from voicechat.runtime.consulting.search_ahead import KnowledgeConsulted, SearchOutcome
from voicechat.runtime.guarded_store import StoreCalled
from voicechat.runtime.speech_cache import CachingSynthesizer
from voicechat.server.app import build_app
from voicechat.server.metric_events import MetricEvent, SessionRefused
from voicechat.server.metrics import CLIENT, LAG_PERIOD_S, LAG_WINDOW, Metrics
from voicechat.session.effects import (
    PreemptiveReplyEnded,
    SessionClosed,
    StaleDropped,
    StaleKind,
    ToolEnded,
    TurnEnded,
    TurnTimed,
)
from voicechat.session.latency_breakdown import Stage, break_down_latency
from voicechat.session.notices import Ending, Outcome
from voicechat.session.types import ToolOutcome
from voicechat.testing.scripted import ScriptedSynthesizer
from voicechat.testing.virtual_time import VirtualTimeLoop


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_turn_is_counted_by_its_outcome_and_timed_as_far_as_it_came() -> None:
    metrics = Metrics()
    metrics.observe(
        TurnEnded(Outcome.SPOKEN, transcript_ms=40, first_text_ms=200, first_audio_ms=350)
    )
    metrics.observe(
        TurnEnded(Outcome.CANCELED, transcript_ms=60, first_text_ms=None, first_audio_ms=None)
    )
    assert value(metrics, "voicechat_turns_total", outcome="spoken") == 1
    assert value(metrics, "voicechat_turns_total", outcome="canceled") == 1
    assert value(metrics, "voicechat_transcript_seconds_sum") == pytest.approx(0.1)
    assert value(metrics, "voicechat_first_text_seconds_count") == 1
    assert value(metrics, "voicechat_first_audio_seconds_bucket", le="0.3") == 0
    assert value(metrics, "voicechat_first_audio_seconds_bucket", le="0.5") == 1


def test_every_fact_is_counted() -> None:
    facts: list[MetricEvent] = [
        StaleDropped(StaleKind.REPLY),
        StaleDropped(StaleKind.STREAM),
        *(TurnEnded(outcome, None, None, None) for outcome in Outcome),
        PreemptiveReplyEnded(used=True, saved_ms=250),
        PreemptiveReplyEnded(used=False, saved_ms=0),
        TurnTimed(break_down_latency(0, {Stage.DECISION: 200, Stage.FIRST_SENT: 450})),
        SessionClosed(Ending.NOT_READING),
        SessionRefused(Status.AT_CAPACITY),
        ToolEnded("weather", ToolOutcome.TIMEOUT, took_ms=10_000),
        ToolEnded("", ToolOutcome.ANSWERED, took_ms=250),
        KnowledgeConsulted(SearchOutcome.LATE, waited_s=0.15),
        StoreCalled("save", "late", took_s=0.5),
    ]
    assert {type(fact) for fact in facts} == set(get_args(MetricEvent))
    metrics = Metrics()
    for fact in facts:
        metrics.observe(fact)
    assert value(metrics, "voicechat_late_dropped_total", kind="reply") == 1
    assert value(metrics, "voicechat_late_dropped_total", kind="stream") == 1
    assert value(metrics, "voicechat_early_replies_total", fate="used") == 1
    assert value(metrics, "voicechat_early_replies_total", fate="wasted") == 1
    assert value(metrics, "voicechat_early_saved_seconds_total") == pytest.approx(0.25)
    assert value(metrics, "voicechat_turn_seconds_sum") == pytest.approx(0.45)
    assert value(metrics, "voicechat_turn_stage_seconds_sum", stage="decision") == pytest.approx(
        0.2
    )
    assert value(metrics, "voicechat_turn_stage_seconds_sum", stage="first_sent") == pytest.approx(
        0.25
    )
    assert value(metrics, "voicechat_closed_total", reason="not_reading") == 1
    assert value(metrics, "voicechat_refused_total", status="50301") == 1
    assert value(metrics, "voicechat_knowledge_searches_total", outcome="late") == 1
    assert value(metrics, "voicechat_knowledge_wait_seconds_sum") == pytest.approx(0.15)
    saved_late = {"operation": "save", "outcome": "late"}
    assert value(metrics, "voicechat_resumption_store_calls_total", **saved_late) == 1
    assert value(metrics, "voicechat_resumption_store_seconds_sum") == pytest.approx(0.5)
    assert value(metrics, "voicechat_tool_calls_total", tool="weather", outcome="timeout") == 1
    assert value(metrics, "voicechat_tool_calls_total", tool=CLIENT, outcome="answered") == 1
    assert value(metrics, "voicechat_tool_seconds_sum", tool=CLIENT) == pytest.approx(0.25)
    assert all(
        value(metrics, "voicechat_turns_total", outcome=outcome.value) == 1 for outcome in Outcome
    )


def test_open_sessions_are_asked_for_when_somebody_looks() -> None:
    metrics, sessions = Metrics(), [1, 2]
    metrics.follow_sessions(lambda: len(sessions))
    assert value(metrics, "voicechat_sessions") == 2
    sessions.clear()
    assert value(metrics, "voicechat_sessions") == 0


async def test_the_lag_is_the_worst_of_the_window_and_is_forgotten_after_it() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    metrics = Metrics()
    cpu_s = 5.0

    def lags() -> list[object]:
        lag_s = value(metrics, "voicechat_loop_lag_seconds")
        return [lag_s, value(metrics, "voicechat_loop_lag_computing_seconds")]

    with metrics.measuring_loop_lag(lambda: cpu_s):
        await asyncio.sleep(10 * LAG_PERIOD_S)
        assert lags() == [0, 0]
        cpu_s += 0.3  # Computed in time: not late.
        await asyncio.sleep(10 * LAG_PERIOD_S)
        assert lags() == [0, 0]
        loop._jumping.now_s += 0.7  # What a computation on the event loop's thread does.
        cpu_s += 0.2  # For the other 0.5 s it had no core.
        await asyncio.sleep(LAG_PERIOD_S)
        late_s = pytest.approx(0.7 - LAG_PERIOD_S, abs=LAG_PERIOD_S)
        assert lags() == [late_s, pytest.approx(0.2)]
        loop._jumping.now_s += 0.3
        cpu_s += 0.9  # Also before the timer was due.
        await asyncio.sleep(LAG_PERIOD_S)
        assert lags() == [late_s, pytest.approx(0.3 - LAG_PERIOD_S, abs=LAG_PERIOD_S)]
        await asyncio.sleep((LAG_WINDOW + 2) * LAG_PERIOD_S)
        assert lags() == [0, 0]
    loop._jumping.now_s += 0.7
    await asyncio.sleep(LAG_PERIOD_S)
    assert lags() == [0, 0]  # Nobody measures any more.


@pytest.mark.real_time
async def test_a_scraper_gets_the_text_form() -> None:
    metrics = Metrics()
    metrics.follow_sessions(lambda: 3)
    async with (
        TestServer(build_app(metrics.routes()), host="127.0.0.1") as server,
        ClientSession() as session,
        session.get(server.make_url("/metrics")) as response,
    ):
        text = await response.text()
    assert response.content_type == "text/plain"
    assert "voicechat_sessions 3.0" in text


async def test_however_often_they_are_asked_for_they_cost_a_fiftieth_of_the_time_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics = Metrics()
    sessions = iter(range(10))
    metrics.follow_sessions(lambda: next(sessions))
    # Asked at 0 and written by 1 ms; at 10 ms; at 60 ms and written by 62 ms.
    times_s = iter([0.0, 0.001, 0.010, 0.060, 0.062])
    monkeypatch.setattr("voicechat.server.metrics._now_s", lambda: next(times_s))
    told = [metrics.text() for _ in range(3)]
    assert [
        b"voicechat_sessions %d.0" % count in text
        for count, text in zip((0, 0, 1), told, strict=True)
    ] == [True] * 3


async def test_a_speech_cache_shows_whether_it_is_of_use() -> None:
    metrics = Metrics()
    cache = CachingSynthesizer(ScriptedSynthesizer(), 1_000_000)
    metrics.follow_speech_caches({"default": cache, "other": ScriptedSynthesizer()})
    for _ in range(5):
        assert [chunk async for chunk in cache.synthesize("Hello.", VoiceOptions())]
    assert value(metrics, "voicechat_speech_cache_total", service="default", result="hit") == 3
    assert value(metrics, "voicechat_speech_cache_total", service="default", result="miss") == 2
    assert value(metrics, "voicechat_speech_cache_bytes", service="default") == 6 * 50 * 32
    assert value(metrics, "voicechat_speech_cache_bytes", service="other") is None
