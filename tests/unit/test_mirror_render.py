"""Rendering: golden bytes of renderer 1, and nothing lost on the way to JSON and back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalakedb import actions
from deltalakedb.actions import (
    AddFile,
    CdcFile,
    DeletionVector,
    DomainMetadata,
    Metadata,
    OtherAction,
    Protocol,
    RemoveFile,
    SetTransaction,
)
from deltalakedb.catalog import VersionActions, VersionRow
from deltalakedb.errors import TxnLogMirrorError
from deltalakedb_mirror_worker.publish import same_commit
from deltalakedb_mirror_worker.render import RENDERERS, render

ROW = VersionRow(
    table_no=1,
    version=7,
    commit_seq=42,
    time_ms=1_700_000_000_123,
    txn_id="0190a000-0000-7000-8000-000000000001",
    operation="WRITE",
    operation_parameters='{"mode":"Append"}',
    operation_metrics='{"numFiles":"1"}',
    read_version=6,
    isolation_level="WriteSerializable",
    is_blind_append=True,
    user_metadata='{"job":"ä"}',
    engine_info="deltalakedb/0.1.0",
    tags='{"commit_seq":"42"}',
    commit_info='{"userName":"me","clusterId":null,"weird":1.50}',
    render_version=1,
    changes_data=True,
    changes_metadata=True,
    changes_protocol=True,
    added_files=2,
    added_bytes=30,
    removed_files=1,
    removed_bytes=10,
    origin=None,
    file_time_ms=None,
)
VECTOR = DeletionVector(
    storage_type="u", path_or_inline_dv="ab^-aqEH.-t@S}K{vb[*k^", offset=4, size_in_bytes=40, cardinality=6
)
EVERYTHING = VersionActions(
    row=ROW,
    protocol=Protocol(min_reader_version=1, min_writer_version=7, writer_features=("appendOnly", "invariants")),
    metadata=Metadata(
        id="m-1",
        schema_string='{"type":"struct","fields":[]}',
        partition_columns=("day",),
        configuration={"delta.enableInCommitTimestamps": "true"},
        created_time=1_700_000_000_000,
    ),
    txns=(
        SetTransaction(app_id="b", version=2, last_updated=1_700_000_000_123),
        SetTransaction(app_id="a", version=9, rest='{"new":[1, 2]}'),
    ),
    domains=(
        DomainMetadata(domain="d", configuration="{}"),
        DomainMetadata(domain="c", configuration="", removed=True),
    ),
    removes=(
        RemoveFile(
            path="day=1/old%20file",
            deletion_timestamp=1_700_000_000_123,
            extended_file_metadata=True,
            partition_values={"day": "1"},
            size=10,
            deletion_vector=VECTOR,
            rest='{"baseRowId":5}',
        ),
    ),
    adds=(
        AddFile(
            path="day=__HIVE_DEFAULT_PARTITION__/a%25b.parquet",
            partition_values={"day": None},
            size=10,
            modification_time=5,
            stats='{"numRecords": 3, "minValues":{"id":"\\"q\\""}}',
        ),
        AddFile(
            path="day=2/ü.parquet",
            partition_values={"day": "2"},
            size=20,
            modification_time=6,
            data_change=False,
            deletion_vector=VECTOR,
            rest='{"tags":{"k":"v"},"baseRowId":1,"unknown":{"x":\n 1}}',
        ),
    ),
    cdc=(CdcFile(path="_change_data/c", partition_values={"day": "2"}, size=3),),
    others=(OtherAction(kind="mystery", json='{"a":\r\n 1.0}'),),
)
GOLDEN = (
    '{"commitInfo":{"inCommitTimestamp":1700000000123,"timestamp":1700000000123,"operation":"WRITE",'
    '"operationParameters":{"mode":"Append"},"readVersion":6,"isolationLevel":"WriteSerializable",'
    '"isBlindAppend":true,"operationMetrics":{"numFiles":"1"},"engineInfo":"deltalakedb/0.1.0",'
    '"txnId":"0190a000-0000-7000-8000-000000000001","userMetadata":"{\\"job\\":\\"ä\\"}",'
    '"tags":{"commit_seq":"42"},"userName":"me","clusterId":null,"weird":1.50}}\n'
    '{"protocol":{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["appendOnly","invariants"]}}\n'
    '{"metaData":{"id":"m-1","schemaString":"{\\"type\\":\\"struct\\",\\"fields\\":[]}","partitionColumns":["day"],'
    '"configuration":{"delta.enableInCommitTimestamps":"true"},"createdTime":1700000000000,'
    '"format":{"provider":"parquet","options":{}}}}\n'
    '{"txn":{"appId":"a","version":9,"new":[1, 2]}}\n'
    '{"txn":{"appId":"b","version":2,"lastUpdated":1700000000123}}\n'
    '{"domainMetadata":{"domain":"c","configuration":"","removed":true}}\n'
    '{"domainMetadata":{"domain":"d","configuration":"{}","removed":false}}\n'
    '{"remove":{"path":"day=1/old%20file","dataChange":true,"deletionVector":{"storageType":"u",'
    '"pathOrInlineDv":"ab^-aqEH.-t@S}K{vb[*k^","offset":4,"sizeInBytes":40,"cardinality":6},'
    '"deletionTimestamp":1700000000123,"extendedFileMetadata":true,"partitionValues":{"day":"1"},"size":10,'
    '"baseRowId":5}}\n'
    '{"add":{"path":"day=__HIVE_DEFAULT_PARTITION__/a%25b.parquet","partitionValues":{"day":null},"size":10,'
    '"modificationTime":5,"dataChange":true,'
    '"stats":"{\\"numRecords\\": 3, \\"minValues\\":{\\"id\\":\\"\\\\\\"q\\\\\\"\\"}}"}}\n'
    '{"add":{"path":"day=2/ü.parquet","partitionValues":{"day":"2"},"size":20,"modificationTime":6,'
    '"dataChange":false,"deletionVector":{"storageType":"u","pathOrInlineDv":"ab^-aqEH.-t@S}K{vb[*k^","offset":4,'
    '"sizeInBytes":40,"cardinality":6},"tags":{"k":"v"},"baseRowId":1,"unknown":{"x": 1}}}\n'
    '{"cdc":{"path":"_change_data/c","partitionValues":{"day":"2"},"size":3,"dataChange":false}}\n'
    '{"mystery":{"a": 1.0}}\n'
)
MINIMAL = (
    '{"commitInfo":{"inCommitTimestamp":1700000000123,"timestamp":1700000000123,"operation":"WRITE",'
    '"operationParameters":{},"isBlindAppend":false,"txnId":"0190a000-0000-7000-8000-000000000001"}}\n'
)


def test_renderer_1_gives_its_bytes_for_ever() -> None:
    """commitInfo first, then a fixed order; absent fields are left out, unknown ones and all texts kept as they are."""
    assert render(EVERYTHING).decode() == GOLDEN


def test_a_version_without_anything_optional_is_one_line() -> None:
    """operationParameters is there even when it is empty, nothing else is."""
    bare = ROW._replace(
        operation_parameters="{}",
        operation_metrics="{}",
        read_version=None,
        isolation_level=None,
        is_blind_append=False,
        user_metadata=None,
        engine_info=None,
        tags=None,
        commit_info=None,
    )

    assert render(VersionActions(row=bare)).decode() == MINIMAL


def test_an_unknown_renderer_is_refused() -> None:
    """A version of a newer release is not guessed at."""
    with pytest.raises(TxnLogMirrorError, match="renderer 99"):
        render(VersionActions(row=ROW._replace(render_version=99)))


def test_every_line_is_one_json_object_with_one_key() -> None:
    """Line-oriented readers find one action per line, whatever spelling it came in."""
    lines = render(EVERYTHING).split(b"\n")
    parsed = [json.loads(line) for line in lines[:-1]]

    assert lines[-1] == b""
    assert all(len(line) == 1 for line in parsed)
    assert sorted(RENDERERS) == [1]


def test_a_version_of_others_keeps_its_commit_info() -> None:
    """An imported version says of itself what it said, and nothing more; or nothing, where there was nothing."""
    bare: dict[str, Any] = dict.fromkeys(("txn_id", "operation", "read_version", "isolation_level", "is_blind_append"))
    bare |= dict.fromkeys(("user_metadata", "engine_info", "tags", "operation_metrics"))
    told = {"origin": "IMPORTED", "operation_parameters": "{}", "commit_info": '{"timestamp":1.5,"txnId":null}', **bare}
    theirs = render(msgspec.structs.replace(EVERYTHING, row=ROW._replace(**told)))
    silent = render(msgspec.structs.replace(EVERYTHING, row=ROW._replace(**(told | {"commit_info": None}))))
    _, rest = render(EVERYTHING).split(b"\n", 1)

    assert theirs == b'{"commitInfo":{"timestamp":1.5,"txnId":null,"operationParameters":{}}}\n' + rest
    assert silent == rest


def test_commits_without_an_id_are_compared_by_what_they_say() -> None:
    """Nulls, defaults and order do not make a commit another one; its commitInfo does."""
    ours = b'{"commitInfo":{"operation":"WRITE"}}\n{"add":{"path":"a","partitionValues":{},"size":1,"modificationTime":2,"dataChange":true}}'
    theirs = b'{"add":{"tags":null,"size":1,"path":"a","partitionValues":{},"modificationTime":2,"stats":null}}\n{"commitInfo":{"operation":"WRITE"}}\n'

    assert same_commit(ours, theirs)
    assert not same_commit(ours, theirs.replace(b"WRITE", b"MERGE"))
    assert not same_commit(ours, theirs.replace(b'"size":1', b'"size":2'))


texts = st.text(max_size=20)
maps = st.dictionaries(texts, st.none() | texts, max_size=3)
integers = st.integers(-(2**63), 2**63 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
rests = st.none() | st.dictionaries(st.sampled_from(["x1", "tags", "neu ä", "baseRowId"]), json_values, min_size=1).map(
    lambda rest: msgspec.json.encode(rest).decode()
)
vectors = st.none() | st.builds(
    DeletionVector,
    storage_type=st.sampled_from("uip"),
    path_or_inline_dv=texts,
    offset=st.none() | st.integers(0, 2**31 - 1),
    size_in_bytes=st.integers(0, 2**31 - 1),
    cardinality=integers,
    max_row_index=st.none() | integers,
)
adds = st.builds(
    AddFile,
    path=texts,
    partition_values=maps,
    size=integers,
    modification_time=integers,
    data_change=st.booleans(),
    stats=st.none() | texts,
    deletion_vector=vectors,
    rest=rests,
)
removes = st.builds(
    RemoveFile,
    path=texts,
    data_change=st.booleans(),
    deletion_vector=vectors,
    deletion_timestamp=st.none() | integers,
    extended_file_metadata=st.none() | st.booleans(),
    partition_values=st.none() | maps,
    size=st.none() | integers,
    rest=rests,
)
cdcs = st.builds(CdcFile, path=texts, partition_values=maps, size=integers, rest=rests)
metadatas = st.builds(
    Metadata,
    id=texts,
    schema_string=texts,
    partition_columns=st.lists(texts, max_size=2).map(tuple),
    configuration=st.dictionaries(texts, texts, max_size=2),
    name=st.none() | texts,
    description=st.none() | texts,
    format_provider=texts,
    format_options=st.dictionaries(texts, texts, max_size=2),
    created_time=st.none() | integers,
    rest=rests,
)
protocols = st.builds(
    Protocol,
    min_reader_version=st.integers(0, 9),
    min_writer_version=st.integers(0, 9),
    reader_features=st.none() | st.lists(texts, max_size=2).map(tuple),
    writer_features=st.none() | st.lists(texts, max_size=2).map(tuple),
    rest=rests,
)
transactions = st.builds(SetTransaction, app_id=texts, version=integers, last_updated=st.none() | integers, rest=rests)
domains = st.builds(DomainMetadata, domain=texts, configuration=texts, removed=st.booleans(), rest=rests)
versions = st.builds(
    VersionActions,
    row=st.just(ROW),
    protocol=st.none() | protocols,
    metadata=st.none() | metadatas,
    txns=st.lists(transactions, max_size=3, unique_by=lambda txn: txn.app_id).map(tuple),
    domains=st.lists(domains, max_size=3, unique_by=lambda domain: domain.domain).map(tuple),
    removes=st.lists(removes, max_size=3).map(tuple),
    adds=st.lists(adds, max_size=3).map(tuple),
    cdc=st.lists(cdcs, max_size=3).map(tuple),
    others=st.just(()),
)


def parsed(data: bytes) -> dict[str, list[Any]]:
    """The actions of a log file by kind, as the library reads them; commitInfo left out."""
    found: dict[str, list[Any]] = {}
    for line in data.split(b"\n")[1:-1]:
        ((kind, body),) = msgspec.json.decode(line, type=dict[str, msgspec.Raw]).items()
        found.setdefault(kind, []).append(actions.from_json(kind, bytes(body)))
    return found


@given(versions)
def test_actions_are_the_same_after_rendering_and_parsing(version: VersionActions) -> None:
    """Nothing of any action is lost or changed between SQL and JSON, whatever characters it holds."""
    expected: dict[str, list[Any]] = {
        "protocol": [version.protocol] if version.protocol else [],
        "metaData": [version.metadata] if version.metadata else [],
        "txn": sorted(version.txns, key=lambda txn: txn.app_id),
        "domainMetadata": sorted(version.domains, key=lambda domain: domain.domain),
        "remove": list(version.removes),
        "add": list(version.adds),
        "cdc": list(version.cdc),
    }

    assert parsed(render(version)) == {kind: found for kind, found in expected.items() if found}


@given(versions, st.randoms())
def test_the_same_commit_is_recognised_in_other_bytes(version: VersionActions, dice: Any) -> None:
    """Order of lines, spelling of JSON and other commitInfo fields do not make a commit foreign; another id does."""
    ours = render(version)
    lines = [json.loads(line) for line in ours.split(b"\n")[:-1]]
    lines[0]["commitInfo"]["engineInfo"] = "another"
    dice.shuffle(lines)
    theirs = "\n".join(json.dumps(line) for line in lines).encode()
    stranger = theirs.replace(b"0190a000-0000-7000", b"0190a000-0000-7001")

    assert same_commit(ours, theirs)
    assert not same_commit(ours, stranger)
    assert not same_commit(ours, theirs + b'\n{"txn":{"appId":"zz-more","version":1}}')


@pytest.mark.parametrize("data", [b"", b"\n", b"{", b"[1]", b"null", b'{"add":1}', b"\xff\xfe", b"PAR1"])
def test_what_is_no_commit_is_nobodys(data: bytes) -> None:
    """Garbage is never taken for ours, and is no error either."""
    assert not same_commit(data, render(EVERYTHING))
    assert not same_commit(data, data)
