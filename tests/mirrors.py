"""Lakes and their mirrors for tests: on a local folder or on S3, on every SQL store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from deltalakedb.catalog import IN_PLACE, Catalog, MirrorProgress
from deltalakedb.database import Pool, StoreAddress, open_database
from deltalakedb.log_names import log_path
from deltalakedb.objectstore import ObjectStore, open_object_store
from deltalakedb_mirror_worker.render import render
from deltalakedb_mirror_worker.step import Mirror, Progress
from tests.lakes import FilledLake, local_root
from tests.stores import postgres_address


@dataclass(frozen=True, slots=True)
class Root:
    """Where tables lie, and how to get there."""

    uri: str
    options: Mapping[str, str] = field(default_factory=dict)
    store: Literal["sqlite", "postgres", "duckdb"] = "sqlite"
    """What the lake is kept in beside it."""

    def open(self, uri: str | None = None, **options: str) -> ObjectStore:
        """The store at `uri` (the root itself), with some options changed."""
        return open_object_store(uri or self.uri, {**self.options, **options})


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest) -> Root:
    """An empty root, on each kind of object store in turn: SQLite goes with a local one, Postgres with S3. A test that
    asks for "duckdb" gets that beside a local one."""
    if request.param == "s3":
        bucket = request.getfixturevalue("s3_bucket")
        return Root(bucket.uri("lake"), bucket.storage_options, store="postgres")
    return Root(
        local_root(request.getfixturevalue("tmp_path")), store="duckdb" if request.param == "duckdb" else "sqlite"
    )


@pytest.fixture
def store_address(request: pytest.FixtureRequest, root: Root, tmp_path: Path) -> StoreAddress:
    """A store to go with the root."""
    if root.store == "postgres":
        return postgres_address(request.getfixturevalue("postgres_url"))
    return StoreAddress(engine=root.store, path=str(tmp_path / "lake.db"))


@pytest.fixture
def lake(store_address: StoreAddress, root: Root, tmp_path: Path) -> Iterator[FilledLake]:
    """An empty lake at the root."""
    with FilledLake(store_address, tmp_path, root.uri, options=dict(root.options)) as lake:
        yield lake


@pytest.fixture
def pool(lake: FilledLake) -> Iterator[Pool]:
    """Connections to the lake's store."""
    pool = Pool(lambda: open_database(lake.address))
    yield pool
    pool.close()


MakeMirror = Callable[..., Mirror]


@pytest.fixture
def make_mirror(pool: Pool, root: Root, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeMirror]:
    """Makes mirrors of the lake, as many as wanted; `options` of the object store may be changed for each.

    They try again at once what failed, and a step waits for all that it began with, however slow the disk is today.
    """
    monkeypatch.setattr("deltalakedb_mirror_worker.step.PATIENCE_SECONDS", 60.0)
    made: list[Mirror] = []

    def make(threads: int = 4, target: str = IN_PLACE, **options: str) -> Mirror:
        mirror = Mirror(pool, lambda uri: root.open(uri, **options), target=target, threads=threads, max_pause=0.0)
        made.append(mirror)
        return mirror

    yield make
    for mirror in made:
        mirror.close()


@pytest.fixture
def mirror(make_mirror: MakeMirror) -> Mirror:
    """A mirror of the lake."""
    return make_mirror()


def publish_all(mirror: Mirror) -> Progress:
    """Step until there is nothing left to do right now; the last step's progress, with all that was published."""
    published = 0
    while True:
        progress = mirror.step()
        published += progress.published
        if not progress.more:
            return Progress(
                published=published,
                versions_behind=progress.versions_behind,
                seconds_behind=progress.seconds_behind,
                failed=progress.failed,
                fenced=progress.fenced,
                more=False,
            )


def progress_of(pool: Pool, name: str, target: str = IN_PLACE) -> MirrorProgress:
    """The status of the table of that name at a target."""
    with pool.connection() as db:
        return next(table for table in Catalog(db).progress(target) if table.name == name)


def log_files(store: ObjectStore, table: str) -> list[str]:
    """Names in the `_delta_log` of a table, in order."""
    return [found.path.rsplit("/", 1)[1] for found in store.list(f"{table}/_delta_log/")]


def unpublished(pool: Pool, store: ObjectStore, tables: Iterable[str]) -> dict[str, list[int]]:
    """By table: committed versions that are not in its `_delta_log` with exactly the bytes that SQL gives."""
    missing: dict[str, list[int]] = {}
    for name in tables:
        with pool.connection() as db, db.snapshot():
            catalog = Catalog(db)
            table = catalog.table(name)
            versions = catalog.versions([(table.table_no, 0, table.version)])
        assert [version.row.version for version in versions] == list(range(table.version + 1))
        for version in versions:
            found = store.get(log_path(name, version.row.version))
            if found is None or found.data != render(version):
                missing.setdefault(name, []).append(version.row.version)
    return missing
