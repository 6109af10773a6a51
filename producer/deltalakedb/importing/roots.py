"""Where the paths of an imported table lead: into its own folder, under a root that an operator allows, or nowhere. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote

from deltalakedb.errors import TxnLogUriError
from deltalakedb.locations import normal
from deltalakedb.paths import has_scheme, is_plain

_VECTOR_NAME: Final = 20
"""Characters of a deletion vector's encoded file name, behind an optional folder."""


class Roots:
    """The folders that files of one table may lie in."""

    def __init__(self, location: str, allowed: Iterable[str] = ()) -> None:
        """`location` is the table's URI, `allowed` are further URIs or absolute paths."""
        self._location = absolute(location)
        self._roots = (self._location, *map(absolute, allowed))

    def leads_out(self, path: str) -> str | None:
        """The place that an action's percent-encoded `path` names if it lies in none of the folders, else None."""
        if is_plain(path):
            return None
        place = self._place(unquote(path))
        return None if any(_within(place, root) for root in self._roots) else place

    def vector_leads_out(self, storage_type: str, path_or_inline: str) -> str | None:
        """The same of a deletion vector's descriptor."""
        if storage_type == "i":
            return None
        return self.leads_out(path_or_inline if storage_type == "p" else path_or_inline[:-_VECTOR_NAME] or ".")

    def _place(self, path: str) -> str:
        if has_scheme(path):
            return absolute(quote(path, safe="/:@"))
        if path.startswith("/"):
            # Absolute in the table's own file system, as Hadoop has it.
            scheme, rest = self._location.split("://", 1)
            return f"{scheme}://{rest.split('/', 1)[0]}{posixpath.normpath(path)}"
        scheme, rest = self._location.split("://", 1)
        return f"{scheme}://{posixpath.normpath(f'{rest}/{path}')}"


def absolute(uri: str) -> str:
    """A URI or absolute path in the form that places are compared in. Raises `TxnLogUriError` for a relative path."""
    if not has_scheme(uri) and not uri.startswith("/"):
        raise TxnLogUriError(f"{uri!r} is neither a URI nor an absolute path")
    return normal(uri)


def _within(place: str, root: str) -> bool:
    return place == root or place.startswith(f"{root}/")
