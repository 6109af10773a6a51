"""What must hold of every log that we publish: at any moment, and once nothing is left to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from deltalake import DeltaTable

from deltalakedb.catalog import Catalog
from deltalakedb.database import Database
from deltalakedb.events import AppTransaction
from deltalakedb.log_names import LAST_CHECKPOINT, LogFile, commit_version, log_folder, parse_name
from deltalakedb.objectstore import ObjectStore
from deltalakedb_mirror_worker.checkpoint import counted
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.render import render
from tests.lakes import FilledLake, add, append, create, remove
from tests.mirrors import log_files

TABLES = ("plain", "v2", "wide")

Commits = dict[str, dict[int, bytes]]
"""By table and version: the bytes of every version that can be seen."""


def fill_all_kinds(lake: FilledLake) -> None:
    """A classic table, one that wants V2 checkpoints, and one with versions of many files; some versions of each."""
    lake.commit(create("plain", checkpointInterval="3"), create("v2", checkpointPolicy="v2", checkpointInterval="3"))
    lake.commit(create("wide", *(add(f"first-{n}") for n in range(8)), checkpointInterval="1"))
    lake.commit(append("wide", *(add(f"second-{n}") for n in range(8))))
    for n in range(6):
        lake.commit(*(append(name, add(f"{n}", size=n + 1)) for name in TABLES[:2]), apps=(AppTransaction("job", n),))
    lake.commit(remove("plain", add("3", size=4)), remove("v2", add("5", size=6)))


def commits(store: ObjectStore) -> Commits:
    """What can be seen of all tables."""
    found: Commits = {}
    for table in TABLES:
        for each in store.list(log_folder(table)):
            version = commit_version(each.path)
            there = store.get(each.path) if version is not None else None
            if version is not None and there is not None:
                found.setdefault(table, {})[version] = there.data
    return found


def check_readable(database: Database, store: ObjectStore, before: Commits, *, lost: int = -1) -> None:
    """At any moment: whole versions of ours, without gaps (but `lost`), never written over; hints that lead somewhere."""
    catalog = Catalog(database)
    seen = commits(store)
    for progress in catalog.progress("in-place"):
        name, there = progress.name, seen.get(progress.name, {})
        for version, data in before.get(name, {}).items():
            assert there.get(version, data) == data, f"{name} {version} was written over"
        begin = 0 if progress.status is None else progress.status.log_start
        kept = sorted(version for version in there if version >= begin)
        missing = set(range(begin, kept[-1] + 1 if kept else 0)) - {lost}
        assert missing <= set(kept), f"{name} has gaps: {kept}"
        with database.snapshot():
            ours = catalog.versions([(progress.table_no, 0, progress.version)])
        for each in ours:
            data = render(each)
            assert there.get(each.row.version, data) == data, f"{name} {each.row.version} is not ours"
        hint = store.get(log_folder(name) + LAST_CHECKPOINT)
        if hint is not None:
            named = json.loads(hint.data)["version"]
            names = [parse_name(file) for file in log_files(store, name)]
            assert any(n and n.version == named and n.file in (LogFile.CLASSIC, LogFile.UNIQUE) for n in names)


def check_done(database: Database, store: ObjectStore, folder: Path, options: Mapping[str, str] | None = None) -> None:
    """Once nothing is left: all is published and recorded, and what was written beside it says the same as SQL."""
    catalog = Catalog(database)
    seen = commits(store)
    for progress in catalog.progress("in-place"):
        status, name = progress.status, progress.name
        assert status is not None
        assert (status.state, status.mirrored_version) == ("SUCCEEDED", progress.version), status
        kept = sorted(version for version in seen[name] if version >= status.log_start)
        assert kept == list(range(status.log_start, progress.version + 1))
        for file in log_files(store, name):
            parsed = parse_name(file)
            if parsed is None or parsed.file is LogFile.COMMIT:
                continue
            size = catalog.size_at(catalog.table(name, version=parsed.version))
            if parsed.file is LogFile.CHECKSUM:
                found = store.get(log_folder(name) + file)
                assert found is not None
                told = json.loads(found.data)
                assert (told["numFiles"], told["tableSizeBytes"]) == size
            else:
                assert counted(Place(store, name), file, folder) == size
        opened = DeltaTable(f"{store.root}/{name}", storage_options=dict(options or {}))
        files, _ = catalog.size_at(catalog.table(name))
        assert (opened.version(), len(opened.file_uris())) == (progress.version, files)
