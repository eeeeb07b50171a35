"""Prometheus metrics. They are in seconds, as Prometheus recommends; the code has
milliseconds.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeAlias, assert_never

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from voicechat.runtime.consulting.search_ahead import KnowledgeConsulted
from voicechat.runtime.guarded_store import StoreCalled
from voicechat.runtime.services import Services
from voicechat.runtime.speech_cache import CachingSynthesizer
from voicechat.server.gc_tuning import GcPauses, measuring_gc_pauses
from voicechat.server.load_signals import LoadLevel
from voicechat.server.metric_events import MetricEvent, SessionRefused
from voicechat.server.service_metrics import ServiceMetrics
from voicechat.session.effects import (
    PreemptiveReplyEnded,
    SessionClosed,
    StaleDropped,
    ToolEnded,
    TurnEnded,
    TurnTimed,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LAG_PERIOD_S = 0.02
LAG_WINDOW = 500
"""The lag gauges are the maximum of this many measurements: 10 s, about a scrape
interval.
"""
TEXT_SHARE = 0.02
"""Largest part of the event loop's time that writing the metrics may take, however
often they are scraped.
"""
CLIENT = "(client)"
"""The label of all client-side tools: clients choose their names, which would make
unbounded labels.
"""

Counts: TypeAlias = Callable[[], Mapping[int, int]]
"""Returns a number for each worker."""

_LATENCY_BUCKETS_S = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.2,
    0.3,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
    10.0,
)


class Metrics:
    """The metrics of one server, in a registry of its own so that two servers in one
    process do not collide.
    """

    def __init__(
        self, services: Services | None = None, shared: Path | None = None, worker: int = 0
    ) -> None:
        """``services``: the services whose failures and speech caches are exported.

        ``shared``: the folder where the workers of a server keep their metrics; None
        with one process. ``PROMETHEUS_MULTIPROC_DIR`` must have named it when this
        process was started.
        """
        registry = self.registry = CollectorRegistry()
        self._shared, self._worker = shared, worker
        self._written = b""
        self._text_until_s = 0.0
        """Loop time until which the cached text is served."""
        # Metrics that are computed on a scrape, by the worker that serves it.
        self._asked = CollectorRegistry() if shared else registry
        if shared is None:
            ProcessCollector(registry=registry)
        if services is not None:
            self._register(ServiceMetrics(services))
            self.follow_speech_caches({link.name: link.provider for link in services.links})
        self._sessions = Gauge("voicechat_sessions", "Sessions that are open", registry=self._asked)
        self._turns = Counter(
            "voicechat_turns", "Turns by how they ended", ["outcome"], registry=registry
        )
        self._late = Counter(
            "voicechat_late_dropped", "Late results dropped", ["kind"], registry=registry
        )
        self._closed = Counter(
            "voicechat_closed", "Sessions that the server closed", ["reason"], registry=registry
        )
        self._refused = Counter(
            "voicechat_refused", "Clients not admitted", ["status"], registry=registry
        )
        self._early = Counter(
            "voicechat_early_replies", "Replies begun early", ["fate"], registry=registry
        )
        self._early_saved = Counter(
            "voicechat_early_saved_seconds", "Time that early replies saved", registry=registry
        )
        self._consulted = Counter(
            "voicechat_knowledge_searches",
            "Replies that asked for what is known, by what they got in time",
            ["outcome"],
            registry=registry,
        )
        self._consulting = Histogram(
            "voicechat_knowledge_wait_seconds",
            "How long replies waited for their knowledge search",
            buckets=(0.001, *_LATENCY_BUCKETS_S),
            registry=registry,
        )
        self._omitted = Counter(
            "voicechat_knowledge_omissions",
            "Halves of knowledge searches (words, vectors) that were left out",
            ["half", "reason"],
            registry=registry,
        )
        self._store_calls = Counter(
            "voicechat_resumption_store_calls",
            "Operations of the store of conversations that can be resumed, by how they ended",
            ["operation", "outcome"],
            registry=registry,
        )
        self._store_took = Histogram(
            "voicechat_resumption_store_seconds",
            "How long operations of that store took",
            buckets=(0.001, *_LATENCY_BUCKETS_S),
            registry=registry,
        )
        about = "Tool calls by the configured tool, or the client, and how they ended"
        self._tools = Counter("voicechat_tool_calls", about, ["tool", "outcome"], registry=registry)
        took = "From a tool call to its answer"
        self._tool_took = Histogram(
            "voicechat_tool_seconds", took, ["tool"], buckets=_LATENCY_BUCKETS_S, registry=registry
        )
        self._lag = Gauge(
            "voicechat_loop_lag_seconds",
            "Worst event loop lag of the last 10 s",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._computed_lag = Gauge(
            "voicechat_loop_lag_computing_seconds",
            "Worst event loop lag of the last 10 s for which the loop itself can have computed",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._pressure = Gauge(
            "voicechat_pressure",
            "0: none, 1: replies are not begun early, 2: newcomers are refused",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._load = Gauge(
            "voicechat_load",
            "The highest of the admission's measurements, as a part of its refuse threshold",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._busy = Counter(
            "voicechat_refused_busy",
            "Clients refused under pressure",
            ["figure"],
            registry=registry,
        )
        self._transcript = self._latency("transcript", "last recognition result")
        self._first_text = self._latency("first_text", "first piece of text")
        self._first_audio = self._latency("first_audio", "first piece of audio")
        about = (
            "Part of the wait from the user's last sound to the first audio sent, by what ended it"
        )
        self._stages = Histogram(
            "voicechat_turn_stage_seconds",
            about,
            ["stage"],
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        about = (
            "From the user's last sound to the first audio sent: "
            "the sum of voicechat_turn_stage_seconds"
        )
        self._turn = Histogram(
            "voicechat_turn_seconds", about, buckets=_LATENCY_BUCKETS_S, registry=registry
        )

    def _register(self, collector: Collector) -> Collector:
        """Export ``collector``; with several workers under this worker's label."""
        exported = collector if self._shared is None else _OfWorker(collector, self._worker)
        self._asked.register(exported)
        return exported

    def _latency(self, name: str, meaning: str) -> Histogram:
        about = f"From the user's complete to the {meaning}"
        return Histogram(
            f"voicechat_{name}_seconds", about, buckets=_LATENCY_BUCKETS_S, registry=self.registry
        )

    def follow_sessions(self, count: Callable[[], int]) -> None:
        """Export the return value of ``count`` as the number of open sessions."""
        self._sessions.set_function(count)

    def follow_speech_caches(self, services: Mapping[str, object]) -> None:
        """Export hits, misses and size of every service's speech cache."""
        caches = {
            name: each for name, each in services.items() if isinstance(each, CachingSynthesizer)
        }
        self._register(_ShownCaches(caches))

    def follow_workers(self, processes: Counts, sessions: Counts) -> None:
        """With several workers, export the sessions and the resources of each;
        ``processes`` returns their process ids.
        """
        if self._shared is not None:
            self._asked.register(_Workers(processes, sessions))

    def set_load_level(self, level: LoadLevel) -> None:
        """Export the load level; with several workers the highest one is shown."""
        self._pressure.set(level)

    def set_load(self, load: float) -> None:
        """Export the load; with several workers the highest one is shown."""
        self._load.set(load)

    def count_load_refusal(self, figure: str) -> None:
        """Count a client that was refused because of the signal ``figure``."""
        self._busy.labels(figure).inc()

    def observe(self, fact: MetricEvent) -> None:
        """Count a metric event."""
        match fact:
            case TurnEnded(outcome, transcript_ms, first_text_ms, first_audio_ms):
                self._turns.labels(outcome.value).inc()
                _observe_ms(self._transcript, transcript_ms)
                _observe_ms(self._first_text, first_text_ms)
                _observe_ms(self._first_audio, first_audio_ms)
            case TurnTimed(breakdown):
                self._turn.observe(breakdown.total_ms / 1000)
                for stage, length_ms in breakdown.stages_ms.items():
                    self._stages.labels(stage.value).observe(length_ms / 1000)
            case StaleDropped(kind):
                self._late.labels(kind.value).inc()
            case SessionClosed(ending):
                self._closed.labels(ending.name.lower()).inc()
            case StoreCalled(operation, outcome, took_s):
                self._store_calls.labels(operation, outcome).inc()
                self._store_took.observe(took_s)
            case SessionRefused(status):
                self._refused.labels(str(int(status))).inc()
            case PreemptiveReplyEnded(used, saved_ms):  # preemptive generation
                self._early.labels("used" if used else "wasted").inc()
                self._early_saved.inc(saved_ms / 1000)
            case ToolEnded(tool, outcome, took_ms):
                self._tools.labels(tool or CLIENT, outcome.value).inc()
                self._tool_took.labels(tool or CLIENT).observe(took_ms / 1000)
            case KnowledgeConsulted(outcome, waited_s):
                self._consulted.labels(outcome.value).inc()
                self._consulting.observe(waited_s)
            case _:
                assert_never(fact)

    def count_omission(self, half: str, reason: str) -> None:
        """Count a half of a knowledge search that was left out; see ``Retriever``."""
        self._omitted.labels(half, reason).inc()

    def count_usage(self, used: Mapping[str, int], lost_entries: int) -> None:
        """Count what an ended session has used, by the names of ``Used``, and entries
        of records that were lost since the last call.
        """
        for name, count in used.items():
            self._used.labels(name).inc(count)
        self._unrecorded.inc(lost_entries)

    @cached_property
    def _used(self) -> Counter:
        about = "What ended sessions have used: milliseconds, tokens, characters"
        return Counter("voicechat_session_usage", about, ["of"], registry=self.registry)

    @cached_property
    def _unrecorded(self) -> Counter:
        about = "Entries of records that could not be written in time"
        return Counter("voicechat_record_entries_lost", about, registry=self.registry)

    @contextmanager
    def measuring_collector(self) -> Iterator[None]:
        """Export the pauses of Python's garbage collector while the context lasts."""
        with measuring_gc_pauses() as pauses:
            shown = self._register(_ShownPauses(pauses))
            try:
                yield
            finally:
                self._asked.unregister(shown)

    @contextmanager
    def measuring_loop_lag(self, cpu_s: Callable[[], float] = time.thread_time) -> Iterator[None]:
        """Measure how late the running event loop calls a timer, while the context
        lasts, and how much of that it can have computed itself. The rest of the lag is
        the wait for a core. ``cpu_s``: the thread's CPU time.
        """
        loop = asyncio.get_running_loop()
        lags_s: deque[float] = deque(maxlen=LAG_WINDOW)
        computed_s: deque[float] = deque(maxlen=LAG_WINDOW)
        timer: asyncio.TimerHandle

        def called(due_s: float, cpu_before_s: float) -> None:
            lag_s, cpu_now_s = max(0.0, loop.time() - due_s), cpu_s()
            lags_s.append(lag_s)
            computed_s.append(min(lag_s, cpu_now_s - cpu_before_s))
            self._lag.set(max(lags_s))
            self._computed_lag.set(max(computed_s))
            call_next(cpu_now_s)

        def call_next(cpu_now_s: float) -> None:
            nonlocal timer
            due_s = loop.time() + LAG_PERIOD_S
            timer = loop.call_at(due_s, called, due_s, cpu_now_s)

        call_next(cpu_s())
        try:
            yield
        finally:
            timer.cancel()

    def routes(self, require: Callable[[web.Request], None] = lambda _: None) -> list[web.RouteDef]:
        """Return the route ``/metrics``. ``require`` raises AdmissionError for requests
        that may not see it.
        """

        async def scrape(request: web.Request) -> web.Response:
            require(request)
            return web.Response(body=self.text(), headers={"Content-Type": CONTENT_TYPE})

        return [web.get("/metrics", scrape)]

    def text(self) -> bytes:
        """Return all metrics as text.

        The text is cached so that writing it takes at most ``TEXT_SHARE`` of the event
        loop's time.
        """
        begun_s = _now_s()
        if begun_s >= self._text_until_s:
            self._written = self._write()
            ended_s = _now_s()
            self._text_until_s = ended_s + (ended_s - begun_s) / TEXT_SHARE
        return self._written

    def _write(self) -> bytes:
        body = generate_latest(self._asked)
        if self._shared is not None:
            counted = CollectorRegistry()
            MultiProcessCollector(counted, str(self._shared))  # type: ignore[no-untyped-call]
            body += generate_latest(counted)
        return body


