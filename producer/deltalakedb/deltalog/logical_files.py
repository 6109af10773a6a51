"""Which file an add or remove speaks of: the identity by which Delta matches them. Pure.

Spark compares canonical URIs, kernel readers the raw text; writers have mixed `a%20b` with `a b`, and relative paths with
absolute ones. Here two paths are one if they lead to the same object. What was written stays what it is.
"""

from __future__ import annotations

import posixpath
import re
from hashlib import blake2b
from urllib.parse import unquote

import msgspec

from deltalakedb.paths import is_plain

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(?://([^/]*))?")
_SAME_STORE = {"s3a": "s3", "s3n": "s3"}


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


class TableRoot:
    """A table's folder, as what its relative paths are relative to."""

    def __init__(self, uri: str) -> None:
        self._store, self._folder = _split(uri.rstrip("/"))

    def canonical(self, path: str) -> str:
        """The one name of the object that `path` leads to: decoded, and relative if it lies in the table's folder."""
        if is_plain(path):
            return path
        if _SCHEME.match(path):
            store, decoded = _split(path)
        else:
            store, decoded = self._store, _decoded(path)
        full = posixpath.normpath(posixpath.join(self._folder, decoded))
        if store != self._store:
            return f"{store}{full}"
        return full.removeprefix(f"{self._folder}/")

    def key(self, body: str) -> bytes:
        """The identity of the file that an add or remove (its JSON object) speaks of, in 16 bytes.

        Raises `msgspec.ValidationError` or `msgspec.DecodeError` (both `ValueError`) for what speaks of none.
        """
        file = _file(body)
        vector = "" if file.deletion_vector is None else file.deletion_vector.unique_id
        text = f"{self.canonical(file.path)}\0{vector}".encode("utf-8", "surrogateescape")
        return blake2b(text, digest_size=16).digest()


def _split(uri: str) -> tuple[str, str]:
    """Scheme with authority, and decoded path. `file:/x`, `file:///x` and `file://localhost/x` are one."""
    found = _SCHEME.match(uri)
    if found is None:
        return "", _decoded(uri)
    scheme, authority = found[1].lower(), found[2] or ""
    if scheme == "file" and authority == "localhost":
        authority = ""
    return f"{_SAME_STORE.get(scheme, scheme)}://{authority}", _decoded(uri[found.end() :])


def _decoded(path: str) -> str:
    return unquote(path, errors="surrogateescape")
