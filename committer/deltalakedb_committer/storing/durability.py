"""Start-up checks: whether a commit that the store reports is really on its disk."""

from __future__ import annotations

from deltalakedb.database import Database
from deltalakedb.errors import TxnLogHaltedError

_SERVER = {
    "fsync": {"on"},
    "full_page_writes": {"on"},
    "synchronous_commit": {"on", "local", "remote_write", "remote_apply"},
}
_NEXT_STEP = {
    "fsync": "set fsync = on in postgresql.conf and restart the server",
    "full_page_writes": "set full_page_writes = on in postgresql.conf and reload it",
    "synchronous_commit": "set synchronous_commit = on for the server, this database and this role",
}


def verify_durability(database: Database) -> None:
    """Raise `TxnLogHaltedError` (`STORE_NOT_DURABLE`, `STORE_READ_ONLY`) where a crash could take back a commit that
    clients were told of, or where nothing can be written at all. What is a file is opened durable by its adapter."""
    if database.dialect != "postgres":
        return
    settings: dict[str, str] = dict(
        database.query("SELECT name, setting FROM pg_settings WHERE name = ANY(?)", [list(_SERVER)])
    )
    for name, durable in _SERVER.items():
        if settings[name] not in durable:
            raise TxnLogHaltedError(
                "STORE_NOT_DURABLE",
                f"the Postgres server runs with {name} = {settings[name]}: after a crash, transactions that clients were "
                f"told are committed could be gone. Next step: {_NEXT_STEP[name]}, then start again",
            )
    if database.query("SELECT pg_is_in_recovery()")[0][0]:
        raise TxnLogHaltedError(
            "STORE_READ_ONLY",
            "the Postgres server is a replica and takes no writes. Next step: name the primary (or several hosts with "
            "target_session_attrs=read-write), or promote this one",
        )
    if database.query("SELECT setting FROM pg_settings WHERE name = 'default_transaction_read_only'")[0][0] == "on":
        raise TxnLogHaltedError(
            "STORE_READ_ONLY",
            "the Postgres server runs with default_transaction_read_only = on for this database or role. Next step: set it "
            "off for the server, this database and this role, then start again",
        )
