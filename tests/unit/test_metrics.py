"""Metrics are one list, the page has all of it, and what is counted is shown as Prometheus reads it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deltalakedb.health import ServiceHealth
from deltalakedb.metrics import COMMIT_LATENCY, DECISIONS, METRICS, MIRROR_LAG_SECONDS, POSITION, SERVICES, Kind
from deltalakedb.monitoring import Monitor
from tests.http import get

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text("utf-8")


def test_the_page_is_the_list() -> None:
    """Names, kinds, units, labels and meanings of the page are those of the code, in its order."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `deltalakedb_")]

    assert rows == [
        f"| `{m.name}` | {m.kind} | {m.unit} | {', '.join(f'`{label}`' for label in m.labels) or '-'} | {m.meaning} |"
        for m in METRICS
    ]


def test_names_follow_prometheus() -> None:
    """Counters end in _total, nothing else does; seconds are named; every histogram has buckets; no label may grow."""
    for metric in METRICS:
        assert re.fullmatch(r"deltalakedb_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.name.endswith("_seconds") == (metric.unit == "seconds")
        assert bool(metric.bounds) == (metric.kind is Kind.HISTOGRAM)
        assert set(metric.labels) <= {"state", "halted", "reason", "target"}


@pytest.mark.parametrize("name", ["alerts.yaml", "dashboard.json"])
def test_alerts_and_dashboard_ask_for_what_there_is(name: str) -> None:
    """Every metric that they name is one of the list, with labels that it has; the dashboard leaves few out."""
    text = (ROOT / "compose" / "monitoring" / name).read_text("utf-8")
    known = {metric.name for metric in METRICS}
    named = {re.sub("_bucket$", "", found) for found in re.findall(r"deltalakedb_[a-z_]+", text)}
    labels = set(re.findall(r"by \(([^)]*)\)", text))

    assert named <= known
    assert {label.strip() for some in labels for label in some.split(",")} <= {
        *("lake", "le", "instance"),
        *(label for metric in METRICS for label in metric.labels),
    }
    if name == "dashboard.json":
        assert {metric.name for metric in METRICS} - named <= {
            "deltalakedb_position",
            "deltalakedb_commit_seq",
            "deltalakedb_mirror_step_seconds",
        }


def test_every_alert_leads_to_a_page() -> None:
    """To a heading that is there."""
    text = (ROOT / "compose" / "monitoring" / "alerts.yaml").read_text("utf-8")
    pages = re.findall(r"runbook: (\S+)$", text, re.M)

    assert len(pages) == text.count("- alert: ")
    for page in pages:
        path, _, wanted = page.partition("#")
        headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text("utf-8"), re.M)
        assert not wanted or wanted in {
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
        }


@pytest.mark.parametrize("service", SERVICES)
def test_what_was_counted_is_shown(service: str) -> None:
    """A service shows every metric of its own and none of another's, by lake, with the numbers that were counted."""
    health = ServiceHealth(service)
    count = health.of("lake").measurements
    count.add(DECISIONS, 3, "COMMITTED")
    count.add(DECISIONS, 2, "COMMITTED")
    count.set(POSITION, 17)
    count.set(MIRROR_LAG_SECONDS, 1.5, "in-place")
    count.observe(COMMIT_LATENCY, [0.0005, 0.03, 1000])

    with Monitor(health, "127.0.0.1:0") as monitor:
        status, body = get(monitor.port, "/metrics")

    families = {family.name: family for family in text_string_to_metric_families(body)}
    names = {name.removesuffix("_total") for name in families if not name.startswith("deltalakedb_process")}
    assert status == 200
    assert names == {"deltalakedb_build_info"} | {metric.name.removesuffix("_total") for metric in SERVICES[service]}
    shown = {
        (sample.name, *sample.labels.values()): sample.value for each in families.values() for sample in each.samples
    }
    if service == "committer":
        assert shown["deltalakedb_decisions_total", "lake", "COMMITTED"] == 5
        assert shown["deltalakedb_position", "lake"] == 17
        assert shown["deltalakedb_commit_latency_seconds_bucket", "lake", "0.001"] == 1
        assert shown["deltalakedb_commit_latency_seconds_bucket", "lake", "0.05"] == 2
        assert shown["deltalakedb_commit_latency_seconds_bucket", "lake", "+Inf"] == 3
        assert shown["deltalakedb_commit_latency_seconds_count", "lake"] == 3
    else:
        assert shown["deltalakedb_mirror_lag_seconds", "lake", "in-place"] == 1.5
