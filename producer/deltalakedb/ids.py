"""Ids: transaction ids (UUIDv7, made by clients) and what is derived from them, so that every replay gives the same."""

from __future__ import annotations

import hashlib
import re
import uuid
from functools import lru_cache

_TXN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]*(\.[A-Za-z0-9_][A-Za-z0-9_\-]*)?")
MAX_NAME_LENGTH = 255


def new_txn_id() -> str:
    """A new transaction id: UUIDv7, so ids sort roughly by time of creation. Made and kept before anything is sent."""
    import uuid_utils

    return str(uuid_utils.uuid7())


def is_txn_id(text: str) -> bool:
    """Whether `text` has the form of a transaction id (a lower-case UUID)."""
    return _TXN_ID.fullmatch(text) is not None


def table_id(txn_id: str, name: str) -> str:
    """The id of the table `name` made by transaction `txn_id`."""
    return str(uuid.uuid5(uuid.UUID(txn_id), f"table:{name}"))


def metadata_id(txn_id: str, name: str) -> str:
    """`metaData.id` of a table that the transaction makes."""
    return str(uuid.uuid5(uuid.UUID(txn_id), f"metadata:{name}"))


def import_txn_id(import_id: str, version: int, attempt: int = 0) -> str:
    """The id under which a version of an import is decided. What was rejected may be sent again in another attempt."""
    name = f"version:{version}" if attempt == 0 else f"version:{version}:{attempt}"
    return str(uuid.uuid5(uuid.UUID(import_id), name))


@lru_cache(maxsize=1_024)
def is_table_name(name: str) -> bool:
    """Whether `name` is `[namespace.]name`, each part of ASCII letters, digits, `_` and `-`: it becomes a folder."""
    return len(name) <= MAX_NAME_LENGTH and _NAME.fullmatch(name) is not None


def table_location(root: str, name: str, dropped_seq: int | None = None) -> str:
    """Where a table lies that is created without a location: one folder below the lake's root.

    `dropped_seq` is the commit that dropped the last table of that name, if one was: its folder is not used again.
    """
    suffix = "" if dropped_seq is None else f"-{dropped_seq}"
    return f"{root.rstrip('/')}/{name}{suffix}"


def digest(chunks: list[bytes]) -> bytes:
    """The content digest of a transaction (32 bytes): SHA-256 over the SHA-256 of each chunk's encoded content."""
    return hashlib.sha256(b"".join([hashlib.sha256(chunk).digest() for chunk in chunks])).digest()
