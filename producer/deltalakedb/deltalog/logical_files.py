"""Which file an add or remove speaks of: the identity by which Delta matches them. Pure.

Spark compares canonical URIs, kernel readers the raw text; writers have mixed `a%20b` with `a b`, and relative paths with
absolute ones. Here two paths are one if they lead to the same object. What was written stays what it is.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from deltalakedb.paths import Folder


class Vector(msgspec.Struct, rename="camel"):
    """What identifies a deletion vector."""

    storage_type: str
    path_or_inline_dv: str
    offset: int | None = None

    @property
    def unique_id(self) -> str:
        """The protocol's id of the vector."""
        at = "" if self.offset is None else f"@{self.offset}"
        return f"{self.storage_type}{self.path_or_inline_dv}{at}"


class _File(msgspec.Struct, rename="camel"):
    path: str
    deletion_vector: Vector | None = None


_file = msgspec.json.Decoder(_File, strict=False).decode


class TableRoot(Folder):
    """A table's folder, as what its relative paths are relative to."""

    def key(self, body: str) -> bytes:
        """The identity of the file that an add or remove (its JSON object) speaks of, in 16 bytes.

        Raises `msgspec.ValidationError` or `msgspec.DecodeError` (both `ValueError`) for what speaks of none.
        """
        file = _file(body)
        vector = "" if file.deletion_vector is None else file.deletion_vector.unique_id
        text = f"{self.canonical(file.path)}\0{vector}".encode("utf-8", "surrogatepass")
        return blake2b(text, digest_size=16).digest()
