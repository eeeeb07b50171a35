"""The metrics of service chains: labelled with the configuration's names, without any
content.
"""

from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from voicechat.runtime.fallback.circuit_breaker import CircuitState
from voicechat.runtime.services import Services


class ServiceMetrics(Collector):
    """Reads the counts on each scrape."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples."""
        return self._families()

    def collect(self) -> Iterator[Metric]:
        """Yield the families with samples."""
        failures, stood_in, states, waiting, factors = self._families()
        for link in self._services.links:
            for kind, count in link.failures.items():
                failures.add_metric([link.name, kind.value], count)
            waiting.add_metric([link.name], link.waiting_streams)
            if link.real_time_factor:
                factors.add_metric([link.name], link.real_time_factor)
            for state in CircuitState:
                states.add_metric([link.name, state.value], float(link.breaker.state is state))
        for chain in self._services.chains:
            for name, count in chain.stood_in.items():
                stood_in.add_metric([chain.name, name], count)
        yield from (failures, stood_in, states, waiting, factors)

    @staticmethod
    def _families() -> tuple[
        CounterMetricFamily,
        CounterMetricFamily,
        GaugeMetricFamily,
        GaugeMetricFamily,
        GaugeMetricFamily,
    ]:
        return (
            CounterMetricFamily(
                "voicechat_service_failures", "Failures of a service", labels=["service", "kind"]
            ),
            CounterMetricFamily(
                "voicechat_fallbacks",
                "Requests to a service that another one was asked",
                labels=["service", "by"],
            ),
            GaugeMetricFamily(
                "voicechat_service_state",
                "1 for the state that its breaker is in",
                labels=["service", "state"],
            ),
            GaugeMetricFamily(
                "voicechat_service_waiting",
                "Uses of a service that wait for a place",
                labels=["service"],
            ),
            GaugeMetricFamily(
                "voicechat_service_real_time_factor",
                "How long a model on this machine takes for a second of speech, in seconds",
                labels=["service"],
            ),
        )
