"""Whose place is this: the lake's name at its root, and whether somebody's `_delta_log` lies where a table should go.

The client asks before it publishes a create, the mirror again before it writes a version 0.
"""

from __future__ import annotations

import msgspec

from deltalakedb.errors import TxnLogMirrorError, TxnLogObjectStoreError
from deltalakedb.log_names import log_folder

from .port import NewObject, ObjectStore, Put

IDENTITY = "_deltalakedb.json"
_ATTEMPTS = 4


class _Identity(msgspec.Struct, frozen=True):
    lake_id: str


def claim_root(store: ObjectStore, lake_id: str) -> None:
    """Make the root this lake's, or see that it is: `<root>/_deltalakedb.json` is written if it is absent.

    Raises `TxnLogMirrorError` if the root belongs to another lake, or what is there cannot be read as an identity.
    """
    ours = msgspec.json.encode(_Identity(lake_id)) + b"\n"
    for _ in range(_ATTEMPTS):
        found = store.get(IDENTITY)
        if found is not None:
            _verify(store, found.data, lake_id)
            return
        if store.put_if_absent([NewObject(IDENTITY, ours)]) == [Put.CREATED]:
            return
    raise TxnLogObjectStoreError(f"no trustworthy answer to putting {IDENTITY!r} in {store.root}; try again")


def _verify(store: ObjectStore, data: bytes, lake_id: str) -> None:
    try:
        owner = msgspec.json.decode(data, type=_Identity).lake_id
    except msgspec.MsgspecError as error:
        raise TxnLogMirrorError(
            f"{store.root}/{IDENTITY} cannot be read as the identity of a lake ({error}): see who wrote it; "
            "without it, it cannot be told whether this root is another lake's"
        ) from error
    if owner != lake_id:
        raise TxnLogMirrorError(
            f"{store.root} belongs to the lake {owner}, this is the lake {lake_id}: give this lake a root of its own"
        )


def log_object(store: ObjectStore, folder: str) -> str | None:
    """The first object in the `_delta_log` of `folder` (relative to the root; "" is the root itself), or None.

    Another client may have made the table a moment ago: where one is found, ask the lake again before calling it
    foreign.
    """
    return next((found.path for found in store.list(log_folder(folder))), None)


def foreign_log(store: ObjectStore, found: str, table: str) -> TxnLogMirrorError:
    """The error for a `_delta_log` that was there before the table `table` was to be made in its place."""
    return TxnLogMirrorError(
        f"the table {table!r} cannot be made: {store.root}/{found} is there already, so another Delta table has this "
        "location. Import that table, choose another location or name, or move its folder away"
    )
