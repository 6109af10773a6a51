"""Locations in the one form in which two of them are compared, however they are spelled. Pure.

Readers and object stores differ in what they take for one place: most collapse slashes and dots and decode once. What
any of them may take for the same place, or for a place inside another, counts as that here: of two tables that share a
folder by spelling, each would overwrite the other's log. Symbolic links are not seen: only who has the disk can.
"""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache
from urllib.parse import unquote

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(?://([^/]*))?")
_SAME_STORE = {"s3a": "s3", "s3n": "s3"}
_TAIL = re.compile(r"[?#].*", re.DOTALL)


@lru_cache(maxsize=1 << 15)
def normal(location: str) -> str:
    """The place that a URI or an absolute path names: decoded once, without dots or empty segments, `s3` for `s3a`.

    For comparing only: it is no URI that anything could be opened by.
    """
    store, path = split(_TAIL.sub("", location)) if _URI.match(location) else ("file://", location)
    path = posixpath.normpath(f"/{path.lstrip('/')}")
    return store if path == "/" else f"{store}{path}"


def same(location: str, other: str) -> bool:
    """Whether both name one place."""
    return location == other or normal(location) == normal(other)


def within(location: str, other: str) -> bool:
    """Whether the first place is the second or lies in it."""
    return f"{normal(location)}/".startswith(f"{normal(other)}/")


def nested(location: str, other: str) -> bool:
    """Whether one of two places lies in the other, or is it."""
    return within(location, other) or within(other, location)


def split(uri: str) -> tuple[str, str]:
    """Scheme with authority, and decoded path. `file:/x`, `file:///x` and `file://localhost/x` are one."""
    found = _URI.match(uri)
    if found is None:
        return "", unescaped(uri)
    scheme, authority = found[1].lower(), found[2] or ""
    if scheme == "file" and authority.lower() == "localhost":
        authority = ""
    return f"{_SAME_STORE.get(scheme, scheme)}://{authority}", unescaped(uri[found.end() :])


def unescaped(path: str) -> str:
    """A percent-encoded path decoded; `path` itself where what it stands for is no text that can be stored."""
    try:
        text = unquote(path, errors="strict")
    except UnicodeError:
        return path
    return path if "\0" in text else text
