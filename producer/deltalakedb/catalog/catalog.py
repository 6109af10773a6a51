"""`Catalog`: every question that may be asked of a lake's SQL, over one connection."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from deltalakedb.actions import AddFile, DomainMetadata, RemoveFile, SetTransaction
from deltalakedb.database import Database, Row
from deltalakedb.errors import TxnLogTableNotFoundError, TxnLogValidationError
from deltalakedb.events import Outcome

from . import records
from .files import BATCH_ROWS, FILE_COLUMNS, PartitionFilter, read_files, read_tombstones
from .imports import ImportedTable, TablePlace, read_imported, read_places
from .lifetimes import FileKey, read_ended, read_ends, read_live
from .mirrors import read_progress, read_targets
from .missing import no_table, not_found, shown_time, table_names
from .records import columns
from .values import (
    CommitPoint,
    LakeInfo,
    MirrorProgress,
    MirrorTarget,
    SlotRange,
    TableInfo,
    VersionActions,
    VersionRow,
)
from .versions import Range, read_actions, read_rows, read_versions, stream_adds, stream_removes, version_row

if TYPE_CHECKING:
    import pyarrow as pa

_LAKE = tuple(LakeInfo.__dataclass_fields__)
_TABLE = ("table_no", "table_id", "name", "location", "state", "slot_columns", "first_version")
_VERSION = ("version", "commit_seq", "time_ms")

_SELECT = (
    f"SELECT {columns(_TABLE, 't')}, {columns(_VERSION, 'v')}, m.version, p.version, {{counts}}, "
    f"{columns(records.METADATA, 'm')}, {columns(records.PROTOCOL, 'p')} FROM dl_tables t "
)
_NEWEST = (
    _SELECT.format(counts="v.live_files, v.live_bytes")
    + "JOIN dl_table_heads v ON v.table_no = t.table_no "
    + "JOIN dl_metadata_updates m ON m.table_no = t.table_no AND m.version = v.metadata_version "
    + "JOIN dl_protocol_updates p ON p.table_no = t.table_no AND p.version = v.protocol_version "
)
_OLDER = (
    _SELECT.format(counts="NULL, NULL")
    + "JOIN dl_table_versions v ON v.table_no = t.table_no AND v.version = {version} AND v.version >= t.first_version "
    + "JOIN dl_metadata_updates m ON m.table_no = t.table_no AND m.version = "
    + "(SELECT max(x.version) FROM dl_metadata_updates x WHERE x.table_no = t.table_no AND x.version <= v.version) "
    + "JOIN dl_protocol_updates p ON p.table_no = t.table_no AND p.version = "
    + "(SELECT max(x.version) FROM dl_protocol_updates x WHERE x.table_no = t.table_no AND x.version <= v.version) "
)
_AT_COMMIT = _OLDER.format(
    version="(SELECT x.version FROM dl_table_versions x WHERE x.table_no = t.table_no AND x.commit_seq <= ? "
    "ORDER BY x.commit_seq DESC LIMIT 1)"
)
_THERE_AT = "t.created_seq <= ? AND (t.dropped_seq IS NULL OR t.dropped_seq > ?)"
_IN_USE = "t.state <> 'DROPPED'"
_AT_VERSION = _OLDER.format(version="?")
_READABLE = "v.version >= t.first_version"
# Every version of a commit has its time, so that this is the newest commit too; imported versions have only a time.
_AT_TIME = _OLDER.format(
    version="(SELECT x.version FROM dl_table_versions x WHERE x.table_no = t.table_no AND x.time_ms <= ? "
    "ORDER BY x.time_ms DESC LIMIT 1)"
)
_THERE_THEN = "(t.state <> 'DROPPED' OR (SELECT c.time_ms FROM dl_commits c WHERE c.commit_seq = t.dropped_seq) > ?)"

# The newest row of each app or domain, by index probes only, however many versions carry one.
_IN_FORCE = """
    WITH RECURSIVE keys (name) AS (
        SELECT min(a.{key}) FROM {table} a WHERE a.table_no = ?
        UNION ALL
        SELECT (SELECT min(a.{key}) FROM {table} a WHERE a.table_no = ? AND a.{key} > keys.name)
        FROM keys WHERE keys.name IS NOT NULL
    )
    SELECT {columns} FROM keys CROSS JOIN {table} a WHERE a.table_no = ? AND a.{key} = keys.name AND a.version =
        (SELECT max(x.version) FROM {table} x WHERE x.table_no = ? AND x.{key} = keys.name AND x.version <= ?)
        AND a.version >= (SELECT t.first_version FROM dl_tables t WHERE t.table_no = a.table_no)
    ORDER BY a.{key}
