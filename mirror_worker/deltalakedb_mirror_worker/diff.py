"""`diff`: what SQL says of a table, held against what its `_delta_log` at a target says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import msgspec

from deltalakedb.actions import as_json
from deltalakedb.catalog import Catalog, MirrorProgress, TableInfo, VersionActions, VersionRow
from deltalakedb.database import Pool
from deltalakedb.deltalog import meaning
from deltalakedb.deltalog.checksums import contradictions
from deltalakedb.deltalog.last_checkpoint import named_version
from deltalakedb.deltalog.log import DeltaLog
from deltalakedb.deltalog.read_ahead import ReadAhead
from deltalakedb.deltalog.state import LogState
from deltalakedb.errors import TxnLogDeltaLogError
from deltalakedb.log_names import LAST_CHECKPOINT, log_folder, log_path

from . import properties
from .differences import Difference, Findings, compare, compare_files
from .places import Place
from .render import lines

_AT_ONCE = 1_000
_NAMES = {
    "path": "path",
    "size": "size",
    "modification_time": "modificationTime",
    "stats": "stats",
    "base_row_id": "baseRowId",
    "default_row_commit_version": "defaultRowCommitVersion",
    "clustering_provider": "clusteringProvider",
}
_JSON_NAMES = {"partition_values": "partitionValues", "tags": "tags"}
_VECTOR_NAMES = {
    "dv_storage_type": "storageType",
    "dv_path": "pathOrInlineDv",
    "dv_offset": "offset",
    "dv_size": "sizeInBytes",
    "dv_cardinality": "cardinality",
}


class Verdict(StrEnum):
    """How SQL and a log stand to each other."""

    EQUAL = "equal"
    LAG = "lag"
    """The log says what SQL said some versions ago."""
    DRIFT = "drift"
    """They say different things."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDiff:
    """What was found for one table at one target."""

    table: str
    target: str
    location: str
    verdict: Verdict
    sql_version: int
    log_version: int | None
    """The newest one in the log; None: there is no log."""
    counts: dict[str, int]
    """Number of differences by kind."""
    differences: tuple[Difference, ...]
    """The first ones of each kind, in full."""


def diff(pool: Pool, place: Place, table: MirrorProgress, target: str) -> TableDiff:
    """Compare a table at the newest version that SQL and the log at `place` both have, and its history up to there.

    Raises the errors of store and database; a log that cannot be read is a difference.
    """
    findings = Findings()
    log = DeltaLog(place.store, place.folder)
    newest = max((*log.listing.commits, *log.listing.checkpoints), default=-1)
    with pool.connection() as db, db.snapshot():
        catalog = Catalog(db)
        head = catalog.table(table_id=table.table_id)
        first = catalog.oldest_version(table.table_no) if table.status is None else table.status.publish_from
        if newest < first - 1:
            findings.add("log", place.uri, f"versions below {first}, which were there before the mirror", None)
        for version in log.listing.commits:
            # Who was given a table back may well write it.
            if version > head.version and table.state != "RELEASED":
                findings.add("log", log_path(place.folder, version), None, _commit_info_there(log, version))
        if newest >= 0:
            _check_hint(findings, log)
            _compare(findings, catalog, log, head, min(newest, head.version))
    behind = Verdict.LAG if newest < head.version else Verdict.EQUAL
    return TableDiff(
        table=table.name,
        target=target,
        location=place.uri,
        verdict=Verdict.DRIFT if findings.counts.total() else behind,
        sql_version=head.version,
        log_version=newest if newest >= 0 else None,
        counts={kind: count for kind, count in findings.counts.items() if count},
        differences=tuple(findings.shown),
    )


def _check_hint(findings: Findings, log: DeltaLog) -> None:
    """Some readers cannot read a table at all whose `_last_checkpoint` names what is not there."""
    path = f"{log_folder(log.folder)}{LAST_CHECKPOINT}"
    found = log.store.get(path)
    named = None if found is None else named_version(found.data)
    # It may be newer than the listing.
    if named is not None and named <= log.listing.newest and named not in log.listing.checkpoints:
        findings.add("log", path, None, f"it names a checkpoint of version {named}, and there is none")


def _compare(findings: Findings, catalog: Catalog, log: DeltaLog, head: TableInfo, version: int) -> None:
    try:
        with log.state(version) as state:
            table = catalog.table(table_id=head.table_id, version=version)
            _compare_state(findings, catalog, replace(table, live_files=head.live_files), log, state)
    except TxnLogDeltaLogError as error:
        findings.add("log", error.path or log.listing.place, None, str(error))
    _compare_history(findings, catalog, log, head.table_no, version)


