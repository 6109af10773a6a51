"""Whether what others committed in the meantime stands against a transaction: per table, from its read version on.

Blindness, downgrade and isolation level are found once for the whole transaction: per table, a transaction that reads
one table and writes another would pass where a serial order does not exist.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from deltalakedb.errors import Reason
from deltalakedb.events import Content, ReadSet, TableWork
from deltalakedb.schema_evolution import accepts

from .facts import LEVELS, SERIALIZABLE, SNAPSHOT_ISOLATION, TableFacts, is_mapped, parsed_schema
from .files import Files
from .read_predicates import PartitionValues, is_postfix, may_match
from .refusal import Refused, shown
from .rules import Rules
from .state import TableState, Winner

READ_AGAIN = "read the table again and decide anew"
_NOTHING_READ: Final = ReadSet()
_Values = tuple[tuple[str, str | None], ...]


class Level(NamedTuple):
    """What holds for all tables of a transaction."""

    isolation: str
    blind: bool
    """It read nothing anywhere, and all its file actions are adds: it conflicts with no data."""


class Effort:
    """How many more terms of predicates may be compared for one transaction: others wait for it meanwhile."""

    __slots__ = ("_left",)

    def __init__(self, allowed: int) -> None:
        self._left = allowed

    def suffices(self, comparisons: int) -> bool:
        """Whether there is that much left; it is gone then."""
        self._left -= comparisons
        return self._left >= 0


def level_of(content: Content, files: Iterable[Files], tables: Iterable[str]) -> Level:
    """The level of a transaction whose tables have `files` and the isolation levels `tables`. Raises `Refused`."""
    asked = content.isolation
    if asked is not None and asked not in LEVELS:
        raise Refused(Reason.INVALID_ACTION, f"isolation {shown(asked)} is none of {', '.join(LEVELS)}")
    blind = True
    changes_data = bool(content.apps)
    for work, of_table in zip(content.tables, files, strict=True):
        if of_table.removes or work.cdc or reads(work):
            blind = False
        changes_data = changes_data or bool(work.intents or work.others or work.cdc) or of_table.changes_data
    levels = [] if asked is None else [asked]
    if changes_data:
        levels += tables
    return Level(max(levels, key=LEVELS.index, default=SNAPSHOT_ISOLATION), blind)


def reads(work: TableWork) -> bool:
    """Whether data of the table was read."""
    found = work.read_set
    return found is not None and bool(found.whole_table or found.files or found.predicates)


def check_reads(work: TableWork, table: TableState) -> None:
    """Check that what a transaction says it read can have been read. Raises `Refused`."""
    version = work.read_version
    if version is not None and not 0 <= version <= table.version:
        raise Refused(
            Reason.READ_VERSION_INVALID,
            f"read version {version} is none of the table's: it has 0 to {table.version}",
            table=table.name,
            versions=(version, table.version),
        )
    if work.read_set is None:
        return
    if version is None:
        raise Refused(
            Reason.READ_VERSION_INVALID,
            "there is a read set and no read version: say which version was read",
            table=table.name,
        )
    if not all(map(is_postfix, work.read_set.predicates)):
        raise Refused(
            Reason.INVALID_ACTION,
            "a predicate of the read set is no condition in postfix order: operands come before their operator",
            table=table.name,
        )


def check_conflicts(
    work: TableWork,
    files: Files,
    table: TableState,
    level: Level,
    rules: Rules,
    effort: Effort,
    *,
    domains: Collection[str],
    changes_metadata: bool,
) -> None:
    """Check one table against its winners, in order. Raises `Refused` naming the first that stands against `work`, or
    the one for which the `effort` does not suffice.

    `domains` are those that it sets; who changes the metadata has to have seen blind appends, too.
    """
    version = work.read_version
    if version is None:
        if files.removes and level.isolation == SERIALIZABLE:
            raise Refused(
                Reason.READ_VERSION_INVALID,
                "under Serializable a remove needs the version that was read (read_version); or set the table's "
                "delta.isolationLevel to WriteSerializable, under which a live file may be removed without",
                table=table.name,
            )
        return
    if work.read_set is not None:
        _check_apps(work.read_set, version, table)
    judged = reads(work) or bool(files.removes and level.isolation == SERIALIZABLE)
    if not judged and not domains:
        return
    distance = table.version - version
    if distance > rules.read_distance:
        what = f" and the table is at {table.version}; at most {rules.read_distance} versions may lie between: {READ_AGAIN}"
        raise _too_old(table, version, table.version, what)
    done = _Done(work, files, table.facts_under(rules), level.isolation, changes_metadata=changes_metadata)
    for winner in table.winners:
        if winner.version <= version:
            continue
        if winner.imported:
            what = f", and version {winner.version} came from another log since: {READ_AGAIN}"
            raise _too_old(table, version, winner.version, what)
        if judged and not effort.suffices(done.comparisons(winner)):
            what = (
                ", and others have written to too many partitions since to compare what was read with all of them "
                f"({rules.max_comparisons} comparisons): {READ_AGAIN}, or by shorter predicates"
            )
            raise _too_old(table, version, winner.version, what)
        reason, what = done.conflict(winner) if judged else (None, "")
        if reason is None and domains:
            common = winner.domains.intersection(domains)
            if common:
                reason, what = Reason.CONCURRENT_TRANSACTION, f"set the domain metadata {shown(min(common))} as well"
        if reason is not None:
            raise _conflict(
                reason,
                f"version {version} was read, and version {winner.version} {what}",
                table,
                (version, winner.version),
                winner,
            )


def check_written_against(work: TableWork, table: TableState, facts: TableFacts) -> None:
    """Check that files written for older metadata are valid under what the table has now. Raises `Refused`."""
    against = work.written_against
    if against is None:
        known = work.read_version if work.read_version is not None else 0
        if table.metadata_version > known:
            raise Refused(
                Reason.SCHEMA_CHANGED,
                f"the table's metadata was changed by version {table.metadata_version}, and the files do not say what "
                "they were written against: say so (written_against), or read_version",
                table=table.name,
                versions=(known, table.metadata_version),
            )
        return
    for version in (against.metadata_version, against.protocol_version):
        if not 0 <= version <= table.version:
            raise Refused(
                Reason.READ_VERSION_INVALID,
                f"files are written against version {version}, which is none of the table's: it has 0 to "
                f"{table.version}",
                table=table.name,
                versions=(version, table.version),
            )
    if against.metadata_version == table.metadata_version:
        return
    older = table.past_metadata.get(against.metadata_version)
    if older is None:
        raise Refused(
            Reason.READ_VERSION_INVALID,
            f"files are written against the metadata of version {against.metadata_version}, which set none (the "
            f"newest was set by version {table.metadata_version})",
            table=table.name,
            versions=(against.metadata_version, table.metadata_version),
        )
    reason = (
        "column mapping was turned off"
        if is_mapped(older) and not facts.mapped
        else accepts(parsed_schema(older.schema_string), facts.schema, mapped=facts.mapped)
    )
    if reason is not None:
        raise _conflict(
            Reason.SCHEMA_CHANGED,
            f"files were written against the metadata of version {against.metadata_version} and are not valid under "
            f"that of version {table.metadata_version}: {reason}",
            table,
            (against.metadata_version, table.metadata_version),
            _winner(table, table.metadata_version),
        )


def _too_old(table: TableState, version: int, newer: int, what: str) -> Refused:
    return Refused(
        Reason.READ_TOO_OLD, f"version {version} was read{what}", table=table.name, versions=(version, newer)
    )


def _check_apps(found: ReadSet, version: int, table: TableState) -> None:
    for app_id in found.app_ids:
        newest = table.txns.get(app_id)
        if newest is not None and newest.table_version > version:
            raise _conflict(
                Reason.CONCURRENT_TRANSACTION,
                f"the transaction version of application {shown(app_id)} was read at version {version} and set by "
                f"version {newest.table_version}",
                table,
                (version, newest.table_version),
                _winner(table, newest.table_version),
            )


class _Done:
    """What a transaction read of a table and does to it, as far as winners can stand against it."""

    __slots__ = (
        "_counts_blind_appends",
        "_files",
        "_isolation",
        "_matches",
        "_partitioning",
        "_predicates",
        "_read",
        "_terms",
        "_whole",
    )

    def __init__(
        self, work: TableWork, files: Files, facts: TableFacts, isolation: str, *, changes_metadata: bool
    ) -> None:
        found = work.read_set or _NOTHING_READ
        self._isolation = isolation
        self._counts_blind_appends = isolation == SERIALIZABLE or changes_metadata
        self._partitioning = facts.partitioning
        self._predicates = found.predicates
        self._whole = found.whole_table
        self._read = frozenset(found.files)
        self._files = files
        self._matches: dict[_Values, bool] = {}
        """By partition values that winners have written to, whether a predicate may have been true there."""
        self._terms = sum(1 + len(term.literals) for predicate in found.predicates for term in predicate.terms)

    def comparisons(self, winner: Winner) -> int:
        """How many terms `conflict` has to compare: none for partition values that it has met before."""
        if self._whole or not self._partitioning or not self._predicates:
            return 0
        added_to = () if self._isolation == SNAPSHOT_ISOLATION else winner.added_to
        return self._terms * len({_values(each) for each in (*added_to, *winner.removed_from)} - self._matches.keys())

    def conflict(self, winner: Winner) -> tuple[Reason | None, str]:
        """Why `winner` stands against it, if it does: Delta's rules, in Delta's order."""
        if winner.changes_metadata:
            return Reason.METADATA_CHANGED, "changed the table's metadata"
        if winner.changes_protocol:
            return Reason.PROTOCOL_CHANGED, "changed the table's protocol"
        if winner.added_files and self._isolation != SNAPSHOT_ISOLATION and self._would_have_read(winner.added_to):
            if not winner.is_blind_append:
                return Reason.CONCURRENT_APPEND, "added files that would have been read"
            if self._counts_blind_appends:
                return (
                    Reason.CONCURRENT_APPEND,
                    "added files that would have been read, which stands against a reader under Serializable",
                )
        if winner.removed_files:
            if self._whole or self._read & winner.removed_paths or self._matched(winner.removed_from):
                return Reason.CONCURRENT_DELETE_READ, "removed files that were read"
            if self._files.removed_by(winner):
                return Reason.CONCURRENT_DELETE_DELETE, "removed a file that this removes"
        return None, ""

    def _would_have_read(self, added_to: Sequence[PartitionValues]) -> bool:
        return self._whole or not self._partitioning or self._matched(added_to)

    def _matched(self, files: Sequence[PartitionValues]) -> bool:
        """Whether a predicate may have been true of rows of files with one of these partition values."""
        if not self._partitioning:
            return bool(self._predicates)
        # All of them, so that what is met for the first time does not depend on their order.
        matches = [self._may_match(values) for values in files]
        return any(matches)

    def _may_match(self, values: PartitionValues) -> bool:
        key = _values(values)
        if key not in self._matches:
            self._matches[key] = any(may_match(each, self._partitioning, values) for each in self._predicates)
        return self._matches[key]


def _values(values: PartitionValues) -> _Values:
    return tuple(sorted(values.items()))


def _winner(table: TableState, version: int) -> Winner | None:
    return next((winner for winner in table.winners if winner.version == version), None)


def _conflict(
    reason: Reason, message: str, table: TableState, versions: tuple[int, ...], winner: Winner | None
) -> Refused:
    return Refused(
        reason,
        f"{message}: {READ_AGAIN}",
        table=table.name,
        versions=versions,
        other_txn=None if winner is None else winner.txn_id,
    )
