"""Random histories of a few transactions side by side are decided as Delta in Spark decides them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from deltalakedb.actions import from_json
from deltalakedb.errors import Reason
from deltalakedb.events import WrittenAgainst
from tests.committing.delta_spark import DeltaTable, DeltaTransaction
from tests.committing.made_up import PARTITIONINGS, PROPERTIES, VALUES, Given, Making, Ours, data_file

REASONS = {
    "ConcurrentAppendException": {Reason.CONCURRENT_APPEND},
    "ConcurrentDeleteReadException": {Reason.CONCURRENT_DELETE_READ},
    "ConcurrentDeleteDeleteException": {Reason.CONCURRENT_DELETE_DELETE, Reason.FILE_NOT_LIVE},
    "ConcurrentTransactionException": {Reason.CONCURRENT_TRANSACTION},
    "MetadataChangedException": {Reason.METADATA_CHANGED, Reason.SCHEMA_CHANGED},
    "ProtocolChangedException": {Reason.PROTOCOL_CHANGED},
    "DELTA_CANNOT_MODIFY_APPEND_ONLY": {Reason.APPEND_ONLY},
}


@dataclass(frozen=True, slots=True)
class Decided:
    """One transaction, as both decide it."""

    given: Given
    earlier: list[Given]
    """What was committed before it."""
    seen: int
    """How many of these before it began."""
    ours: Reason | None
    theirs: str | None

    @property
    def alike(self) -> bool:
        if self.theirs is None:
            return self.ours is None
        return self.ours in REASONS[self.theirs]


@dataclass(frozen=True, slots=True)
class _Begun:
    """A transaction under way."""

    given: Given
    txn: DeltaTransaction
    at: tuple[int, WrittenAgainst]
    seen: int
    """How many were committed before it began."""


def decide_both(spark: SparkSession, folder: Path, seed: int) -> list[Decided]:
    """A random history, up to the first transaction that only one of the two commits."""
    chance = random.Random(seed)
    level = chance.choice(["Serializable", "WriteSerializable"])
    by = chance.choice(PARTITIONINGS)
    on = [name for name in PROPERTIES if chance.random() < (0.1 if name == "append only" else 0.4)]
    files = [data_file(f"f{n}", {name: chance.choice(VALUES[name]) for name in by}) for n in range(3)]
    ours = Ours(level, by, on, files)
    table = DeltaTable(spark, folder / str(seed), level, ours.first_actions())
    committed = list[Given]()
    begun: list[_Begun] = []
    found: list[Decided] = []
    numbers = {0: 0}
    count = chance.choice([3, 4, 5])
    for number in range(count):
        made = Making(chance, number, ours, table)
        begun.append(_Begun(made.given, made.txn, ours.begin(), len(committed)))
        # As a rule all of them begin before any ends.
        while begun and (number == count - 1 or chance.random() < 0.25):
            one = begun.pop(0)
            reason = ours.commit(one.given, one.at)
            decided = Decided(one.given, list(committed), one.seen, reason, one.txn.commit(one.given.actions()))
            found.append(decided)
            if (decided.ours is None) != (decided.theirs is None):
                return found
            if decided.ours is None:
                committed.append(one.given)
                # Delta makes a version of a transaction that does nothing, too.
                numbers.setdefault(ours.begin()[0], len(table.versions()) - 1)
    compare(ours, table, numbers)
    return found


def compare(ours: Ours, theirs: DeltaTable, numbers: Mapping[int, int]) -> None:
    """The same files are live, under the same metadata; where rows have ids, they have been there since the same version,
    and no two rows have the same one. `numbers` are theirs of our versions."""
    live = theirs.live()
    rows = {row["path"]: row for row in ours.lake.rows["dl_live_files"]}
    assert {path: row["dv_id"] for path, row in rows.items()} == {
        path: from_json("add", json.dumps(body)).dv_id for path, body in live.items()
    }
    metadata = ours.lake.table("t").metadata
    assert metadata is not None
    newest = [body for actions in theirs.versions() for kind, body in actions if kind == "metaData"][-1]
    assert json.loads(metadata.schema_string) == json.loads(newest["schemaString"])
    assert metadata.configuration == newest["configuration"]
    if metadata.configuration.get(PROPERTIES["row ids"]) == "true":
        assert {path: numbers[row["default_row_commit_version"]] for path, row in rows.items()} == {
            path: body["defaultRowCommitVersion"] for path, body in live.items()
        }
        for first in ([row["base_row_id"] for row in rows.values()], [body["baseRowId"] for body in live.values()]):
            assert all(one + 10 <= two for one, two in pairwise(sorted(first))), first


def explained(decided: Decided) -> str | None:
    """Why both may differ; None: they may not."""
    given, earlier = decided.given, decided.earlier
    changed = earlier[decided.seen :]
    if decided.ours is not None and decided.theirs is not None:
        return "Several things stand against it, and each names the first that it looks at."
    added_feature = any(each.has("protocol") for each in changed)
    if decided.ours in (Reason.PROTOCOL_CHANGED, Reason.METADATA_CHANGED) and added_feature:
        return "Delta lets a reader pass beside a feature that does no harm; with us a change stands against readers."
    if decided.ours is Reason.CONCURRENT_TRANSACTION and given.has("txn") and any(each.has("txn") for each in earlier):
        return "A number of an application is committed once; Delta leaves that to whoever asks for the newest first."
    if decided.ours is Reason.CONCURRENT_APPEND and given.asked is not None and not given.changes_data:
        return "Who asks for an isolation level has it; Delta judges whoever changes no data by snapshots."
    if decided.ours is None and not given.reads and not given.has("metaData"):
        if decided.theirs == "MetadataChangedException" and any(each.has("metaData") for each in changed):
            return "Who read nothing is judged by its files alone, and they are valid under the newer metadata."
        if decided.theirs == "ConcurrentAppendException" and given.removes and not given.by:
            # Delta has no removes without a read; a table without partitions counts as read by all that are not blind.
            return "Who removes live files under WriteSerializable and says that it read nothing is taken at its word."
    return None


@pytest.fixture
def quick_spark(spark: SparkSession) -> Iterator[SparkSession]:
    """Without a checksum of each version, for which all of the table would be read."""
    name = "spark.databricks.delta.writeChecksumFile.enabled"
    spark.conf.set(name, "false")
    yield spark
    spark.conf.unset(name)


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(20), id="some", marks=pytest.mark.timeout(600)),
        pytest.param(range(20, 200), id="many", marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
def test_decided_as_delta_in_spark_decides(quick_spark: SparkSession, tmp_path: Path, seeds: range) -> None:
    """The same transactions, begun and committed in the same order on the same table: the same ones fail, for the same
    reason, but where we mean to differ. Where the same ones are committed, the same is left."""
    decided = [each for seed in seeds for each in decide_both(quick_spark, tmp_path, seed)]

    assert [each for each in decided if not each.alike and explained(each) is None] == []
    assert sum(each.theirs is None for each in decided) > len(seeds)
    met = {f"{what}Exception" for what in ("ConcurrentAppend", "ConcurrentDeleteRead", "MetadataChanged")}
    assert {each.theirs for each in decided if each.alike} >= {None, *met}