def _compare_state(findings: Findings, catalog: Catalog, table: TableInfo, log: DeltaLog, state: LogState) -> None:
    compare(
        findings,
        "protocol",
        meaning.protocol(_plain("protocol", table.protocol)),
        meaning.protocol(meaning.parsed(state.protocol.json)),
    )
    compare(
        findings,
        "metaData",
        meaning.metadata(_plain("metaData", table.metadata)),
        meaning.metadata(meaning.parsed(state.metadata.json)),
    )
    compare(
        findings,
        "txn",
        _kept({txn.app_id: _plain("txn", txn) for txn in catalog.txns(table.table_no, table.version)}, table),
        _kept({name: meaning.parsed(action.json) for name, action in state.txns.items()}, table),
    )
    compare(
        findings,
        "domainMetadata",
        {
            domain.domain: meaning.domain(_plain("domainMetadata", domain))
            for domain in catalog.domains(table.table_no, table.version)
        },
        {name: meaning.domain(meaning.parsed(action.json)) for name, action in state.domains.items()},
    )
    compare_files(
        findings,
        lambda: _adds(catalog, table),
        lambda: (action.json for action in state.files() if action.kind == "add"),
        root=log.root,
        statistics=meaning.Statistics(table.metadata.schema_string) if _has_statistics(table) else None,
        files=table.live_files or 0,
    )
    for told in contradictions(log, state):
        findings.add("checksum", f"version {state.version}", None, told)


def _has_statistics(table: TableInfo) -> bool:
    """Whether the table wants statistics in its checkpoints; in what it is told from here they are then missing."""
    configuration = table.metadata.configuration
    return properties.stats_as_json(configuration) or properties.stats_as_struct(configuration)


def _kept(txns: Mapping[str, Any], table: TableInfo) -> dict[str, Any]:
    """Those that no checkpoint may leave out: once a retention is set, they have to be younger."""
    retention = properties.transaction_retention_ms(table.metadata.configuration)
    return {
        name: meaning.normal(txn)
        for name, txn in txns.items()
        if retention is None or (txn.get("lastUpdated") or 0) > table.time_ms - retention
    }


def _adds(catalog: Catalog, table: TableInfo) -> Iterator[str]:
    """The table's live files as `add` actions, as far as the protocol knows their fields."""
    for batch in catalog.files(table, names=(*_NAMES, *_JSON_NAMES, *_VECTOR_NAMES)):
        for row in batch.to_pylist():
            add: dict[str, Any] = {name: row[column] for column, name in _NAMES.items() if row[column] is not None}
            for column, name in _JSON_NAMES.items():
                if row[column] is not None:
                    add[name] = msgspec.Raw(row[column])
            if row["dv_storage_type"] is not None:
                pairs = ((name, row[column]) for column, name in _VECTOR_NAMES.items())
                add["deletionVector"] = {name: value for name, value in pairs if value is not None}
            yield msgspec.json.encode(add).decode()


def _compare_history(findings: Findings, catalog: Catalog, log: DeltaLog, table_no: int, version: int) -> None:
    """`commitInfo` of every version that both have. Of a baseline SQL may know nothing but the state."""
    before = version + 1
    with ReadAhead(log.store, log.listing, range(version, -1, -1)) as commits:
        while rows := catalog.history(table_no, limit=_AT_ONCE, before=before):
            before = rows[-1].version
            for row in rows:
                ours = _commit_info(row) if row.version in log.listing.commits else None
                if ours is not None and ours != (theirs := _commit_info_there(commits, row.version)):
                    _add_history(findings, row.version, ours, theirs)


def _add_history(findings: Findings, version: int, ours: dict[str, Any], theirs: Any) -> None:
    if isinstance(theirs, dict):
        wrong = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        ours, theirs = {name: ours.get(name) for name in wrong}, {name: theirs.get(name) for name in wrong}
    findings.add("history", f"version {version}", ours, theirs)


def _commit_info(row: VersionRow) -> dict[str, Any] | None:
    """The `commitInfo` that SQL gives for a version, as it is rendered."""
    for line in lines(VersionActions(row=row), (), ()):
        found = meaning.parsed(line.decode())
        if "commitInfo" in found:
            return dict(meaning.normal(found["commitInfo"]))
    return None


def _commit_info_there(commits: DeltaLog | ReadAhead, version: int) -> Any:
    """The `commitInfo` in a log file; in words what keeps it from being read, None if it has none."""
    try:
        for action in commits.commit(version):
            if action.kind == "commitInfo":
                return meaning.normal(meaning.parsed(action.json))
    except (TxnLogDeltaLogError, ValueError) as error:
        return str(error)
    return None


def _plain(kind: str, action: Any) -> dict[str, Any]:
    """An action of SQL as the JSON object that a log file has for it."""
    return dict(meaning.parsed(msgspec.json.encode(as_json(kind, action)).decode()))
