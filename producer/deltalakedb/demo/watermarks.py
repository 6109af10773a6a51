"""The mirror's watermark document as any reader by path finds it: at the lake's root, without asking SQL."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from deltalakedb.errors import TxnLogMirrorError
from deltalakedb.objectstore import ObjectStore

from .checks import Pin

DOCUMENT = "_deltalakedb_watermark.json"


class _Table(msgspec.Struct):
    location: str
    version: int


class _Excluded(msgspec.Struct):
    location: str
    reason: str


class _Document(msgspec.Struct):
    commit_seq: int
    tables: dict[str, _Table]
    excluded: dict[str, _Excluded]


class Watermarks:
    """Reads the document of one root again and again, for the tables that it is given by name."""

    def __init__(self, store: ObjectStore, tables: Collection[str]) -> None:
        self._store = store
        self._tables = tables

    def read(self) -> Pin | None:
        """The newest watermark; None if there is none yet, or none that has all the tables.

        Raises `TxnLogMirrorError` if one of the tables is fenced: it will not come any further.
        """
        found = self._store.get(DOCUMENT)
        if found is None:
            return None
        document = msgspec.json.decode(found.data, type=_Document)
        for excluded in document.excluded.values():
            if excluded.reason == "FENCED" and excluded.location.rpartition("/")[2] in self._tables:
                raise TxnLogMirrorError(
                    f"the mirror does not publish {excluded.location} any further: somebody else wrote into its _delta_log"
                )
        if not all(table in document.tables for table in self._tables):
            return None
        pinned = {table: document.tables[table] for table in self._tables}
        return Pin(
            commit_seq=document.commit_seq,
            versions={table: pin.version for table, pin in pinned.items()},
            locations={table: pin.location for table, pin in pinned.items()},
        )
