"""What the demo did and found: one object, told as JSON or as text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from .checks import Check, Pin
from .plan import Done


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from the first row read to the outcome known."""

    p50: float
    p99: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON object of `--output json`."""

    title: str
    tables: dict[str, str]
    """Location per table."""
    transactions: int
    """Committed ones."""
    inserts: int
    removes: int
    rejected: dict[str, int]
    """By reason."""
    clients: int
    commit_seq: int
    """Of the watermark at which the tables were checked."""
    versions: dict[str, int]
    """Of the tables there."""
    seconds: float
    """All in all."""
    load_seconds: float
    """From the first transaction to the last outcome."""
    transactions_per_second: float
    latency_ms: Latency
    mirror_seconds: float
    """From the last outcome until everything could be read by path."""
    checks: list[Check]
    ok: bool


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def report(
    *,
    title: str,
    done: Sequence[Done],
    made: int,
    clients: int,
    pin: Pin,
    seconds: float,
    mirror_seconds: float,
    checks: list[Check],
) -> Report:
    """The report of one run; `made` transactions were committed to make the tables before the clients began."""
    committed = [step for step in done if step.status == "committed"]
    latencies = [step.milliseconds for step in committed]
    load_seconds = max(s.began + s.milliseconds / 1000 for s in done) - min(s.began for s in done)
    return Report(
        title=title,
        tables=pin.locations,
        transactions=made + len(committed),
        inserts=sum(step.kind == "insert" for step in committed),
        removes=sum(step.kind == "remove" for step in committed),
        rejected=dict(Counter(step.reason or "?" for step in done if step.status == "rejected")),
        clients=clients,
        commit_seq=pin.commit_seq,
        versions=pin.versions,
        seconds=round(seconds, 3),
        load_seconds=round(load_seconds, 3),
        transactions_per_second=round(len(committed) / load_seconds, 1) if load_seconds else 0.0,
        latency_ms=Latency(p50=round(percentile(latencies, 0.50), 2), p99=round(percentile(latencies, 0.99), 2)),
        mirror_seconds=round(mirror_seconds, 3),
        checks=checks,
        ok=all(check.ok for check in checks),
    )


def text(report: Report) -> Iterator[str]:
    """The report in lines."""
    rejected = sum(report.rejected.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report.rejected.items()))
    yield report.title
    yield ""
    yield (
        f"  {report.transactions} transactions over {len(report.tables)} tables committed by {report.clients} processes at "
        f"once: {report.inserts} inserts, {report.removes} removes; {rejected} rejected{f' ({reasons})' if reasons else ''}"
    )
    yield (
        f"  {report.transactions_per_second:.0f} transactions/s, from first row to outcome p50 "
        f"{report.latency_ms.p50:.0f} ms, p99 {report.latency_ms.p99:.0f} ms; readable by path "
        f"{report.mirror_seconds:.1f} s after the last outcome"
    )
    yield ""
    for check in report.checks:
        verdict = "ok    " if check.ok else "FAILED"
        wrong = f", {check.wrong:,} wrong" if check.wrong else ""
        yield f"  {verdict} {check.reader:<11} {check.what} ({check.seen:,}{wrong})"
    yield ""
    for table, location in report.tables.items():
        yield f"  {table:<12} version {report.versions[table]:<6} {location}"
    yield ""
    yield f"  {'all checks passed' if report.ok else 'CHECKS FAILED'} at commit {report.commit_seq}, in {report.seconds:.1f} s"
