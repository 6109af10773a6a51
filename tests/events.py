"""One event of every kind with every field filled, as the golden bytes have it."""

from __future__ import annotations

from deltalakedb.actions import AddFile, CdcFile, DeletionVector, OtherAction, RemoveFile
from deltalakedb.codec import encode_content, encode_imported_content
from deltalakedb.events import (
    AddColumn,
    AppTransaction,
    Cancel,
    Commit,
    Committed,
    CommittedTable,
    Completion,
    Content,
    Control,
    CreateTable,
    DropColumn,
    Envelope,
    Event,
    ImportedAction,
    ImportedContent,
    ImportedVersion,
    LakeAction,
    Literal,
    Outcome,
    Predicate,
    ReadSet,
    Rejected,
    RenameColumn,
    SetProperties,
    SetRules,
    StagedTransaction,
    TableVersion,
    TableWork,
    Term,
    Tick,
    Told,
    WidenColumn,
    WrittenAgainst,
)

TXN = "01900000-0000-7000-8000-000000000001"
LAKE = "01900000-0000-7000-8000-00000000000a"

_VECTOR = DeletionVector(
    storage_type="u",
    path_or_inline_dv="ab^-aqEH.-t@S}K{vb[*k^",
    offset=1,
    size_in_bytes=36,
    cardinality=2,
    max_row_index=9,
)
_ENVELOPE = Envelope(
    txn_id=TXN,
    chunk_index=1,
    chunk_count=3,
    digest=bytes(range(32)),
    lake_id=LAKE,
    root="s3://bucket/lake",
    client_id="client-1",
    outcome_partition=5,
)
_CONTENT = Content(
    isolation="Serializable",
    apps=(AppTransaction("nightly", 42),),
    user_metadata="who: café",
    engine_info="deltalakedb/0.1",
    tables=(
        TableWork(
            name="sales.orders",
            read_version=7,
            read_set=ReadSet(
                whole_table=True,
                files=("part-1.parquet",),
                predicates=(
                    Predicate(
                        (
                            Term(">=", ("o_date",), (Literal("date", "1998-01-01"),)),
                            Term("in", ("s", "a"), (Literal("long", "1"), Literal("long", None))),
                            Term("and"),
                        )
                    ),
                ),
                app_ids=("nightly",),
            ),
            written_against=WrittenAgainst(3, 1),
            operation="MERGE",
            operation_parameters={"predicate": "[]"},
            operation_metrics={"numFiles": "1"},
            intents=(
                CreateTable(
                    schema_string='{"type":"struct","fields":[]}',
                    partition_columns=("o_date",),
                    properties={"delta.appendOnly": "true"},
                    location="s3://bucket/lake/sales.orders",
                    description="Orders",
                    if_absent=False,
                ),
                AddColumn(parent=("s",), field='{"name":"b"}', after="a"),
                RenameColumn(column=("s", "b"), new_name="c"),
                WidenColumn(column=("id",), new_type="long"),
                DropColumn(column=("old",)),
                SetProperties(set={"k": "v"}, unset=("w",)),
            ),
            adds=(
                AddFile(
                    path="o_date=1998-01-01/part-2.parquet",
                    partition_values={"o_date": "1998-01-01"},
                    size=1234,
                    modification_time=1_700_000_000_000,
                    data_change=False,
                    stats='{"numRecords":10}',
                    deletion_vector=_VECTOR,
                    rest='{"tags":{"k":"v"}}',
                ),
            ),
            removes=(
                RemoveFile(
                    path="o_date=__HIVE_DEFAULT_PARTITION__/part-1.parquet",
                    data_change=False,
                    deletion_vector=_VECTOR,
                    deletion_timestamp=1_700_000_000_001,
                    extended_file_metadata=True,
                    partition_values={"o_date": None},
                    size=99,
                    rest="{}",
                ),
            ),
            cdc=(CdcFile(path="_change_data/c.parquet", partition_values={"o_date": None}, size=5, rest="{}"),),
            others=(OtherAction(kind="txn", json='{"appId":"a","version":1}'),),
        ),
        TableWork(id=LAKE),
    ),
)
_IMPORTED = ImportedContent(
    import_id=TXN,
    table_name="orders",
    location="file:///data/orders",
    version=12,
    time_ms=1_600_000_000_000,
    file_time_ms=1_600_000_000_001,
    kind="BASELINE",
    last=True,
    actions=(ImportedAction("commitInfo", '{"operation":"WRITE"}'), ImportedAction("add", '{"path":"x"}')),
)


def _control(command: Cancel | Tick | SetRules | LakeAction) -> Control:
    return Control(control_id=TXN, lake_id=LAKE, client_id="operator", outcome_partition=6, command=command)


_COMMIT = Commit(
    lake_id=LAKE,
    commit_seq=300,
    position=4_711,
    time_ms=1_700_000_000_000,
    txn_ids=(TXN,),
    tables=(
        CommittedTable(
            table_id=TXN,
            name="sales.orders",
            old_version=-1,
            new_version=0,
            added_files=1,
            added_bytes=2**40,
            removed_files=2,
            removed_bytes=3,
        ),
    ),
)
_COMMITTED = Outcome(
    lake_id=LAKE,
    txn_id=TXN,
    client_id="client-1",
    position=4_711,
    committed=Committed(
        commit_seq=300,
        time_ms=1_700_000_000_000,
        already_committed=True,
        tables=(TableVersion(name="sales.orders", table_id=TXN, version=128),),
    ),
    lag_events=3,
    lag_ms=4,
)
_REJECTED = Outcome(
    lake_id=LAKE,
    txn_id=TXN,
    client_id="client-1",
    position=4_711,
    rejected=Rejected(
        reason="CONCURRENT_APPEND", message="read again", table="orders", versions=(7, 9), other_txn=LAKE
    ),
)

SAMPLES: dict[str, Event | Told] = {
    "staged_transaction.v2": StagedTransaction(
        envelope=_ENVELOPE, content=_CONTENT, content_bytes=encode_content(_CONTENT)
    ),
    "imported_version.v1": ImportedVersion(
        envelope=_ENVELOPE, content=_IMPORTED, content_bytes=encode_imported_content(_IMPORTED)
    ),
    "control.v1.cancel": _control(Cancel(txn_id=TXN)),
    "control.v1.tick": _control(Tick()),
    "control.v1.set_rules": _control(SetRules(rule_set=2, parameters={"k": "v"})),
    "control.v1.lake_action": _control(
        LakeAction(action="target-add", table="orders", target="copy", parameters={"root": "s3://other"})
    ),
    "completion.v1": Completion(lake_id=LAKE, client_id="committer-1", txn_id=TXN, heads={TXN: 7}),
    "commit.v2": (_COMMIT, _COMMIT),
    "outcome.v2": (_COMMITTED, _REJECTED),
}
"""By schema, and by branch where a schema has several."""
EARLIER: dict[str, Told] = {
    "commit.v1": (_COMMIT,),
    "outcome.v1.committed": (_COMMITTED,),
    "outcome.v1.rejected": (_REJECTED,),
}
"""The same of schemas that this release reads and does not write any more."""
