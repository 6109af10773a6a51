"""One table through a lake and back: imported, its log written from SQL alone beside a copy of its data, compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalakedb import Lake
from deltalakedb.catalog import Catalog
from deltalakedb.database import Pool, open_database
from deltalakedb.errors import TxnLogDeltaLogError, TxnLogImportError
from deltalakedb.features import READABLE
from deltalakedb.objectstore import open_object_store
from deltalakedb_mirror_worker.places import Place
from deltalakedb_mirror_worker.writing import write_log

from .replay import read_log


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of one table. `problem` says what was wrong; where it is None all is as it should be."""

    table: str
    outcome: str
    """equal, refused, failed."""
    detail: str = ""
    copy: Path | None = None
    """The folder of the copy, where there is one."""

    @property
    def ok(self) -> bool:
        return self.outcome != "failed"


def round_trip(lake: Lake, table: Path, name: str, copy: Path, *, expected_refusal: str | None = None) -> Verdict:
    """Import `table` as `name`, write its log into `copy` beside its data files, and compare every version.

    `expected_refusal` is what the message of a refusal has to say, where the table has to be refused. Nothing is
    written at the source.
    """
    source = files_of(table)
    try:
        report = lake.import_table(name, table, cutover=False, allow_roots=["/"])
    except (TxnLogImportError, TxnLogDeltaLogError) as error:
        if expected_refusal is not None:
            right = expected_refusal in str(error)
            said = "" if right else f"should say {expected_refusal!r}: "
            return Verdict(table=name, outcome="refused" if right else "failed", detail=f"{said}{error}")
        if "checksum disagrees" not in str(error):
            return Verdict(table=name, outcome="failed", detail=f"refused: {error}")
        report = lake.import_table(name, table, cutover=False, allow_roots=["/"], force=True)
    if expected_refusal is not None:
        return Verdict(table=name, outcome="failed", detail=f"imported, and it should say {expected_refusal!r}")
    if files_of(table) != source:
        return Verdict(table=name, outcome="failed", detail="something was written at the source")
    shutil.copytree(table, copy, ignore=lambda folder, _: ["_delta_log"] if Path(folder) == table else [])
    pool = Pool(lambda: open_database(lake.settings.address))
    try:
        with pool.connection() as database:
            info = Catalog(database).table(name)
        write_log(pool, info, Place(open_object_store(copy.as_uri()), ""))
    finally:
        pool.close()
    differences = compare(table, copy)
    if info.version != report.newest:
        differences.insert(0, f"SQL has version {info.version}, and {report.newest} was imported")
    if differences:
        return Verdict(table=name, outcome="failed", detail="; ".join(differences[:3]), copy=copy)
    return Verdict(table=name, outcome="equal", detail="; ".join(report.forced), copy=copy)


def compare(original: Path, copy: Path) -> list[str]:
    """What differs between two tables, at every version that the original tells."""
    one, other = read_log(original), read_log(copy)
    if one.versions() != other.versions():
        return [f"versions {one.versions()[:1]}-{one.newest} became {other.versions()[:1]}-{other.newest}"]
    return [
        f"version {version}: {difference}"
        for version in one.versions()
        for difference in one.at(version).compare(other.at(version))
    ]


def refusal_of(entry: dict[str, Any], table: Path) -> str | None:
    """What refusing a table has to say, by the index and an independent look; None for one that has to be imported."""
    features = set((entry.get("protocol") or {}).get("readerFeatures") or ())
    try:
        log = read_log(table)
        if not log.commits and not log.checkpoints:
            return "NO_TABLE"
        if not log.versions():
            return "GAP"
        state = log.at(log.newest)
    except ValueError:
        return "CORRUPT"
    features |= set(state.protocol.get("readerFeatures") or ())
    if unknown := sorted(features - READABLE):
        return ", ".join(unknown)
    if not state.protocol:
        return "NO_PROTOCOL"
    if not state.metadata:
        return "NO_METADATA"
    return None


def entries(folder: Path) -> list[dict[str, Any]]:
    """The tables that a folder's index names."""
    found: list[dict[str, Any]] = json.loads((folder / "index.json").read_text())["tables"]
    return found


def name_of(entry: dict[str, Any]) -> str:
    """A table name for an entry of the index."""
    kept: Iterable[str] = (letter if letter.isalnum() and letter.isascii() else "_" for letter in entry["table"])
    return "".join(kept).strip("_")


def files_of(folder: Path) -> dict[str, int]:
    """Every file below a folder, with its size."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
