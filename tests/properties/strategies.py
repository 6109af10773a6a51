"""Hypothesis strategies for events and what they are made of: any event that could be encoded, likely or not."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

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
    WidenColumn,
    WrittenAgainst,
)

LONGS = st.integers(-(2**63), 2**63 - 1)
INTS = st.integers(-(2**31), 2**31 - 1)
TEXTS = st.text(max_size=12)
MAPS = st.dictionaries(TEXTS, TEXTS, max_size=2)
VALUES = st.dictionaries(TEXTS, st.none() | TEXTS, max_size=2)
PATH_TEXTS = st.sampled_from(["a", "b", "a%20b", "a b", "./a", "s3://x/a", "../a", "%00", "%"]) | TEXTS
PATHS = st.lists(TEXTS, max_size=2).map(tuple)


def tuples(items: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[tuple[Any, ...]]:
    """Short tuples."""
    return st.lists(items, max_size=most).map(tuple)


VECTORS = st.builds(
    DeletionVector,
    storage_type=TEXTS,
    path_or_inline_dv=TEXTS,
    offset=st.none() | INTS,
    size_in_bytes=INTS,
    cardinality=LONGS,
    max_row_index=st.none() | LONGS,
)
ADDS = st.builds(
    AddFile,
    path=TEXTS,
    partition_values=VALUES,
    size=LONGS,
    modification_time=LONGS,
    data_change=st.booleans(),
    stats=st.none() | TEXTS,
    deletion_vector=st.none() | VECTORS,
    rest=st.none() | TEXTS,
)
REMOVES = st.builds(
    RemoveFile,
    path=TEXTS,
    data_change=st.booleans(),
    deletion_vector=st.none() | VECTORS,
    deletion_timestamp=st.none() | LONGS,
    extended_file_metadata=st.none() | st.booleans(),
    partition_values=st.none() | VALUES,
    size=st.none() | LONGS,
    rest=st.none() | TEXTS,
)
CDC = st.builds(CdcFile, path=TEXTS, partition_values=VALUES, size=LONGS, rest=st.none() | TEXTS)
OTHERS = st.builds(OtherAction, kind=TEXTS, json=TEXTS)
LITERALS = st.builds(Literal, type=TEXTS, text=st.none() | TEXTS)
TERMS = st.builds(Term, op=TEXTS, column=PATHS, literals=tuples(LITERALS))
READ_SETS = st.builds(
    ReadSet,
    whole_table=st.booleans(),
    files=PATHS,
    predicates=tuples(st.builds(Predicate, terms=tuples(TERMS))),
    app_ids=PATHS,
)
INTENTS = st.one_of(
    st.builds(
        CreateTable,
        schema_string=TEXTS,
        partition_columns=PATHS,
        properties=MAPS,
        location=st.none() | TEXTS,
        description=st.none() | TEXTS,
        if_absent=st.booleans(),
    ),
    st.builds(AddColumn, parent=PATHS, field=TEXTS, after=st.none() | TEXTS),
    st.builds(RenameColumn, column=PATHS, new_name=TEXTS),
    st.builds(WidenColumn, column=PATHS, new_type=TEXTS),
    st.builds(DropColumn, column=PATHS),
    st.builds(SetProperties, set=MAPS, unset=PATHS),
)
WORKS = st.builds(
    TableWork,
    name=st.none() | TEXTS,
    id=st.none() | TEXTS,
    read_version=st.none() | LONGS,
    read_set=st.none() | READ_SETS,
    written_against=st.none() | st.builds(WrittenAgainst, metadata_version=LONGS, protocol_version=LONGS),
    operation=TEXTS,
    operation_parameters=MAPS,
    operation_metrics=MAPS,
    intents=tuples(INTENTS),
    adds=tuples(ADDS),
    removes=tuples(REMOVES),
    cdc=tuples(CDC, 1),
    others=tuples(OTHERS, 1),
)
APPS = st.builds(AppTransaction, app_id=TEXTS, version=LONGS)
CONTENTS = st.builds(
    Content,
    tables=tuples(WORKS),
    isolation=st.none() | TEXTS,
    apps=tuples(APPS),
    user_metadata=st.none() | TEXTS,
    engine_info=TEXTS,
)
ENVELOPES = st.builds(
    Envelope,
    txn_id=TEXTS,
    chunk_index=INTS,
    chunk_count=INTS,
    digest=st.binary(min_size=32, max_size=32),
    lake_id=TEXTS,
    root=TEXTS,
    client_id=TEXTS,
    outcome_partition=INTS,
)
STAGED = st.builds(
    lambda envelope, content: StagedTransaction(
        envelope=envelope, content=content, content_bytes=encode_content(content)
    ),
    ENVELOPES,
    CONTENTS,
)
IMPORTED_CONTENTS = st.builds(
    ImportedContent,
    import_id=TEXTS,
    table_name=TEXTS,
    location=TEXTS,
    version=LONGS,
    time_ms=LONGS,
    file_time_ms=st.none() | LONGS,
    kind=st.sampled_from(["COMMIT", "BASELINE", "HISTORY", "ADOPTION"]),
    last=st.booleans(),
    actions=tuples(st.builds(ImportedAction, kind=TEXTS, json=TEXTS)),
)
IMPORTED = st.builds(
    lambda envelope, content: ImportedVersion(
        envelope=envelope, content=content, content_bytes=encode_imported_content(content)
    ),
    ENVELOPES,
    IMPORTED_CONTENTS,
)
_JSON = st.recursive(
    st.none() | st.booleans() | LONGS | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
_DOUBTFUL = {
    "path": PATH_TEXTS,
    "partitionValues": VALUES,
    "size": LONGS,
    "modificationTime": LONGS,
    "dataChange": st.booleans(),
    "stats": st.just('{"numRecords":1,"minValues":{"id":9},"maxValues":{"id":2}}') | TEXTS,
    "deletionVector": st.fixed_dictionaries(
        {"storageType": TEXTS, "pathOrInlineDv": TEXTS}, optional={"offset": INTS, "sizeInBytes": INTS, "x": _JSON}
    ),
    "tags": MAPS,
    "baseRowId": LONGS,
    "appId": TEXTS,
    "version": LONGS,
    "domain": TEXTS,
    "configuration": TEXTS | MAPS,
    "removed": st.booleans(),
    "schemaString": st.just('{"type":"struct","fields":[]}') | TEXTS,
    "minReaderVersion": st.integers(1, 3),
    "minWriterVersion": INTS,
    "operation": TEXTS,
    "operationParameters": MAPS,
    "isBlindAppend": st.booleans(),
}
_ODD = (
    "1e400",
    "-0",
    "1E-400",
    '"\\ud800"',
    '"\\u0000"',
    "[" * 70 + "]" * 70,
    "01",
    "{}",
    '{"a":1e400}',
    "18446744073709551616",
)
FOUND = st.tuples(
    st.sampled_from(["add", "remove", "cdc", "metaData", "protocol", "txn", "domainMetadata", "commitInfo", "other"]),
    st.fixed_dictionaries({}, optional={name: value | _JSON for name, value in _DOUBTFUL.items()})
    | st.fixed_dictionaries({"path": PATH_TEXTS}, optional={name: _DOUBTFUL[name] for name in ("size", "tags")})
    | st.tuples(st.sampled_from(["path", "size", "stats", "version", "readVersion", "x"]), st.sampled_from(_ODD)).map(
        lambda odd: f'{{"path":"a","appId":"a","domain":"a","{odd[0]}":{odd[1]}}}'
    )
    | _JSON,
)
"""Actions as another log may have them: mostly what they should be, in part anything."""
COMMANDS = st.one_of(
    st.builds(Cancel, txn_id=TEXTS),
    st.builds(Tick),
    st.builds(SetRules, rule_set=INTS, parameters=MAPS),
    st.builds(LakeAction, action=TEXTS, table=st.none() | TEXTS, target=st.none() | TEXTS, parameters=MAPS),
)
CONTROLS = st.builds(
    Control, control_id=TEXTS, lake_id=TEXTS, client_id=TEXTS, outcome_partition=INTS, command=COMMANDS
)
COMPLETIONS = st.builds(
    Completion, lake_id=TEXTS, client_id=TEXTS, txn_id=TEXTS, heads=st.dictionaries(TEXTS, LONGS, max_size=3)
)
COMMITS = st.builds(
    Commit,
    lake_id=TEXTS,
    commit_seq=LONGS,
    position=LONGS,
    time_ms=LONGS,
    txn_ids=PATHS,
    tables=tuples(
        st.builds(
            CommittedTable,
            table_id=TEXTS,
            name=TEXTS,
            old_version=LONGS,
            new_version=LONGS,
            added_files=LONGS,
            added_bytes=LONGS,
            removed_files=LONGS,
            removed_bytes=LONGS,
        )
    ),
)
OUTCOMES = st.builds(
    Outcome,
    lake_id=TEXTS,
    txn_id=TEXTS,
    client_id=TEXTS,
    position=LONGS,
    committed=st.none()
    | st.builds(
        Committed,
        commit_seq=LONGS,
        time_ms=LONGS,
        already_committed=st.booleans(),
        tables=tuples(st.builds(TableVersion, name=TEXTS, table_id=TEXTS, version=LONGS)),
    ),
    rejected=st.none()
    | st.builds(
        Rejected,
        reason=TEXTS,
        message=TEXTS,
        table=st.none() | TEXTS,
        versions=tuples(LONGS),
        other_txn=st.none() | TEXTS,
    ),
    lag_events=LONGS,
    lag_ms=LONGS,
)
EVENTS = st.one_of(STAGED, IMPORTED, CONTROLS, COMPLETIONS)
TOLD = st.one_of(*(st.lists(events, min_size=1, max_size=3).map(tuple) for events in (COMMITS, OUTCOMES)))
