"""Each role of Postgres may do what its service does, on every table, and nothing else: INV11."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pyarrow as pa
import pytest
from psycopg import sql

import deltalakedb
from tests.processes import Service

VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
UPDATED = {
    "dl_committer_position", "dl_committer_heartbeat", "dl_committer_attempts", "dl_tables", "dl_table_heads", "dl_imports",
    "dl_mirror_targets",
}  # fmt: skip
DELETED = {"dl_live_files", "dl_staged_chunks", "dl_staged_files", "dl_imports", "dl_outbox"}
NOT_ADDED = {"dl_migrations", "dl_lake", "dl_mirror_status"}
UNDECIDED = {"dl_staged_chunks", "dl_staged_files", "dl_outbox"}


def allowed(role: str, verb: str, table: str) -> bool:
    """What the table of rights in the documentation says."""
    match role, verb:
        case "committer", "INSERT":
            return table not in NOT_ADDED
        case "committer", "UPDATE":
            return table in UPDATED
        case "committer", "DELETE":
            return table in DELETED
        case "mirror", "INSERT" | "UPDATE":
            return table == "dl_mirror_status"
        case "reader", "SELECT":
            return table not in UNDECIDED
        case _:
            return verb == "SELECT"


@pytest.fixture
def roles(postgres_url: str) -> Iterator[dict[str, str]]:
    """Store URIs by role; the roles end with the test, because they are the whole server's."""
    names = {role: f"{role}_{uuid.uuid4().hex[:8]}" for role in ("committer", "mirror", "reader")}
    parts = urlsplit(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        for name in names.values():
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(name)))
        host = f"{parts.hostname}:{parts.port}"
        yield {
            role: urlunsplit(parts._replace(netloc=f"{name}:secret@{host}", query="schema=lake"))
            for role, name in names.items()
        }
        for name in names.values():
            admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def added(number: int) -> deltalakedb.AddFile:
    """An action of a transaction that is sent in several chunks."""
    path = f"{number}-{'x' * 200}.parquet"
    return deltalakedb.AddFile(path=path, partition_values={}, size=1, modification_time=1)


def test_each_role_does_its_work_and_nothing_else(
    roles: dict[str, str], postgres_url: str, kafka_bootstrap: str, kafka_prefix: str, tmp_path: Path
) -> None:
    """With rights of their own committer, mirror and client commit, publish and read; every other verb on every table is
    refused, whatever was granted before, and so is every lake's neighbour."""
    owner = f"{postgres_url}?schema=lake"
    log = f"kafka://{kafka_bootstrap}/{kafka_prefix}"
    names = {role: urlsplit(url).username or "" for role, url in roles.items()}
    migrate = [sys.executable, "-m", "deltalakedb", "migrate", "--store", owner, "--log", log, "--root", str(tmp_path)]
    subprocess.run(migrate, check=True, timeout=60)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(sql.SQL("GRANT ALL ON lake.dl_live_files TO {}").format(sql.Identifier(names["mirror"])))
    grants = [word for role, name in names.items() for word in ("--grant", f"{role}={name}")]
    subprocess.run([*migrate, *grants], check=True, timeout=60)

    with ExitStack() as stack:
        services = [
            stack.enter_context(
                Service(role, "run", environment={"DELTALAKEDB_STORE": roles[role]}, log=tmp_path / f"{role}.log")
            )
            for role in ("committer", "mirror")
        ]
        lake = stack.enter_context(deltalakedb.connect(roles["reader"]))
        for number in range(2):
            with lake.begin() as tx:
                tx.stage_table("numbers", pa.table({"number": [number]}))
        assert tx.result is not None
        lake.undo(tx.result.txn_id)
        assert lake.snapshot().table("numbers").to_arrow()["number"].to_pylist() == [0]
        with lake.begin() as big:
            big.stage_table("numbers", actions=[added(number) for number in range(6_000)])
        assert big.result is not None
        lake.act("drop", table="numbers")
        lake.sync(timeout=60)
        assert [service.stop() for service in services] == [0, 0]

    with psycopg.connect(postgres_url) as admin:
        tables = [
            str(name)
            for (name,) in admin.execute(
                "SELECT c.relname FROM pg_class c WHERE relnamespace = 'lake'::regnamespace AND relkind IN ('r', 'v')"
            )
        ]
        has = {
            (role, verb, table): admin.execute(
                "SELECT has_table_privilege(%s, %s, %s)", (name, f"lake.{table}", verb)
            ).fetchone()
            == (True,)
            for role, name in names.items()
            for verb in VERBS
            for table in tables
        }
        creates = [
            admin.execute("SELECT has_schema_privilege(%s, 'lake', 'CREATE')", (name,)).fetchone()
            for name in names.values()
        ]
    views = {table for table in tables if table == "dl_add_files"}
    wrong = {
        key: found
        for key, found in has.items()
        if found != allowed(*key) and not (key[2] in views and key[:2] == ("committer", "INSERT"))
    }
    assert len(tables) > 20
    assert wrong == {}
    assert creates == [(False,)] * 3
    with (
        psycopg.connect(roles["mirror"].partition("?")[0]) as mirror,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        mirror.execute("DELETE FROM lake.dl_live_files")
