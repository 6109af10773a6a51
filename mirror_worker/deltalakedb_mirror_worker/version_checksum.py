"""Version checksums, `<version>.crc`: a table's size, protocol and metadata at a version, which readers believe.

Only what is known exactly is written, once and never over anything: a missing checksum is always fine, a wrong one is
not. Optional fields that would take a look at every file are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from deltalakedb.actions import DomainMetadata, SetTransaction, as_json
from deltalakedb.catalog import Catalog, TableInfo
from deltalakedb.database import Database
from deltalakedb.failpoints import Failpoint
from deltalakedb.log_names import checksum_path
from deltalakedb.objectstore import NewObject

from . import properties
from .places import Place

_MANY = 100
"""More transactions or domains than this are left out: the file is read at every start of a transaction."""
_ICT = "delta.enableInCommitTimestamps"

_RENDERED = Failpoint("checksum.rendered")


def render(
    table: TableInfo, files: int, size: int, txns: Sequence[SetTransaction], domains: Sequence[DomainMetadata]
) -> bytes:
    """The checksum of the version of `table`, whose live files are `files` of `size` bytes together. Pure."""
    checksum: dict[str, Any] = {"tableSizeBytes": size, "numFiles": files, "numMetadata": 1, "numProtocol": 1}
    configuration = table.metadata.configuration
    if configuration.get(_ICT) == "true":
        checksum["inCommitTimestampOpt"] = table.time_ms
    # Readers leave out what has expired, at their own hour.
    if len(txns) <= _MANY and properties.transaction_retention_ms(configuration) is None:
        checksum["setTransactions"] = [as_json("txn", txn) for txn in txns]
    if len(domains) <= _MANY:
        checksum["domainMetadata"] = [as_json("domainMetadata", domain) for domain in domains]
    checksum["metadata"] = as_json("metaData", table.metadata)
    checksum["protocol"] = as_json("protocol", table.protocol)
    return msgspec.json.encode(checksum)


def put(
    place: Place,
    table: TableInfo,
    files: int,
    size: int,
    txns: Sequence[SetTransaction],
    domains: Sequence[DomainMetadata],
) -> None:
    """Publish the checksum of a published version unless there is one. Raises `TxnLogObjectStoreError`."""
    data = render(table, files, size, txns, domains)
    _RENDERED.reached()
    place.store.put_if_absent([NewObject(checksum_path(place.folder, table.version), data, table.time_ms)])


def put_newest(db: Database, place: Place, table_id: str, version: int) -> bool:
    """Publish the checksum of `version` if that is still the newest in SQL, which alone is counted there.

    Whether it is. Raises `TxnLogObjectStoreError`, and the errors of the database.
    """
    with db.snapshot():
        catalog = Catalog(db)
        table = catalog.table(table_id=table_id)
        if table.version != version or table.live_files is None or table.live_bytes is None:
            return False
        txns, domains = catalog.txns(table.table_no, version), catalog.domains(table.table_no, version)
    put(place, table, table.live_files, table.live_bytes, txns, domains)
    return True
