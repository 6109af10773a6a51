"""Every metric of the services, with unit and meaning, and the numbers behind them.

Counting is an addition to a plain number: services count once per batch or step, never per action, and nothing here
knows how metrics are shown (`monitoring` does). No label ever names a version, a transaction or a client.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)


class Kind(StrEnum):
    """What may be done with the numbers of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. A counter's name ends in `_total`; the unit is the last word before that, where there is one."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Of a histogram: upper bounds of its buckets, without infinity."""


STATE = Metric(
    name="deltalakedb_state",
    kind=Kind.GAUGE,
    unit="1 or 0",
    meaning="the state that the service is in; `halted` names the halted state, else it is empty",
    labels=("state", "halted"),
)
READY = Metric(
    name="deltalakedb_ready", kind=Kind.GAUGE, unit="1 or 0", meaning="whether `/ready` says that it does its work"
)
PAUSES = Metric(
    name="deltalakedb_pauses_total",
    kind=Kind.COUNTER,
    unit="pauses",
    meaning="pauses after an error that passes by itself: the store, the log or the object store was away",
)
DECISIONS = Metric(
    name="deltalakedb_decisions_total",
    kind=Kind.COUNTER,
    unit="transactions",
    meaning="transactions decided by this process; `reason` is COMMITTED, or why they were rejected",
    labels=("reason",),
)
CONFLICTS = Metric(
    name="deltalakedb_conflicts_total",
    kind=Kind.COUNTER,
    unit="transactions",
    meaning="those rejected because another one came first: a fresh snapshot and a new transaction may succeed",
)
COMMITS = Metric(
    name="deltalakedb_commits_total", kind=Kind.COUNTER, unit="commits", meaning="commits written by this process"
)
VERSIONS = Metric(
    name="deltalakedb_versions_total",
    kind=Kind.COUNTER,
    unit="versions",
    meaning="versions of all tables written by this process",
)
BATCH_RECORDS = Metric(
    name="deltalakedb_batch_records",
    kind=Kind.HISTOGRAM,
    unit="records",
    meaning="records of the log that one SQL transaction took",
    bounds=_RECORDS,
)
BATCH_SECONDS = Metric(
    name="deltalakedb_batch_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    meaning="from a batch that was read to its COMMIT: loading, deciding, writing",
    bounds=_SECONDS,
)
COMMIT_LATENCY = Metric(
    name="deltalakedb_commit_latency_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    meaning="from a record's append to the log (the log's clock) to the COMMIT that made its decision durable (ours)",
    bounds=_SECONDS,
)
OPEN_SECONDS = Metric(
    name="deltalakedb_transaction_open_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    meaning="from a transaction's beginning at the client (its clock) to the record of the log at which it was decided",
    bounds=_SECONDS,
)
LAG_EVENTS = Metric(
    name="deltalakedb_lag_events",
    kind=Kind.GAUGE,
    unit="records",
    meaning="records on the log behind the committer's position, whoever leads",
)
LAG_SECONDS = Metric(
    name="deltalakedb_lag_seconds",
    kind=Kind.GAUGE,
    unit="seconds",
    meaning="how long there have been such records without one being decided; 0: the position moves, or nothing waits",
)
BACKLOG = Metric(
    name="deltalakedb_outbox_events",
    kind=Kind.GAUGE,
    unit="records",
    meaning="the backlog of telling: decided records whose answers SQL does not know to be acknowledged by the log; those of the last batch stay until the next",
)
POSITION = Metric(
    name="deltalakedb_position",
    kind=Kind.GAUGE,
    unit="position",
    meaning="the next record of the log to be decided, as SQL says",
)
COMMIT_SEQ = Metric(
    name="deltalakedb_commit_seq", kind=Kind.GAUGE, unit="number", meaning="number of the newest commit, as SQL says"
)
EPOCH = Metric(
    name="deltalakedb_epoch",
    kind=Kind.GAUGE,
    unit="number",
    meaning="epoch of the committer that may write: it grows with every take-over",
)
TABLES = Metric(
    name="deltalakedb_tables",
    kind=Kind.GAUGE,
    unit="tables",
    meaning="tables of the lake, as SQL said within the last minute",
)
LIVE_FILES = Metric(
    name="deltalakedb_live_files",
    kind=Kind.GAUGE,
    unit="files",
    meaning="live files of all tables together, as SQL said within the last minute",
)
LIVE_BYTES = Metric(
    name="deltalakedb_live_bytes", kind=Kind.GAUGE, unit="bytes", meaning="what those files hold together"
)
SNAPSHOT_SECONDS = Metric(
    name="deltalakedb_snapshot_seconds",
    kind=Kind.GAUGE,
    unit="seconds",
    meaning="how long SQL took for that, the heads of all tables at one moment, which is what readers wait for before they plan",
)
MIRROR_PUBLISHED = Metric(
    name="deltalakedb_mirror_versions_total",
    kind=Kind.COUNTER,
    unit="versions",
    meaning="versions that this process published",
    labels=("target",),
)
MIRROR_LAG_VERSIONS = Metric(
    name="deltalakedb_mirror_lag_versions",
    kind=Kind.GAUGE,
    unit="versions",
    meaning="versions that are committed and not published at the target",
    labels=("target",),
)
MIRROR_LAG_SECONDS = Metric(
    name="deltalakedb_mirror_lag_seconds",
    kind=Kind.GAUGE,
    unit="seconds",
    meaning="age of the oldest of them; 0: there is none",
    labels=("target",),
)
MIRROR_FAILED = Metric(
    name="deltalakedb_mirror_failed_tables",
    kind=Kind.GAUGE,
    unit="tables",
    meaning="tables whose last attempt failed; they are tried again",
    labels=("target",),
)
MIRROR_FENCED = Metric(
    name="deltalakedb_mirror_fenced_tables",
    kind=Kind.GAUGE,
    unit="tables",
    meaning="tables in whose log somebody else wrote: nothing of them is published until an operator has looked",
    labels=("target",),
)
MIRROR_STEP_SECONDS = Metric(
    name="deltalakedb_mirror_step_seconds",
    kind=Kind.HISTOGRAM,
    unit="seconds",
    meaning="one step of the mirror: asking SQL, rendering, putting, recording",
    labels=("target",),
    bounds=_SECONDS,
)

