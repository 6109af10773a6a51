"""Whether a table to be imported has a folder of its own: what the committer cannot see is looked at here, and early."""

from __future__ import annotations

from dataclasses import replace

from deltalakedb.catalog import TablePlace
from deltalakedb.errors import TxnLogImportError
from deltalakedb.locations import nested, same, within
from deltalakedb.session import Session

from .source import Source, behind_links


def checked_place(session: Session, name: str, source: Source) -> Source:
    """The source, by the location under which the lake has it already, if it does.

    The committer refuses tables that share a folder, or lie in one another, by their URIs. Symbolic links can only be
    seen from here. Raises `TxnLogImportError` naming whose place it is.
    """
    session.catch_up()
    with session.catalog() as catalog:
        tables, targets = catalog.places(), catalog.targets()
    place = behind_links(source.location)
    found = f"{source.location} cannot be imported as {name!r}: "
    if not same(place, source.location):
        found += f"by symbolic links it is {place}, and "
    for table in tables:
        theirs = behind_links(table.location)
        if table.name == name:
            source = replace(source, location=table.location) if same(place, theirs) else source
        elif nested(place, theirs):
            raise TxnLogImportError(f"{found}{_whose(table)}")
    if within(behind_links(session.lake.root), place):
        raise TxnLogImportError(f"{found}the lake's own root {session.lake.root} lies there")
    for target in targets:
        if target.root is not None and target.state != "REMOVED" and nested(place, behind_links(target.root)):
            raise TxnLogImportError(f"{found}mirror target {target.target!r} publishes at {target.root}")
    return source


def _whose(table: TablePlace) -> str:
    if table.state == "IMPORTING":
        return (
            f"its import as {table.name!r} ({table.location}) has begun: go on under that name, or give it up with "
            f"lake.act('drop', table={table.name!r})"
        )
    return (
        f"table {table.name!r} ({table.location}) lies there: every table has a folder of its own, none inside another"
    )
