"""File actions of one table in one transaction: Delta's invariants within a commit, and what may be stored at all.

Everything here looks at the transaction, the table's facts and the live files it names; who else committed what in the
meantime is `conflicts`' to judge. Every refusal names the table, the action, and what is wrong with which value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from deltalakedb.actions import AddFile, CdcFile, DeletionVector, RemoveFile, own_fields
from deltalakedb.errors import Reason
from deltalakedb.events import TableWork
from deltalakedb.paths import is_plain, path_problem
from deltalakedb.slots import NO_SLOTS, SlotReader, Slots

from .facts import TableFacts
from .file_rest import ADD_REST, CDC_REST, REMOVE_REST, split_rest
from .json_limits import json_problem, repeats_a_key
from .partition_values import value_problem
from .refusal import Refused, said, shown
from .rules import Rules
from .state import FileKey, LiveFile, TableState

_INT32 = 2**31 - 1
_Z85 = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]*")
_UUID_LENGTH = 20  # of the Z85 text at the end of a deletion vector's path


class _Stats(msgspec.Struct):
    numRecords: int | None = None  # noqa: N815 - the protocol's names
    tightBounds: bool | None = None  # noqa: N815
    minValues: dict[str, Any] | None = None  # noqa: N815
    maxValues: dict[str, Any] | None = None  # noqa: N815
    nullCount: dict[str, Any] | None = None  # noqa: N815


_STATS = msgspec.json.Decoder(_Stats)


class Measures(NamedTuple):
    """What statistics say, per add."""

    num_records: tuple[int | None, ...]
    slots: tuple[Slots, ...]


class Superseded(NamedTuple):
    """Live rows that end."""

    removed: tuple[LiveFile, ...]
    """Per remove, the row it names."""
    replaced: tuple[LiveFile | None, ...]
    """Per add, the row of the same identity that it takes the place of; empty if there is none at all."""

    @property
    def rows(self) -> tuple[LiveFile, ...]:
        """All of them."""
        return (*self.removed, *[live for live in self.replaced if live is not None])


_NOTHING = Superseded((), ())


def check_files(work: TableWork, facts: TableFacts, table: TableState, rules: Rules) -> Measures:
    """Check the file actions of `work` by themselves, for the table as `facts` describe it. Raises `Refused`."""
    num_records: list[int | None] = []
    slots: list[Slots] = []
    paths: set[str] = set()
    for add in work.adds:
        if not is_plain(add.path):
            _check_path(add.path, "add", facts, table)
        paths.add(add.path)
        if add.size <= 0:
            raise _wrong(table, f"add {shown(add.path)} has size {add.size}: no Parquet file is that small")
        if add.modification_time < 0:
            raise _wrong(table, f"add {shown(add.path)} has modification time {add.modification_time}")
        if add.partition_values or facts.partition_columns:
            _check_partition(add.partition_values, add.path, facts, table, rules)
        records, file_slots = (None, NO_SLOTS) if add.stats is None else _measure(add, add.stats, facts, table, rules)
        if add.rest is not None:
            _check_rest("add", add.path, add.rest, table, rules)
        if add.deletion_vector is not None:
            _check_vector(add, add.deletion_vector, records, facts, table)
        if records is None and facts.row_tracking:
            raise _wrong(table, f"add {shown(add.path)} has no numRecords, which row tracking needs")
        num_records.append(records)
        slots.append(file_slots)
    if len(paths) != len(work.adds):
        raise _wrong(table, f"path {shown(_first_twice(work.adds))} is added twice in one transaction")
    if work.removes:
        _check_removes(work, facts, table, rules)
    if work.cdc:
        _check_change_data(work, facts, table, rules)
    return Measures(tuple(num_records), tuple(slots))


def read_stats(stats: str | None, reader: SlotReader | None, rules: Rules) -> tuple[int | None, Slots]:
    """Number of records and slots as far as statistics tell: nothing where they are none, or are not believable."""
    if stats is None or json_problem(stats, rules.max_chunk_bytes, rules.max_json_depth) is not None:
        return None, NO_SLOTS
    try:
        parsed = _STATS.decode(stats)
    except ValueError:
        return None, NO_SLOTS
    records = parsed.numRecords
    known = records is not None and 0 <= records < 2**63
    try:
        slots = NO_SLOTS if reader is None else reader.read(parsed.minValues, parsed.maxValues)
    except ValueError:
        slots = NO_SLOTS
    return records if known else None, slots


def check_live(work: TableWork, facts: TableFacts, table: TableState) -> Superseded:
    """Check the file actions of `work` against the files that are live: what they name must be there. Raises `Refused`."""
    if not work.removes and table.vectors.keys().isdisjoint([add.path for add in work.adds]):
        return _NOTHING
    removed = tuple([_live(remove, facts, table) for remove in work.removes])
    gone = {(remove.path, remove.dv_id) for remove in work.removes}
    replaced = tuple([_replaced(add, gone, table) for add in work.adds])
    return Superseded(removed, replaced if any(replaced) else ())


def _check_removes(work: TableWork, facts: TableFacts, table: TableState, rules: Rules) -> None:
    added = {add.path: add.dv_id for add in work.adds}
    for remove in work.removes:
        if facts.append_only and remove.data_change:
            raise Refused(
                Reason.APPEND_ONLY,
                f"remove {shown(remove.path)} changes data of an append-only table; unset delta.appendOnly first",
                table=table.name,
            )
        if remove.rest is not None:
            _check_rest("remove", remove.path, remove.rest, table, rules)
        if remove.deletion_vector is not None and (problem := _vector_problem(remove.deletion_vector)):
            raise _wrong(table, f"deletion vector of remove {shown(remove.path)}: {problem}")
        if added.get(remove.path) == remove.dv_id:
            raise _wrong(
                table,
                f"path {shown(remove.path)} is added and removed with the same deletion vector in one transaction: "
                "readers differ in what that means",
            )
    if len({remove.path for remove in work.removes}) != len(work.removes):
        raise _wrong(table, f"path {shown(_first_twice(work.removes))} is removed twice in one transaction")


def _live(remove: RemoveFile, facts: TableFacts, table: TableState) -> LiveFile:
    live = table.files.get((remove.path, remove.dv_id))
    if live is not None:
        return live  # and its path was checked when it came
    _check_path(remove.path, "remove", facts, table)
    others = sorted(table.vectors.get(remove.path, ()))
    hint = f" (it is, with deletion vector {shown(others[0])})" if others else ""
    vector = f" with deletion vector {shown(remove.dv_id)}" if remove.dv_id else ""
    raise Refused(
        Reason.FILE_NOT_LIVE,
        f"remove {shown(remove.path)}{vector}: no such file is live at version {table.version}{hint}; read the table "
        "again and decide anew",
        table=table.name,
        versions=(table.version,),
    )


def _replaced(add: AddFile, gone: set[FileKey], table: TableState) -> LiveFile | None:
    """The live row that an add takes the place of. Another live identity of its path has to be removed with it."""
    vectors = table.vectors.get(add.path)
    if not vectors:
        return None
    left = sorted(dv_id for dv_id in vectors if dv_id != add.dv_id and (add.path, dv_id) not in gone)
    if left:
        which = f"deletion vector {shown(left[0])}" if left[0] else "no deletion vector"
        raise _wrong(table, f"path {shown(add.path)} is live with {which}: add it again only together with its remove")
    return table.files.get((add.path, add.dv_id))


def _check_path(path: str, what: str, facts: TableFacts, table: TableState, *, change_data: bool = False) -> None:
    problem = path_problem(path, facts.partition_names, change_data=change_data)
    if problem is not None:
        raise Refused(
            Reason.INVALID_PATH,
            f"{what} {shown(path)}: {problem}; a path leads from the table's folder to a file in it",
            table=table.name,
        )


def _check_partition(
    values: Mapping[str, str | None], path: str, facts: TableFacts, table: TableState, rules: Rules
) -> None:
    columns = facts.partition_columns
    if values.keys() != columns.keys():
        wrong = sorted(values.keys() ^ columns.keys())[0]
        what = "is missing" if wrong in columns else "is not a partition column"
        raise Refused(
            Reason.PARTITION_MISMATCH,
            f"partition values of {shown(path)}: {shown(wrong)} {what}; the table is partitioned by "
            f"{', '.join(columns) or 'nothing'}",
            table=table.name,
        )
    for name, value in values.items():
        data_type, nullable = columns[name]
        problem: str | None
        if value is None:
            problem = None if nullable else "the column must not be null"
        elif len(value) * 4 > rules.max_partition_value_bytes and len(value.encode()) > rules.max_partition_value_bytes:
            problem = f"more than {rules.max_partition_value_bytes} bytes"
        else:
            problem = value_problem(data_type, value) if isinstance(data_type, str) else "not a simple type"
        if problem is not None:
            raise Refused(
                Reason.PARTITION_MISMATCH,
                f"partition value {shown(value)} of column {shown(name)} in {shown(path)}: {problem}",
                table=table.name,
            )


def _measure(add: AddFile, stats: str, facts: TableFacts, table: TableState, rules: Rules) -> tuple[int | None, Slots]:
    """Number of records and slots from a file's statistics, which readers trust: what is wrong in them loses rows."""
    problem = json_problem(stats, rules.max_stats_bytes, rules.max_json_depth)
    if problem is not None:
        raise _limit(table, f"stats of {shown(add.path)}: the JSON {problem}")
    try:
        parsed = _STATS.decode(stats)
        # A column may be named like this as well, so only a second look says.
        often = stats.count('"numRecords"') > 1 or stats.count('"minValues"') > 1 or stats.count('"maxValues"') > 1
        if often and repeats_a_key(stats):
            raise ValueError("an object has a key twice")
        records = parsed.numRecords
        if records is not None and not 0 <= records < 2**63:
            raise ValueError(f"numRecords is {shown(records)}")
        return records, facts.slots.read(parsed.minValues, parsed.maxValues)
    except ValueError as error:
        raise _wrong(
            table,
            f"stats of {shown(add.path)}: {said(error)}; correct them, or leave them out: readers trust them",
        ) from error