SHARED = (STATE, READY, PAUSES)
COMMITTER = (
    *(DECISIONS, CONFLICTS, COMMITS, VERSIONS, BATCH_RECORDS, BATCH_SECONDS, COMMIT_LATENCY, OPEN_SECONDS),
    *(LAG_EVENTS, LAG_SECONDS, BACKLOG, POSITION, COMMIT_SEQ, EPOCH),
    *(TABLES, LIVE_FILES, LIVE_BYTES, SNAPSHOT_SECONDS),
)
MIRROR = (
    MIRROR_PUBLISHED,
    MIRROR_LAG_VERSIONS,
    MIRROR_LAG_SECONDS,
    MIRROR_FAILED,
    MIRROR_FENCED,
    MIRROR_STEP_SECONDS,
)
METRICS = (*SHARED, *COMMITTER, *MIRROR)
"""All of them, in the order of the documentation."""
SERVICES = {"committer": (*SHARED, *COMMITTER), "mirror": (*SHARED, *MIRROR)}
"""Which of them a service shows."""


class Distribution:
    """The numbers of a histogram: how many observations fell into which bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, values: Iterable[float]) -> None:
        """Take in observations."""
        bounds, counts = self.bounds, self.counts
        total = 0.0
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        self.sum += total


class Measurements:
    """The numbers of one process. Each metric is written by one thread; reading may be a moment behind in parts."""

    def __init__(self) -> None:
        self._numbers: dict[Metric, dict[tuple[str, ...], float]] = {
            metric: {} if metric.labels else {(): 0.0} for metric in METRICS if metric.kind is not Kind.HISTOGRAM
        }
        self._distributions: dict[Metric, dict[tuple[str, ...], Distribution]] = {
            metric: {} if metric.labels else {(): Distribution(metric.bounds)}
            for metric in METRICS
            if metric.kind is Kind.HISTOGRAM
        }

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """Count `amount` more."""
        numbers = self._numbers[metric]
        numbers[labels] = numbers.get(labels, 0.0) + amount

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """What a gauge shows from now on."""
        self._numbers[metric][labels] = value

    def observe(self, metric: Metric, values: Iterable[float], *labels: str) -> None:
        """Take observations into a histogram."""
        distributions = self._distributions[metric]
        found = distributions.get(labels)
        if found is None:
            found = distributions[labels] = Distribution(metric.bounds)
        found.observe(values)

    def numbers(self, metric: Metric) -> Mapping[tuple[str, ...], float]:
        """The number of a counter or gauge, by its labels' values."""
        return dict(self._numbers[metric])

    def distributions(self, metric: Metric) -> Mapping[tuple[str, ...], Distribution]:
        """The distributions of a histogram, by its labels' values."""
        return dict(self._distributions[metric])
