"""Where tables lie: from a location to an object store and a folder in it, at a mirror target and where it comes from.

At its own place (kind in-place) a table's log lies in its location. At another root a table has the same path below that
root as it has below the lake's; one that lies elsewhere gets a folder with the last part of its location as a name.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from deltalakedb.errors import TxnLogMirrorError
from deltalakedb.locations import nested
from deltalakedb.objectstore import ObjectStore


class Place(NamedTuple):
    """A table's folder, relative to the root of its store; "" is the root itself."""

    store: ObjectStore
    folder: str

    @property
    def uri(self) -> str:
        """For people: the folder's address."""
        return f"{self.store.root}/{self.folder}" if self.folder else self.store.root


class Places:
    """The stores of one lake and one mirror target, opened once. Thread-safe."""

    def __init__(self, root: str, open_store: Callable[[str], ObjectStore], *, target: str | None = None) -> None:
        """`target` is the root of a target that is not in-place.

        Raises `TxnLogMirrorError` if it lies within the lake's root or around it: its files would be taken for tables.
        """
        self._open = open_store
        self._root = root.rstrip("/")
        self._target = None if target is None else target.rstrip("/")
        if self._target is not None and nested(self._target, self._root):
            raise TxnLogMirrorError(f"the root {self._target} of a mirror target and the lake's {self._root} overlap")
        self._lake = open_store(self._root)
        self.root = self._lake if self._target is None else open_store(self._target)
        """The store of the target's root, which is the lake's root in place."""
        self._others: dict[str, ObjectStore] = {}
        self._lock = threading.Lock()

    def of(self, location: str) -> Place:
        """Where the table at `location` is published. Raises what `open_object_store` raises for a location."""
        if self._target is None:
            return self.source(location)
        return Place(self.root, unquote(self._below(location)))

    def uri(self, location: str) -> str:
        """The address at which readers find the table at `location`."""
        return location if self._target is None else f"{self._target}/{self._below(location)}"

    def source(self, location: str) -> Place:
        """Where the table itself lies. Raises what `open_object_store` raises for a location that it cannot open."""
        location = location.rstrip("/")
        if location.startswith(f"{self._root}/"):
            return Place(self._lake, unquote(location[len(self._root) + 1 :]))
        with self._lock:
            store = self._others.get(location)
            if store is None:
                store = self._others[location] = self._open(location)
        return Place(store, "")

    def _below(self, location: str) -> str:
        location = location.rstrip("/")
        if location.startswith(f"{self._root}/"):
            return location[len(self._root) + 1 :]
        # Locations are unique for ever, their last parts are not.
        return f"{location.rsplit('/', 1)[1]}-{hashlib.sha256(location.encode()).hexdigest()[:8]}"
