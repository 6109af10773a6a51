"""Who may do what in a store on Postgres: the rights of each role, and nothing beside them."""

from __future__ import annotations

from .runner import Database

_ALL = "ALL TABLES IN SCHEMA {schema}"
RIGHTS: dict[str, tuple[tuple[str, str], ...]] = {
    # What was decided is never changed or taken back: rows of versions, decisions and commits are only added.
    "committer": (
        ("SELECT, INSERT", _ALL),
        (
            "UPDATE",
            "dl_committer_position, dl_committer_heartbeat, dl_committer_attempts, dl_tables, dl_table_heads, dl_imports, "
            "dl_mirror_targets",
        ),
        ("DELETE", "dl_live_files, dl_staged_chunks, dl_staged_files, dl_imports, dl_outbox"),
    ),
    "mirror": (
        ("SELECT", _ALL),
        ("INSERT, UPDATE", "dl_mirror_status"),
    ),
    # Clients too: what others have staged and nobody has decided is nobody's to read.
    "reader": (("SELECT", _ALL),),
}
"""By role its rights, each with the tables that they are on."""
_NOT: dict[str, tuple[tuple[str, str], ...]] = {
    "committer": (("INSERT", "dl_migrations, dl_lake, dl_mirror_status"),),
    "reader": (("SELECT", "dl_staged_chunks, dl_staged_files, dl_outbox"),),
}


def grant(database: Database, role: str, to: str) -> None:
    """Give the database role `to` exactly the rights of `role` in the current schema. Safe to repeat, and to be repeated
    after a migration that made tables.

    Raises `ValueError` for a role that is not known or a store that has no roles, and the database's own errors.
    """
    if database.dialect != "postgres":
        raise ValueError(f"a store in {database.dialect} has no roles: whoever may open its file may do everything")
    if role not in RIGHTS:
        raise ValueError(f"there is no role {role!r}: {', '.join(RIGHTS)}")
    with database.transaction():
        ((found,),) = database.query("SELECT current_schema()")
        schema, name = _quoted(str(found)), _quoted(to)
        statements = [
            f"REVOKE ALL ON {_ALL} FROM {name}",
            f"REVOKE ALL ON SCHEMA {{schema}} FROM {name}",
            f"GRANT USAGE ON SCHEMA {{schema}} TO {name}",
            *(f"GRANT {what} ON {where} TO {name}" for what, where in RIGHTS[role]),
            *(f"REVOKE {what} ON {where} FROM {name}" for what, where in _NOT.get(role, ())),
        ]
        database.script(";\n".join(statement.format(schema=schema) for statement in statements))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
