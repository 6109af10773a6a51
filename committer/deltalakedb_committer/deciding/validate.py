"""Single file actions: what may be stored at all, for a table as its facts describe it; and what is said against them.

How the actions of a transaction go together, and with the files that are live, is for `files` to find, who else
committed what in the meantime for `conflicts`. Every refusal names the table, the action, and what is wrong with which
value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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
from .state import TableState

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


def check_adds(adds: Iterable[AddFile], facts: TableFacts, table: TableState, rules: Rules) -> Measures:
    """Check each add by itself, for the table as `facts` describe it. Raises `Refused`."""
    num_records: list[int | None] = []
    slots: list[Slots] = []
    for add in adds:
        if not is_plain(add.path):
            _check_path(add.path, "add", facts, table)
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
    return Measures(tuple(num_records), tuple(slots))


def check_remove(remove: RemoveFile, facts: TableFacts, table: TableState, rules: Rules) -> None:
    """Check a remove by itself, as `check_adds`."""
    if facts.append_only and remove.data_change:
        raise Refused(
            Reason.APPEND_ONLY,
            f"remove {shown(remove.path)} changes data of an append-only table; unset delta.appendOnly first",
            table=table.name,
        )
    if "\0" in remove.path:
        _check_path(remove.path, "remove", facts, table)
    if remove.rest is not None:
        _check_rest("remove", remove.path, remove.rest, table, rules)
    if remove.deletion_vector is not None and (problem := _vector_problem(remove.deletion_vector)):
        raise _wrong(table, f"deletion vector of remove {shown(remove.path)}: {problem}")


def added_twice(path: str, table: TableState) -> Refused:
    """That `path` is there twice among the adds."""
    return _wrong(table, f"path {shown(path)} is added twice in one transaction")


def removed_twice(path: str, table: TableState) -> Refused:
    """That `path` is there twice among the removes."""
    return _wrong(table, f"path {shown(path)} is removed twice in one transaction")


def both(path: str, table: TableState) -> Refused:
    """That a file is added and removed."""
    return _wrong(
        table,
        f"path {shown(path)} is added and removed with the same deletion vector in one transaction: readers differ in "
        "what that means",
    )


def not_live(path: str, dv_id: str, vectors: Iterable[str], facts: TableFacts, table: TableState) -> Refused:
    """That the file of a remove is not live; `vectors` are those that its path is live with. Raises `Refused` for a
    path that no file has."""
    _check_path(path, "remove", facts, table)
    others = sorted(vectors)
    hint = f" (it is, with deletion vector {shown(others[0])})" if others else ""
    vector = f" with deletion vector {shown(dv_id)}" if dv_id else ""
    return Refused(
        Reason.FILE_NOT_LIVE,
        f"remove {shown(path)}{vector}: no such file is live at version {table.version}{hint}; read the table again "
        "and decide anew",
        table=table.name,
        versions=(table.version,),
    )


def left_live(path: str, dv_id: str, table: TableState) -> Refused:
    """That an add leaves its path live with another deletion vector, `dv_id`."""
    which = f"deletion vector {shown(dv_id)}" if dv_id else "no deletion vector"
    return _wrong(table, f"path {shown(path)} is live with {which}: add it again only together with its remove")


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
    if "\0" in vector.path_or_inline_dv:
        return "it has a NUL character in it"
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


def check_change_data(
    work: TableWork, facts: TableFacts, table: TableState, rules: Rules, *, changes_data: bool
) -> None:
    """Check the change data files of a transaction whose adds and removes change data or do not. Raises `Refused`."""
    if not facts.change_data:
        raise _wrong(table, "change data files (cdc) go only with delta.enableChangeDataFeed=true")
    # Where a version has change data files, a change feed is read from nothing else.
    if not changes_data:
        raise _wrong(table, "change data files (cdc) tell of changed rows, but no add or remove here changes data")
    for cdc in work.cdc:
        _check_cdc(cdc, facts, table, rules)
    if len({cdc.path for cdc in work.cdc}) != len(work.cdc):
        raise _wrong(table, f"change data file {shown(first_twice(work.cdc))} is there twice")


def _check_cdc(cdc: CdcFile, facts: TableFacts, table: TableState, rules: Rules) -> None:
    _check_path(cdc.path, "cdc", facts, table, change_data=True)
    if cdc.size <= 0:
        raise _wrong(table, f"cdc {shown(cdc.path)} has size {cdc.size}: no Parquet file is that small")
    if cdc.partition_values or facts.partition_columns:
        _check_partition(cdc.partition_values, cdc.path, facts, table, rules)
    if cdc.rest is not None:
        _check_rest("cdc", cdc.path, cdc.rest, table, rules)


def first_twice(actions: Sequence[AddFile] | Sequence[RemoveFile] | Sequence[CdcFile]) -> str:
    """The first path that is there a second time."""
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
