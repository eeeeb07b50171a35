"""Alerts and dashboard use only metrics, labels and values that the server has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from voicechat.runtime.fallback.circuit_breaker import CircuitState
from voicechat.runtime.services import Services
from voicechat.server.metrics import Metrics
from voicechat.session.notices import Ending, Outcome

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "voicechat.json"
METRIC = re.compile(r"\b(?:voicechat|process)_[a-z_]+\b")
MATCHER = re.compile(r'\b([a-z_]+)=~?"([^"]*)"')
VALUES = {
    "outcome": {each.value for each in Outcome},
    "reason": {each.name.lower() for each in Ending},
    "state": {each.value for each in CircuitState},
    "result": {"hit", "miss"},
}
OF_PROMETHEUS = {"job", "instance"}


@pytest.fixture(scope="module")
def known() -> set[str]:
    """The names of the metrics that the server exports, with their suffixes."""
    metrics = Metrics(Services({}, {}, {}))
    with metrics.measuring_collector():
        text = generate_latest(metrics.registry).decode()
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        names.add(name)
        if kind in ("histogram", "summary"):
            names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def expressions() -> Iterator[str]:
    """The expressions of the dashboard, and the alerts as they stand."""
    yield ALERTS.read_text()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_every_metric_exists(known: set[str]) -> None:
    used = {name for each in expressions() for name in METRIC.findall(each)}
    assert len(used) > 25
    assert used <= known, sorted(used - known)


def test_the_autoscaler_uses_a_metric_that_exists(known: set[str]) -> None:
    (name,) = set(METRIC.findall((DEPLOY / "kubernetes" / "autoscaling.yaml").read_text()))
    assert name in known


def test_every_label_has_a_value_that_it_may_have() -> None:
    seen = set()
    for each in expressions():
        for label, values in MATCHER.findall(each):
            if label not in OF_PROMETHEUS:
                seen.add(label)
                assert set(values.split("|")) <= VALUES[label], f"{label}={values}"
    assert seen == set(VALUES)


def test_the_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