def _check_rest(kind: str, path: str, rest: str, table: TableState, rules: Rules) -> None:
    """Further fields are kept verbatim and merged into the action again: they must not stand in for checked ones."""
    columns = {"add": ADD_REST, "remove": REMOVE_REST, "cdc": CDC_REST}[kind]
    problem = json_problem(rest, rules.max_rest_bytes, rules.max_json_depth)
    if problem is not None:
        raise _limit(table, f"further fields of {kind} {shown(path)}: the JSON {problem}")
    try:
        raw = msgspec.json.decode(rest, type=dict[str, Any])
        if repeats_a_key(rest):
            raise ValueError("an object has a key twice")
        split_rest(rest, columns)
    except ValueError as error:
        raise _wrong(table, f"further fields of {kind} {shown(path)}: {said(error)}") from error
    taken = raw.keys() & (own_fields(kind) | {"dataChange"})
    if taken:
        raise _wrong(table, f"{kind} {shown(path)}: {min(taken)} has a field of its own in the event")


def _check_vector(
    add: AddFile, vector: DeletionVector, records: int | None, facts: TableFacts, table: TableState
) -> None:
    if not facts.vectors:
        raise Refused(
            Reason.FEATURE_UNSUPPORTED,
            f"add {shown(add.path)} has a deletion vector, and deletionVectors are not enabled for this table: set "
            "delta.enableDeletionVectors first",
            table=table.name,
        )
    if records is None:
        raise _wrong(table, f"add {shown(add.path)} has a deletion vector and no numRecords, which readers need then")
    problem = _vector_problem(vector)
    if problem is None and vector.cardinality > records:
        problem = f"it deletes {vector.cardinality} of {records} rows"
    if problem is not None:
        raise _wrong(table, f"deletion vector of {shown(add.path)}: {problem}")
    problem = _vector_path_problem(vector, table.location)
    if problem is not None:
        raise Refused(Reason.INVALID_PATH, f"deletion vector of {shown(add.path)}: {problem}", table=table.name)


