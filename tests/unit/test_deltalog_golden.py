"""Reading the logs that Spark, delta-rs, kernels and DuckDB wrote: what others found in them, and what they refuse."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from deltalakedb.deltalog.checksums import contradictions
from deltalakedb.deltalog.listing import Checkpoint
from deltalakedb.deltalog.log import DeltaLog
from deltalakedb.deltalog.state import LogState
from deltalakedb.errors import LogProblem, TxnLogDeltaLogError
from deltalakedb.events import ImportedAction
from deltalakedb.objectstore import open_object_store
from tests.fix_golden import GOLDEN

REFUSED = {
    "delta-kernel-java/benchmarks_workload_specs/basic_catalog_managed/delta": "catalogManaged",
    "delta-kernel-java/catalog-owned-preview": "catalogManaged",
    "delta-rs-errlogs/table_c": "00000000000000000012.json is missing",
    "delta-rs-errlogs/table_d": "catalogOwned",
    "delta-rs-errlogs/table_e": "catalogOwned",
    "delta-rs-errlogs/table_f": "catalogOwned",
    "delta-rs-errlogs/table_h": "00000000000000009999.checkpoint.parquet asks readers to know catalogOwned",
    "delta-rs-errlogs/table_i": "00000000000000009999.checkpoint.parquet asks readers to know catalogOwned",
    "delta-rs/simple_table_features": "reader version 5",
    "kernel-rs-data/crc-malformed": "neither a commit nor a checkpoint",
    "kernel-rs-data/table-with-geo": "geospatial",
    "kernel-rs-unity/catalog_managed_0": "catalogManaged",
}
"""Tables that no state can be told of, and why. Every table that its suite says must fail is among them."""


def tables() -> list[dict[str, Any]]:
    """The tables of the index; none where the folder is not there."""
    index = GOLDEN / "index.json"
    return json.loads(index.read_text())["tables"] if index.is_file() else []


def log_of(table: dict[str, Any]) -> DeltaLog:
    """Its log."""
    return DeltaLog(open_object_store(str(GOLDEN / table["table"])))


DAMAGED = (
    "delta-rs/checkpoints_vacuumed",
    "kernel-rs-data/v2-checkpoints-parquet-with-sidecars",
    "kernel-rs-data/v2-checkpoints-json-with-sidecars",
    "kernel-rs-data/v1-multi-part-struct-stats-only",
    "delta-rs/table_with_deletion_logs",
)
READABLE = [table for table in tables() if table["table"] not in REFUSED]


def without_nulls(action: ImportedAction) -> dict[str, Any]:
    """An action's fields that are there."""
    return {name: value for name, value in json.loads(action.json).items() if value is not None}


def test_what_must_fail_is_refused_with_its_reason() -> None:
    """Gaps, catalogs and features that readers must know are named; nothing that its suite says must fail is read."""
    named = {table["table"]: table for table in tables()}
    must_fail = {name for name, table in named.items() if (table["expected"] or {}).get("kind") == "error"}

    assert must_fail <= set(REFUSED)
    for name in REFUSED.keys() & named.keys():
        with pytest.raises(TxnLogDeltaLogError, match=REFUSED[name]) as caught:
            log_of(named[name]).state()
        assert (caught.value.version is None) == (caught.value.problem is LogProblem.NO_TABLE)


@pytest.mark.parametrize("table", READABLE, ids=lambda table: table["table"])
def test_the_newest_version_is_what_others_found(table: dict[str, Any]) -> None:
    """Version, live files, tombstones, transactions, domains, protocol, partitioning and properties."""
    with log_of(table).state() as state:
        files = Counter(action.kind for action in state.files())
        metadata = without_nulls(state.metadata)

    assert state.version == table["version"]
    assert (files["add"], files["remove"]) == (table["live_files"], table["tombstones"])
    assert len(state.txns) == table["txns"]
    assert sorted(state.domains) == (table["domains"] or [])
    assert without_nulls(state.protocol) == table["protocol"]
    assert metadata.get("partitionColumns", []) == table["partitionColumns"]
    assert metadata.get("configuration", {}) == table["configuration"]


@pytest.mark.parametrize("table", [t for t in READABLE if t["checkpoints"]], ids=lambda table: table["table"])
def test_every_checkpoint_says_what_the_commits_say(table: dict[str, Any]) -> None:
    """A version has the same files whatever it is told from: each checkpoint at or below it, or commits alone."""
    log = log_of(table)
    for version in {*log.listing.checkpoints, log.listing.newest}:
        first, *others = (live_files(log, version, base) for base in log.listing.bases(version))
        assert all(other == first for other in others), f"version {version}"


def test_checksums_agree_with_the_logs() -> None:
    """Every checksum that others wrote says what we read, but for the one that was made to contradict its log."""
    seen, contradicted = 0, {}
    for table in READABLE:
        log = log_of(table)
        for version in log.listing.checksums:
            with log.state(version) as state:
                seen += 1
                if found := contradictions(log, state):
                    contradicted[table["table"]] = found

    assert seen >= 150 or not READABLE
    assert set(contradicted) <= {"kernel-rs-data/crc-full"}
    for found in contradicted.values():
        assert found[0] == "_delta_log/00000000000000000000.crc says numFiles 10, the log says 0"
        assert len(found) == 4


@pytest.mark.parametrize("seed", range(30 if READABLE else 0))
def test_a_damaged_log_is_read_or_refused_by_name(tmp_path: Path, seed: int) -> None:
    """Torn, overwritten, shortened and lengthened files of every kind end in a state or in our error, in nothing else."""
    random = Random(seed)
    shutil.copytree(
        GOLDEN / random.choice(DAMAGED) / "_delta_log", tmp_path / "_delta_log", copy_function=shutil.copyfile
    )
    files = sorted(path for path in tmp_path.rglob("[!.]*.*") if path.stat().st_size)
    for path in random.sample(files, 3):
        data = bytearray(path.read_bytes())
        at = random.randrange(len(data))
        end = min(len(data), at + random.randrange(40))
        data[at : random.choice([at, end, len(data)])] = random.randbytes(random.choice([0, end - at]))
        path.write_bytes(bytes(data))
    log = DeltaLog(open_object_store(str(tmp_path)))
    refused: list[TxnLogDeltaLogError] = []
    for version in [version for span in log.listing.reconstructible() for version in span][-2:]:
        try:
            with log.state(version) as state:
                contradictions(log, state)
        except TxnLogDeltaLogError as error:
            refused.append(error)

    assert {error.problem for error in refused} <= {
        LogProblem.CORRUPT,
        LogProblem.VANISHED,
        LogProblem.UNSUPPORTED_FEATURE,
    }
    assert all(error.path and error.version is not None for error in refused)


def live_files(log: DeltaLog, version: int, base: Checkpoint | None) -> dict[Any, Any]:
    """Live files at a version, told from `base`: what a checkpoint must keep of them."""
    with LogState(log.store, log.listing, log.root, version, None if base is None else log.open(base)) as state:
        found = {}
        for action in state.files():
            if action.kind == "add":
                add = without_nulls(action)
                vector = (add.get("deletionVector") or {}).get("pathOrInlineDv")
                found[add["path"], vector] = (add["size"], add["modificationTime"], add["partitionValues"])
        return found
