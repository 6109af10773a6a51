"""Delta's own conflict cases: a transaction that read a table, and one that was committed in the meantime.

They come from the golden data beside the checkout, or from the file that `CONFLICT_VECTORS` names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from deltalakedb.actions import AddFile, OtherAction, RemoveFile
from deltalakedb.delta_types import parse_schema
from deltalakedb.errors import Reason
from deltalakedb.events import Predicate, ReadSet, TableWork, WrittenAgainst
from deltalakedb.predicates import parse_condition
from deltalakedb_committer.deciding.decisions import Accepted, Commit
from tests.fix_golden import GOLDEN
from tests.model_lake import ModelLake, rejected, staged
from tests.works import add, create, other, schema

FILE = Path(os.environ.get("CONFLICT_VECTORS") or GOLDEN / "conflict_vectors.json")
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text("utf-8"))["vectors"] if FILE.is_file() else []
FEATURES = {"delta.feature.domainMetadata": "supported", "delta.feature.changeDataFeed": "supported"}
REASONS = {
    "ConcurrentAppend": {Reason.CONCURRENT_APPEND},
    "ConcurrentDeleteRead": {Reason.CONCURRENT_DELETE_READ},
    "ConcurrentDeleteDelete": {Reason.CONCURRENT_DELETE_DELETE},
    "ConcurrentTransaction": {Reason.CONCURRENT_TRANSACTION},
    "MetadataChanged": {Reason.METADATA_CHANGED, Reason.SCHEMA_CHANGED},
    "ProtocolChanged": {Reason.PROTOCOL_CHANGED},
}


def test_a_file_of_vectors_that_is_named_is_there() -> None:
    """Who names a file means it to be tested."""
    assert VECTORS or "CONFLICT_VECTORS" not in os.environ, FILE


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_conflict_vectors(vector: dict[str, Any]) -> None:
    """What Delta refuses is refused for Delta's reason, and what it lets pass is committed."""
    lake = ModelLake()
    setup = [add(path, partition_values=values) for _, path, values in vector["setup_live_files"]]
    columns = schema(
        *(("id", "long"), ("year", "integer")),
        *((name, _type(vector, name)) for name in vector["partition_columns"]),
    )
    properties = {**FEATURES, "delta.isolationLevel": vector["isolation"]}
    lake.commit(create("orders", columns, *setup, by=tuple(vector["partition_columns"]), properties=properties))
    won, lost = vector["winner"], vector["loser"]
    as_reader = None if won["is_blind_append"] else ReadSet(whole_table=True)
    winner = lake.commit(_work(lake, won["actions"], as_reader))
    if any("metaData" in action for action in _special(won["actions"])):
        # A change under which files written before are not valid: as if the column had been another one.
        row = next(r for r in lake.rows["dl_metadata_updates"] if r["version"] == 0)
        row["schema_string"] = row["schema_string"].replace('"type":"long"', '"type":"binary"')
        assert '"binary"' in row["schema_string"]
    found = ReadSet(
        whole_table=lost["read_whole_table"],
        predicates=tuple(_predicate(text, columns) for text in lost["reads"]),
        app_ids=tuple(lost["read_app_ids"]),
    )

    decision = lake.decide(staged(_work(lake, lost["actions"], None if found == ReadSet() else found)))

    if vector["expect"] == "ok":
        assert isinstance(decision, Commit | Accepted)
    else:
        refused = rejected(decision)
        assert Reason(refused.reason) in REASONS[vector["expect"]], refused.message
        assert refused.table == "orders"
        assert refused.versions == (0, 1)
        assert refused.other_txn in (winner.txn_id, None)


def _predicate(text: str, columns: str) -> Predicate:
    return parse_condition(text, parse_schema(columns)).read_predicate()


def _type(vector: dict[str, Any], column: str) -> str:
    files = [*vector["setup_live_files"], *vector["loser"]["actions"], *vector["winner"]["actions"]]
    values = [action[2].get(column) for action in files if isinstance(action, list)]
    return "integer" if all(value is None or value.lstrip("-").isdigit() for value in values) else "string"


def _special(actions: Iterable[Any]) -> list[dict[str, Any]]:
    return [action for action in actions if isinstance(action, dict)]


def _work(lake: ModelLake, actions: list[Any], found: ReadSet | None) -> TableWork:
    """What was done at version 0."""
    special = _special(actions)
    data_change = not any(action.get("dataChange") is False for action in special)
    files = [action for action in actions if isinstance(action, list)]
    adds: list[AddFile] = []
    removes: list[RemoveFile] = []
    for kind, path, values in files:
        if kind == "add":
            adds.append(add(path, partition_values=values, data_change=data_change))
        else:
            removes.append(RemoveFile(path=path, data_change=data_change))
    return TableWork(
        name="orders",
        read_version=0,
        read_set=found,
        written_against=WrittenAgainst(0, 0),
        adds=tuple(adds),
        removes=tuple(removes),
        others=tuple(_other(lake, action) for action in special if "dataChange" not in action),
    )


def _other(lake: ModelLake, action: dict[str, Any]) -> OtherAction:
    table = lake.table("orders")
    assert table.metadata is not None
    assert table.protocol is not None
    ((kind, given),) = action.items()
    match kind:
        case "metaData":
            fields = json.loads(table.metadata.schema_string)["fields"]
            fields.append({"name": f"new{len(fields)}", "type": "string", "nullable": True, "metadata": {}})
            body: dict[str, Any] = {
                "id": table.metadata.id,
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps({"type": "struct", "fields": fields}),
                "partitionColumns": table.metadata.partition_columns,
                "configuration": table.metadata.configuration,
            }
        case "protocol":
            features = [*(table.protocol.writer_features or ()), "checkConstraints"]
            body = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": features}
        case "txn":
            app_id, version = given
            body = {"appId": app_id, "version": version}
        case "domainMetadata":
            body = {"domain": given, "configuration": "{}", "removed": False}
        case _:
            raise AssertionError(f"the vectors have a new kind of action: {kind}")
    return other(kind, body)