def _vector_problem(vector: DeletionVector) -> str | None:
    kind = vector.storage_type
    if kind not in ("i", "p", "u"):
        return f"storage type {shown(kind)} is none of i, p and u"
    if not 0 < vector.size_in_bytes <= _INT32:
        return f"its size is {vector.size_in_bytes}"
    if vector.cardinality < 0:
        return f"its cardinality is {vector.cardinality}"
    if vector.offset is not None and (kind == "i" or not 0 <= vector.offset <= _INT32):
        return f"its offset is {vector.offset}"
    if vector.max_row_index is not None and vector.max_row_index < 0:
        return f"its maxRowIndex is {vector.max_row_index}"
    return None


def _vector_path_problem(vector: DeletionVector, location: str) -> str | None:
    """What is wrong with where a deletion vector lies: inline (i), by a UUID with a prefix (u), or at a URI (p)."""
    kind, where = vector.storage_type, vector.path_or_inline_dv
    if kind == "i":
        return None if where and _Z85.fullmatch(where) else "its inline text is not Z85"
    if kind == "u":
        prefix, uuid = where[:-_UUID_LENGTH], where[-_UUID_LENGTH:]
        if len(uuid) != _UUID_LENGTH or not _Z85.fullmatch(uuid):
            return f"{shown(where)} does not end with a UUID in Z85"
        problem = path_problem(f"{prefix}/file") if prefix else None
    else:
        root = location.rstrip("/") + "/"
        problem = path_problem(where[len(root) :]) if where.startswith(root) else f"it does not begin with {root}"
    return None if problem is None else f"{shown(where)} leads elsewhere: {problem}"