"""
_TXNS = _IN_FORCE.format(table="dl_txn_actions", key="app_id", columns=columns(records.TXN, "a"))
_DOMAINS = _IN_FORCE.format(table="dl_domain_metadata", key="domain", columns=columns(records.DOMAIN, "a"))

_SIZE = (
    "SELECT CAST(COALESCE(sum(x.files), 0) AS BIGINT), CAST(COALESCE(sum(x.bytes), 0) AS BIGINT) FROM ("
    "SELECT count(*) AS files, sum(size) AS bytes FROM dl_live_files WHERE table_no = ? AND version <= ? UNION ALL "
    "SELECT count(*), sum(size) FROM dl_past_files WHERE table_no = ? AND removed_version > ? AND version <= ?) x"
)


class Catalog:
    """Reads a lake's SQL metadata, and never writes. Each method is one statement, and so one state of the lake, unless
    it says otherwise; `with database.snapshot():` around several makes them one state too.

    Every method raises `TxnLogDatabaseError` if the store fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # The lake.

    def lake(self) -> LakeInfo | None:
        """What the store remembers; None if no lake was made in it."""
        rows = self._database.query(f"SELECT {columns(_LAKE, 'l')} FROM dl_lake l")
        return LakeInfo(**dict(zip(_LAKE, rows[0], strict=True))) if rows else None

    def head(self) -> CommitPoint:
        """The newest commit."""
        rows = self._database.query("SELECT commit_seq, time_ms FROM dl_commits ORDER BY commit_seq DESC LIMIT 1")
        return CommitPoint(*rows[0]) if rows else CommitPoint(0, 0)

    def commit(self, *, commit_seq: int | None = None, timestamp_ms: int | None = None) -> CommitPoint:
        """The commit of that number, or the newest one not after that time; the newest of all for neither.

        Raises `TxnLogValidationError`, naming what there is, for a number or a time outside the lake's history.
        """
        if commit_seq is None and timestamp_ms is None:
            return self.head()
        if commit_seq == 0:
            return CommitPoint(0, 0)
        if commit_seq is not None:
            found = self._database.query(
                "SELECT commit_seq, time_ms FROM dl_commits WHERE commit_seq = ?", [commit_seq]
            )
        else:
            found = self._database.query(
                "SELECT commit_seq, time_ms FROM dl_commits WHERE time_ms <= ? "
                "ORDER BY time_ms DESC, commit_seq DESC LIMIT 1",
                [timestamp_ms],
            )
        if found:
            return CommitPoint(*found[0])
        first = self._database.query("SELECT commit_seq, time_ms FROM dl_commits ORDER BY commit_seq LIMIT 1")
        if not first:
            raise TxnLogValidationError("the lake has no commit yet")
        newest = self.head()
        asked = f"commit {commit_seq}" if commit_seq is not None else f"commit at or before {shown_time(timestamp_ms)}"
        raise TxnLogValidationError(
            f"the lake has no {asked}: its commits are {first[0][0]} ({shown_time(first[0][1])}) "
            f"to {newest.commit_seq} ({shown_time(newest.time_ms)})"
        )

    # Tables.

    def tables(self, *, commit_seq: int | None = None) -> list[TableInfo]:
        """All tables by name, as they are now or as they were at a commit (an earlier or later number is no error).

        What is being imported is there now, and at no commit before the one that adopts it.
        """
        if commit_seq is None:
            rows = self._database.query(_NEWEST + "WHERE t.state <> 'DROPPED' ORDER BY t.name")
        else:
            rows = self._database.query(
                f"{_AT_COMMIT} WHERE {_THERE_AT} ORDER BY t.name",
                [commit_seq, commit_seq, commit_seq],
            )
        return [_table(row) for row in rows]

    def table(
        self,
        name: str | None = None,
        *,
        table_id: str | None = None,
        commit_seq: int | None = None,
        version: int | None = None,
        timestamp_ms: int | None = None,
    ) -> TableInfo:
        """The table of that name or id: as it is now, at a commit of the lake, at a version, or at a time.

        A time means the newest version that is not after it. Raises `TxnLogTableNotFoundError` if there is no such
        table (at that commit), `TxnLogValidationError`, naming what there is, for a version or time that the table does
        not have, or has as history only. The wording of an error takes a second statement.
        """
        which, key = ("t.table_id = ?", table_id) if table_id is not None else ("t.name = ?", name)
        if timestamp_ms is not None:
            statement = f"{_AT_TIME} WHERE {which} AND {_THERE_THEN} AND {_READABLE}"
            parameters: list[Any] = [timestamp_ms, key, timestamp_ms]
        elif version is not None:
            statement, parameters = f"{_AT_VERSION} WHERE {which} AND {_IN_USE} AND {_READABLE}", [version, key]
        elif commit_seq is not None:
            statement = f"{_AT_COMMIT} WHERE {which} AND {_THERE_AT}"
            parameters = [commit_seq, key, commit_seq, commit_seq]
        else:
            statement, parameters = f"{_NEWEST} WHERE {which} AND {_IN_USE}", [key]
        rows = self._database.query(statement, parameters)
        if rows:
            return _table(rows[0])
        raise not_found(self._database, which, key, version=version, commit_seq=commit_seq, timestamp_ms=timestamp_ms)

    def find(self, name: str) -> TableInfo | None:
        """The table of that name as it is now; None if there is none, or nothing of it can be read yet."""
        rows = self._database.query(f"{_NEWEST} WHERE t.name = ? AND {_IN_USE}", [name])
        return _table(rows[0]) if rows else None

    def no_table(self, name: str) -> TxnLogTableNotFoundError:
        """The error for a name that no table has: it names those that may have been meant."""
        return no_table(name, table_names(self._database))

    def oldest_version(self, table_no: int) -> int:
        """The oldest version of a table that can be reconstructed."""
        ((version,),) = self._database.query("SELECT t.first_version FROM dl_tables t WHERE t.table_no = ?", [table_no])
        return int(version)

    def importing(self) -> dict[str, tuple[str, int]]:
        """Id and newest version, by name, of every table that is being imported and can be read already."""
        rows = self._database.query(
            "SELECT t.name, t.table_id, h.version FROM dl_tables t JOIN dl_table_heads h ON h.table_no = t.table_no "
            "WHERE t.created_seq IS NULL AND t.state = 'IMPORTING' AND h.version >= t.first_version"
        )
        return {name: (table_id, version) for name, table_id, version in rows}

    def history(self, table_no: int, *, limit: int | None = None, before: int | None = None) -> list[VersionRow]:
        """Versions of a table, newest first: those below `before`, `limit` of them at most."""
        rows = self._database.query(
            f"SELECT {columns(records.VERSION, 'v')} FROM dl_table_versions v WHERE v.table_no = ? AND v.version < ? "
            "ORDER BY v.version DESC LIMIT ?",
            [table_no, 2**63 - 1 if before is None else before, 2**31 if limit is None else limit],
        )
        return [version_row(row) for row in rows]

    def txns(self, table_no: int, version: int) -> list[SetTransaction]:
        """The `txn` actions in force at a version: the newest of each application."""
        rows = self._database.query(_TXNS, [table_no, table_no, table_no, table_no, version])
        return [records.txn(row) for row in rows]

    def domains(self, table_no: int, version: int) -> list[DomainMetadata]:
        """The domain metadata in force at a version, without removed domains."""
        rows = self._database.query(_DOMAINS, [table_no, table_no, table_no, table_no, version])
        return [domain for domain in map(records.domain, rows) if not domain.removed]

    def imported(self, name: str) -> ImportedTable | None:
        """The table of that name as its import left it, also while it has no version yet; None if there is none."""
        return read_imported(self._database, name)

    def places(self) -> list[TablePlace]:
        """Where every table lies, also one that has no version yet."""
        return read_places(self._database)

    # Files and actions.

    def files(
        self,
        table: TableInfo,
        *,
        partitions: PartitionFilter | None = None,
        ranges: Sequence[SlotRange] = (),
        names: Sequence[str] = FILE_COLUMNS,
        batch: int = BATCH_ROWS,
        many: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """The files of `table` at its version, as `read_files` gives them. Inside a `snapshot()` only."""
        return read_files(
            self._database, table, partitions=partitions, ranges=ranges, names=names, batch=batch, many=many
        )

    def size_at(self, table: TableInfo) -> tuple[int, int]:
        """How many files `table` has at its version, and their bytes together: counted, not looked up."""
        ((files, size),) = self._database.query(
            _SIZE, [table.table_no, table.version, table.table_no, *[table.version] * 2]
        )
        return files, size

    def tombstones(
        self, table: TableInfo, *, after_ms: int, batch: int = BATCH_ROWS, many: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """What was removed after a time, as `read_tombstones` gives it. Inside a `snapshot()` only."""
        return read_tombstones(self._database, table, after_ms=after_ms, batch=batch, many=many)

    def versions(self, ranges: Sequence[Range], *, files: bool = True) -> list[VersionActions]:
        """Versions with all their actions, by table and version, from ranges of (table_no, first, last).

        Without `files` adds and removes are left out. Several statements: inside a `snapshot()` only.
        """
        return read_versions(self._database, ranges, files=files)

    def version_rows(self, ranges: Sequence[Range]) -> list[VersionRow]:
        """The same versions without any action."""
        return read_rows(self._database, ranges)

    def actions(self, rows: Sequence[VersionRow]) -> list[VersionActions]:
        """The same versions with all their actions, from what `version_rows` gave in the same `snapshot()`."""
        return read_actions(self._database, rows)

    def adds(self, table_no: int, version: int) -> Iterator[AddFile]:
        """The adds of one version in their order, never all of them at once. Inside a `snapshot()` only."""
        return stream_adds(self._database, table_no, version)

    def removes(self, table_no: int, version: int) -> Iterator[RemoveFile]:
        """The removes of one version, as `adds`."""
        return stream_removes(self._database, table_no, version)

    def ended(self, table_no: int, version: int) -> list[AddFile]:
        """The files that were live before a version and ended with it, as they were."""
        return read_ended(self._database, table_no, version)

    def live(self, table_no: int, paths: Collection[str]) -> dict[FileKey, int]:
        """The files of these paths that are live now, with the version that added them."""
        return read_live(self._database, table_no, paths)

    def ends(self, table_no: int, version: int, paths: Collection[str]) -> dict[FileKey, int]:
        """Of the files of these paths that a version added and that are live no more, the version that ended them."""
        return read_ends(self._database, table_no, version, paths)

    # Transactions.

    def outcomes(self, txn_ids: Sequence[str]) -> dict[str, Outcome]:
        """The decisions there are about these transactions.

        Where nothing was decided under an id, but a record that could not be decoded claimed it, the decision about the
        first such record.
        """
        rows = self._database.query(
            "SELECT claimed_txn_id, outcome, position FROM dl_transactions WHERE claimed_txn_id = ANY(?) "
            "UNION ALL SELECT txn_id, outcome, NULL FROM dl_transactions WHERE txn_id = ANY(?)",
            [txn_ids, txn_ids],
        )
        # What was decided under the id itself comes last and wins; of what only claimed it, the first record.
        rows.sort(key=lambda row: (row[2] is None, -(row[2] or 0)))
        return {txn_id: msgspec.json.decode(outcome, type=Outcome) for txn_id, outcome, _ in rows}

    def outcome(self, txn_id: str) -> Outcome | None:
        """The decision about one transaction, as `outcomes`; None while there is none."""
        return self.outcomes([txn_id]).get(txn_id)

    def position(self) -> int:
        """Of the next record that the committer reads."""
        ((position,),) = self._database.query("SELECT position FROM dl_committer_position")
        return int(position)

    def stream_identity(self) -> str:
        """Of the staged stream that the lake was made with."""
        ((identity,),) = self._database.query("SELECT stream_identity FROM dl_committer_position")
        return str(identity)

    # Mirrors.

    def targets(self) -> list[MirrorTarget]:
        """All mirror targets, removed ones included."""
        return read_targets(self._database)

    def progress(self, target: str, *, behind: bool = False) -> list[MirrorProgress]:
        """Every table beside its status on a target; with `behind` only those that lack a version there."""
        return read_progress(self._database, target, behind=behind)


def _table(row: Row) -> TableInfo:
    table_no, table_id, name, location, state, slots, first_version, version, commit_seq, time_ms = row[:10]
    metadata_version, protocol_version, live_files, live_bytes, *actions = row[10:]
    return TableInfo(
        table_no=table_no,
        table_id=table_id,
        name=name,
        location=location,
        state=state,
        slot_columns=msgspec.json.decode(slots, type=tuple[tuple[str, ...], ...]),
        first_version=first_version,
        version=version,
        commit_seq=commit_seq,
        time_ms=time_ms,
        metadata=records.metadata(actions[: len(records.METADATA)]),
        metadata_version=metadata_version,
        protocol=records.protocol(actions[len(records.METADATA) :]),
        protocol_version=protocol_version,
        live_files=live_files,
        live_bytes=live_bytes,
    )
