"""What a run prints: one JSON line per figure on stdout as it comes, and a table for people on stderr at the end."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.services import kafka, postgres

_PACKAGES = ("deltalakedb", "deltalake", "duckdb", "duckdb-extension-ducklake", "pyarrow", "confluent-kafka", "psycopg")

FLOORS: Mapping[str, tuple[str, float]] = {
    "commit-p50.postgres.closed.8": ("<=", 10.0),
    "commit-p99.postgres.closed.8": ("<=", 25.0),
    "commit-rate.postgres.open.8": (">=", 1000.0),
    "commit-rate.postgres.unfolded.8": (">=", 5000.0),
    "commit-rate.postgres.folded.8": (">=", 5000.0),
    "append-rate.postgres.open.8": (">=", 1000.0),
    "committer-rate.postgres.backlog.8": (">=", 15_000.0),
    "flat-growth.postgres.versions.1": ("<=", 1.2),
    "flat-growth.postgres.files.1": ("<=", 1.2),
    # Under 200 versions per second and table: what has kept up has next to nothing left to do when they end.
    "commit-mirror-drain.postgres.paced.1": ("<=", 1.0),
    "files-insert-rate.postgres.batch.1": (">=", 100_000.0),
    "files-remove-rate.postgres.batch.1": (">=", 50_000.0),
    "files-insert-rate.sqlite.batch.1": (">=", 25_000.0),
    "files-insert-rate.duckdb.batch.1": (">=", 150_000.0),
    "commit-mirror-lag-p95.postgres.paced.8": ("<=", 1.0),
    "commit-mirror-lag-p95.postgres.folded.8": ("<=", 1.0),
    "mirror-rate.postgres.backlog.8": (">=", 4000.0),
    # Half of delta-rs's time and a quarter of its memory on the machine that the goal was set on.
    "checkpoint-seconds.postgres.files.1": ("<=", 7.85),
    "checkpoint-peak.postgres.files.1": ("<=", 512.0),
}
"""The goals for two cores with all services and clients on them; shown beside the figures, not enforced."""


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. `name` is `<what>.<store>.<mode>.<clients>`; `peer` has the peers' figures for the same work."""

    name: str
    value: float
    unit: str
    peer: Mapping[str, float | None] = field(default_factory=dict)


class Report:
    """Collects the lines of a run and prints them."""

    def __init__(self, environment: Mapping[str, Any]) -> None:
        self._lines: list[Line] = []
        self._environment = environment
        _print({"name": "environment", "value": environment, "unit": "", "peer": None})

    def add(self, line: Line) -> None:
        """Print a line; figures of peers that are known by now are added to it."""
        what, store, *load = line.name.split(".")
        if store not in PEERS:
            line = Line(line.name, line.value, line.unit, self._peers(what, load))
        self._lines.append(line)
        _print({**asdict(line), "value": _rounded(line.value), "peer": line.peer or None})

    def finish(self) -> None:
        """The table."""
        table = Table(title=f"deltalakedb benchmark, {_shown(self._environment)}", title_justify="left")
        for column, right in (
            ("measurement", False),
            ("", True),
            ("unit", False),
            ("peers, floors", False),
            ("goal", False),
        ):
            table.add_column(column, justify="right" if right else "left", no_wrap=True)
        group = None
        for line in self._lines:
            if group not in (None, line.name.split("-")[0] + line.name.partition(".")[2]):
                table.add_section()
            group = line.name.split("-")[0] + line.name.partition(".")[2]
            peers = ", ".join(f"{name} {value}" for name, value in line.peer.items())
            table.add_row(line.name, str(_rounded(line.value)), line.unit, peers, _floor(line))
        Console(stderr=True, width=None if sys.stderr.isatty() else 140).print(table)

    def _peers(self, what: str, load: list[str]) -> dict[str, float | None]:
        """The peers' closed loop stands beside any load of ours: they have one transaction in flight per connection."""
        kind, _, figure = what.partition("-")
        if kind == "floor" or figure not in ("p50", "p99", "rate"):
            return {}
        asked = {name: f"{_PEER_KINDS.get((name, kind), kind)}-{figure}.{name}.closed.{load[-1]}" for name in PEERS}
        if load[0] == "closed":
            # What a commit has to wait for, each by itself: a record there and back, a durable row, a flush.
            asked["there and back"] = f"floor-{figure}.kafka.closed.{load[-1]}"
            asked["durable row"] = f"floor-{figure}.postgres.closed.1"
            asked["flush"] = f"floor-{figure}.disk.closed.1"
        known = {line.name: _rounded(line.value) for line in self._lines}
        return {name: known[line] for name, line in asked.items() if line in known}


PEERS = ("ducklake", "delta-rs")
# delta-rs writes a file with every append, so its one measurement stands beside both of our kinds.
_PEER_KINDS = {("delta-rs", "commit"): "append"}


def environment(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The machine, its load, and what runs on it."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cores_of_machine": os.cpu_count(),
        "load": [round(figure, 2) for figure in os.getloadavg()],
        "cpu": _cpu_model(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": {
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
            "postgres": postgres.version(),
            "kafka": kafka.version(),
        },
        "commit": _commit(),
        **arguments,
    }


def _print(line: Mapping[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _rounded(value: float) -> float | None:
    """Three significant digits below 1,000, whole numbers above; None where there was nothing to measure."""
    if math.isnan(value):
        return None
    return float(f"{value:.3g}") if abs(value) < 1000 else round(value)


def _shown(facts: Mapping[str, Any]) -> str:
    load = "/".join(map(str, facts["load"]))
    return f"commit {facts['commit']}, {facts['cores']} of {facts['cores_of_machine']} cores, load before {load}"


def _floor(line: Line) -> str:
    if line.name not in FLOORS:
        return ""
    sign, bound = FLOORS[line.name]
    reached = line.value <= bound if sign == "<=" else line.value >= bound
    return f"{sign} {bound:g} {'reached' if reached else 'MISSED'}"


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
