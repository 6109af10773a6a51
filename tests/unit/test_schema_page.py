"""The page about the SQL schema says what the migrations make."""

from __future__ import annotations

from pathlib import Path

from deltalakedb.database import open_database
from deltalakedb.database.address import StoreAddress
from deltalakedb_migrations import migrate

PAGE = Path(__file__).parents[2] / "docs" / "schema.md"
SQLITE_TYPES = {"BIGINT": "INTEGER", "BYTEA": "BLOB"}
"""What the page's types are called in SQLite; the others are equal."""

Columns = dict[str, tuple[str, bool]]
"""Type and nullability by name."""


def described() -> dict[str, Columns]:
    """Columns of every table on the page, in its order."""
    tables: dict[str, Columns] = {}
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("### "):
            tables[line.removeprefix("### ")] = {}
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "column":
            name, kind, null, meaning = cells
            assert meaning, f"{name} has no meaning"
            tables[next(reversed(tables))][name] = (SQLITE_TYPES.get(kind, kind), null == "yes")
    return tables


def made(folder: Path) -> dict[str, Columns]:
    """Columns of every table that the migrations make."""
    database = open_database(StoreAddress(engine="sqlite", path=str(folder / "lake.db")), create=True)
    try:
        migrate(database)
        names = database.query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'dl%'")
        columns = 'SELECT name, type, "notnull", pk FROM pragma_table_info(?) ORDER BY cid'
        return {
            table: {
                str(name): (str(SQLITE_TYPES.get(kind, kind)), not (notnull or pk))
                for name, kind, notnull, pk in database.query(columns, [table])
            }
            for (table,) in names
        }
    finally:
        database.close()


def test_every_table_and_column_is_described(tmp_path: Path) -> None:
    """Tables, columns in their order, types and nullability of the page are those of a store."""
    page, store = described(), made(tmp_path)

    assert sorted(page) == sorted(store)
    for table, columns in store.items():
        assert list(page[table].items()) == list(columns.items()), table
