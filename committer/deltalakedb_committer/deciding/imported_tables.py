"""The table that an import goes into: a new one with a name and a place of its own, or the one it began with."""

from __future__ import annotations

from deltalakedb.errors import Reason
from deltalakedb.events import ImportedContent
from deltalakedb.ids import is_table_name
from deltalakedb.locations import nested, same, within

from .intents import OURS
from .refusal import Refused, shown
from .state import State, TableState


def new_table(content: ImportedContent, state: State) -> TableState:
    """The table that an import begins, without a version yet. Raises `Refused`."""
    name, location = content.table_name, content.location.rstrip("/")
    if not is_table_name(name) or name.startswith(OURS):
        raise refused_import(
            content,
            Reason.INVALID_ACTION,
            f"{shown(name)} is not a table name: [namespace.]name of ASCII letters, digits, _ and -, not beginning "
            f"with {OURS}",
        )
    if "://" not in location or "\0" in location or len(location.encode()) > state.rules.max_imported_path_bytes:
        raise refused_import(content, Reason.INVALID_PATH, f"location {shown(location)} is not an absolute URI")
    others = [table for table in state.tables.values() if table.state != "DROPPED"]
    for other in others:
        if other.name != name and not nested(location, other.location):
            continue
        if other.state == "IMPORTING":
            what = "is being imported by another import: finish that one, or drop its table"
            reason = Reason.IMPORT_UNDER_WAY
        elif other.name == name:
            what = "is there already: choose another name"
            reason = Reason.TABLE_EXISTS
        else:
            what = "lies there: every table has a folder of its own, none inside another"
            reason = Reason.INVALID_PATH
        raise refused_import(content, reason, f"table {shown(other.name)} ({shown(other.location)}) {what}")
    if within(state.lake.root, location):
        raise refused_import(
            content,
            Reason.INVALID_PATH,
            f"the lake's own root {shown(state.lake.root)} lies at or in {shown(location)}",
        )
    for target in state.targets.values():
        if target.root is not None and target.state != "REMOVED" and nested(location, target.root):
            raise refused_import(
                content,
                Reason.INVALID_PATH,
                f"mirror target {shown(target.target)} publishes at {shown(target.root)}: remove the target first, or "
                f"choose a table apart from it",
            )
    return TableState(
        table_no=state.next_table_no,
        table_id=content.import_id,
        name=name,
        location=location,
        state="IMPORTING",
        loaded=True,
        winners_since=-1,
    )


def check_table(table: TableState, content: ImportedContent) -> None:
    """Check that the import is the one that this table came from, and not over."""
    for what, ours, theirs, agree in (
        ("name", table.name, content.table_name, table.name == content.table_name),
        ("location", table.location, content.location, same(table.location, content.location)),
    ):
        if not agree:
            raise refused_import(
                content,
                Reason.LOCATION_CHANGED,
                f"the import began with the {what} {shown(ours)}, and this names {shown(theirs)}",
            )
    if table.state == "DROPPED":
        raise refused_import(content, Reason.UNKNOWN_TABLE, "the table was dropped; import it anew")
    if table.state == "RELEASED" or (table.state == "ACTIVE" and content.kind != "ADOPTION"):
        raise refused_import(
            content, Reason.IMPORT_FINISHED, f"the table is {table.state.lower()}, at version {table.version}"
        )


def refused_import(content: ImportedContent, reason: Reason, message: str) -> Refused:
    """The refusal of an imported version, which it names."""
    return Refused(
        reason,
        f"version {content.version} of {shown(content.table_name)} cannot be imported: {message}",
        table=content.table_name,
        versions=(content.version,),
    )