def _check_change_data(work: TableWork, facts: TableFacts, table: TableState, rules: Rules) -> None:
    if not facts.change_data:
        raise _wrong(table, "change data files (cdc) go only with delta.enableChangeDataFeed=true")
    # Where a version has change data files, a change feed is read from nothing else.
    if not any(f.data_change for f in work.adds) and not any(f.data_change for f in work.removes):
        raise _wrong(table, "change data files (cdc) tell of changed rows, but no add or remove here changes data")
    for cdc in work.cdc:
        _check_cdc(cdc, facts, table, rules)
    if len({cdc.path for cdc in work.cdc}) != len(work.cdc):
        raise _wrong(table, f"change data file {shown(_first_twice(work.cdc))} is there twice")


def _check_cdc(cdc: CdcFile, facts: TableFacts, table: TableState, rules: Rules) -> None:
    _check_path(cdc.path, "cdc", facts, table, change_data=True)
    if cdc.size <= 0:
        raise _wrong(table, f"cdc {shown(cdc.path)} has size {cdc.size}: no Parquet file is that small")
    if cdc.partition_values or facts.partition_columns:
        _check_partition(cdc.partition_values, cdc.path, facts, table, rules)
    if cdc.rest is not None:
        _check_rest("cdc", cdc.path, cdc.rest, table, rules)


def _first_twice(actions: tuple[AddFile, ...] | tuple[RemoveFile, ...] | tuple[CdcFile, ...]) -> str:
    seen: set[str] = set()
    for action in actions:
        if action.path in seen:
            return action.path
        seen.add(action.path)
    raise ValueError("every path is there once")


def _wrong(table: TableState, message: str) -> Refused:
    return Refused(Reason.INVALID_ACTION, message, table=table.name)


def _limit(table: TableState, message: str) -> Refused:
    return Refused(Reason.LIMIT_EXCEEDED, message, table=table.name)
