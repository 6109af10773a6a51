"""Path confinement: whether the path of a file action stays inside its table's folder, whoever reads it and how.

Delta's paths are relative references, percent-encoded once. Readers differ in how often they decode, in what they take
for a scheme and in what they do with dots, so a path passes only if it stays inside under every reading.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from .locations import split, unescaped

MAX_PATH_BYTES: Final = 1_024

# What nearly every path looks like: nothing to decode, no scheme, every segment begins with a letter or digit.
_PLAIN = re.compile(r"(?=.{1,1024}\Z)[A-Za-z0-9][A-Za-z0-9_.=+,@~-]*+(?:/[A-Za-z0-9][A-Za-z0-9_.=+,@~-]*+)*+\Z")
is_plain = _PLAIN.match
"""Whether a path is one of the many that need no closer look."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
has_scheme = _SCHEME.match
"""Whether a path is read as an absolute URI."""
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_LOG = "_delta_log"
_CHANGE_DATA = "_change_data"


def path_problem(path: str, partition_columns: Collection[str] = (), *, change_data: bool = False) -> str | None:
    """What is wrong with `path` as the path of a file action, or None.

    The first folder must not be hidden (`_` or `.` at its start) unless it is `<partition column>=...` of one of
    `partition_columns`, or `_change_data` for a change data file.
    """
    if is_plain(path):
        return None
    if (size := len(path.encode("utf-8", "surrogatepass"))) > MAX_PATH_BYTES:
        return f"it has {size} bytes, {MAX_PATH_BYTES} are allowed"
    if not path:
        return "it is empty"
    if _BAD_ESCAPE.search(path):
        return "a % in it is not followed by two hexadecimal digits"
    try:
        decoded = unquote_to_bytes(path).decode("utf-8")
    except UnicodeError:
        return "it is not valid UTF-8 once it is decoded"
    for text in (path, decoded):
        if _FORBIDDEN.search(text):
            return "it has a control character or a backslash in it"
        if text != text.strip():  # which parsers of URIs take away before they look for a scheme or a slash
            return "it begins or ends with a space"
        if _SCHEME.match(text):
            return "it has a scheme: paths are relative to the table's folder"
        segments = text.split("/")
        if not segments[0] and len(segments) > 1:
            return "it begins with a slash: paths are relative to the table's folder"
        if not all(segments):
            return "a segment of it is empty"
        if not _without_dots(segments):
            return "a segment of it is . or .."
        if _LOG in map(str.lower, segments):
            return f"it leads into {_LOG}"
    # A file name may well have %2F in it (partition values are escaped twice), but no reader may climb by it.
    again = unquote_to_bytes(decoded).decode("utf-8", "replace").replace("\\", "/")
    if not _without_dots(again.split("/")):
        return "a segment of it is . or .. once it is decoded twice"
    first = decoded.split("/", 1)[0]
    if first[0] in "_." and not _may_begin_with(first, decoded, partition_columns, change_data):
        return f"its first segment {first[:40]!r} is hidden (begins with _ or .)"
    return None


class Folder:
    """A table's folder, as what its relative paths are relative to."""

    def __init__(self, uri: str) -> None:
        self._store, self._folder = split(uri.rstrip("/"))

    def canonical(self, path: str) -> str:
        """The one name of the object that `path` leads to: decoded, and relative if it lies in the folder."""
        if is_plain(path):
            return path
        if has_scheme(path):
            store, decoded = split(path)
        else:
            store, decoded = self._store, unescaped(path)
        full = posixpath.normpath(posixpath.join(self._folder, decoded))
        if store != self._store:
            return f"{store}{full}"
        return full.removeprefix(f"{self._folder}/")


def canonical_path(path: str, location: str) -> str:
    """`Folder.canonical` for the folder at `location`."""
    return path if is_plain(path) else _folder(location).canonical(path)


_folder = lru_cache(maxsize=256)(Folder)


def _may_begin_with(first: str, decoded: str, partition_columns: Collection[str], change_data: bool) -> bool:
    if change_data and first == _CHANGE_DATA and "/" in decoded:
        return True
    return any(first.startswith(f"{column}=") for column in partition_columns)


def _without_dots(segments: list[str]) -> bool:
    """Whether no segment is `.` or `..`, also where dots and spaces at the end of a name do not count."""
    return all(not segment or segment.strip(" .") for segment in segments)
