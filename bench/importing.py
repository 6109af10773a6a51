"""Importing an existing table: many commits of a file each, or one version of many files. No data file is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.pipeline import LakeAddress

SCHEMA = {
    "type": "struct",
    "fields": [
        {"name": name, "type": kind, "nullable": True, "metadata": {}}
        for name, kind in (("id", "long"), ("name", "string"), ("price", "double"), ("day", "date"))
    ],
}
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What one import took."""

    seconds: float
    peak_bytes: int
    """Resident memory of the importer, where that was highest."""
    committer_bytes: int
    """The same of the committer."""


def make_commits(table: Path, commits: int, files: int) -> None:
    """A log of so many commits with so many files each, with statistics as Spark writes them."""
    log = table / "_delta_log"
    log.mkdir(parents=True)
    metadata = {"id": "bench", "format": {"provider": "parquet", "options": {}}, "schemaString": json.dumps(SCHEMA)}
    metadata |= {"partitionColumns": ["day"], "configuration": {}}
    for version in range(commits):
        with (log / f"{version:020}.json").open("w") as commit:
            if version == 0:
                commit.write('{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}\n')
                commit.write(json.dumps({"metaData": metadata}) + "\n")
            for n in range(version * files, (version + 1) * files):
                commit.write(json.dumps({"add": _add(n)}, separators=(",", ":")) + "\n")


def run_import(table: Path, address: LakeAddress, committer: int) -> Imported:
    """The import as a process of its own, without a cut-over; `committer` is the process that decides it."""
    verb = [sys.executable, "-m", "deltalakedb", "import", str(table), f"{address.store}&table=bench", "--no-cutover"]
    began = time.monotonic()
    process = subprocess.Popen(
        [*verb, "--output", "json"], env={**os.environ, **address.environment}, stdout=subprocess.DEVNULL
    )
    peak = {process.pid: 0, committer: 0}
    while process.poll() is None:
        for pid in peak:
            try:
                peak[pid] = max(peak[pid], psutil.Process(pid).memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        time.sleep(LOOK_SECONDS)
    if process.returncode:
        raise RuntimeError(f"the import ended with exit code {process.returncode}")
    return Imported(seconds=time.monotonic() - began, peak_bytes=peak[process.pid], committer_bytes=peak[committer])


def _add(n: int) -> dict[str, object]:
    day = f"2024-{n % 12 + 1:02}-{n % 28 + 1:02}"
    statistics = {
        "numRecords": 1_000,
        "minValues": {"id": n * 1_000, "name": f"name {n}", "price": 1.5},
        "maxValues": {"id": n * 1_000 + 999, "name": f"name {n} z", "price": 99.25},
        "nullCount": {"id": 0, "name": 0, "price": 3},
    }
    return {
        "path": f"day={day}/part-{n:08}-5b1e0c4e-7d62-4f3a-9a8e-2d8b7f6c1234.c000.snappy.parquet",
        "partitionValues": {"day": day},
        "size": 100_000 + n % 977,
        "modificationTime": 1_700_000_000_000,
        "dataChange": True,
        "stats": json.dumps(statistics, separators=(",", ":")),
    }