class _OfWorker(Collector):
    """Adds the worker's number as a label to another collector, which knows only its
    own process.
    """

    def __init__(self, collector: Collector, worker: int) -> None:
        self._collector = collector
        self._worker = str(worker)

    def collect(self) -> Iterable[Metric]:
        """Yield the collector's metrics with the label added."""
        for metric in self._collector.collect():
            labelled = Metric(metric.name, metric.documentation, metric.type)
            for sample in metric.samples:
                labelled.add_sample(
                    sample.name, {**sample.labels, "worker": self._worker}, sample.value
                )
            yield labelled


class _Workers(Collector):
    """Sessions and resources of all workers, labelled with their numbers."""

    def __init__(self, processes: Counts, sessions: Counts) -> None:
        self._processes = processes
        self._sessions = sessions

    def collect(self) -> Iterable[Metric]:
        """Read them from the ledger, and from ``/proc`` where there is one."""
        sessions = Metric("voicechat_worker_sessions", "Sessions that a worker has open", "gauge")
        for worker, count in self._sessions().items():
            sessions.add_sample(sessions.name, {"worker": str(worker)}, count)
        together = {sessions.name: sessions}
        for worker, pid in self._processes().items():
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                known = together.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type)
                )
                for sample in metric.samples:
                    known.add_sample(sample.name, {"worker": str(worker)}, sample.value)
        return together.values()


class _ShownCaches(Collector):
    def __init__(self, caches: Mapping[str, CachingSynthesizer]) -> None:
        self._caches = caches

    def collect(self) -> Iterator[Metric]:
        """Yield hits, misses and bytes of each cache."""
        about = "Short texts to be spoken, by whether their speech was known"
        asked = CounterMetricFamily("voicechat_speech_cache", about, labels=["service", "result"])
        held = GaugeMetricFamily(
            "voicechat_speech_cache_bytes", "Speech that is kept", labels=["service"]
        )
        for name, cache in self._caches.items():
            asked.add_metric([name, "hit"], cache.hits)
            asked.add_metric([name, "miss"], cache.misses)
            held.add_metric([name], cache.held_bytes)
        yield asked
        yield held


class _ShownPauses(Collector):
    """Computed on a scrape: a collection may start anywhere, so counting it must not
    take a metric's lock.
    """

    def __init__(self, pauses: GcPauses) -> None:
        self._pauses = pauses

    def collect(self) -> Iterator[Metric]:
        """Yield the number, the total and the maximum of the pauses."""
        pauses = self._pauses
        name, about = "voicechat_collector_pause_seconds", "Pauses of Python's garbage collector"
        yield SummaryMetricFamily(name, about, pauses.pauses, pauses.total_us / 1e6)
        yield GaugeMetricFamily(
            f"{name}_max", f"{about}: the longest since the start", pauses.longest_us / 1e6
        )


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _observe_ms(histogram: Histogram, value_ms: int | None) -> None:
    if value_ms is not None:
        histogram.observe(value_ms / 1000)
