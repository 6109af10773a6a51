"""Where tables lie: from a location to an object store and a folder in it. Tables under the lake's root share its store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from deltalakedb.objectstore import ObjectStore


class Place(NamedTuple):
    """A table's folder, relative to the root of its store; "" is the root itself."""

    store: ObjectStore
    folder: str


class Places:
    """The stores of one lake, opened once. Thread-safe."""

    def __init__(self, root: str, open_store: Callable[[str], ObjectStore]) -> None:
        self._open = open_store
        self._root = root.rstrip("/")
        self.root = open_store(self._root)
        """The store of the lake's root."""
        self._others: dict[str, ObjectStore] = {}
        self._lock = threading.Lock()

    def of(self, location: str) -> Place:
        """The place of a table. Raises what `open_object_store` raises for a location that it cannot open."""
        location = location.rstrip("/")
        if location.startswith(f"{self._root}/"):
            return Place(self.root, unquote(location[len(self._root) + 1 :]))
        with self._lock:
            store = self._others.get(location)
            if store is None:
                store = self._others[location] = self._open(location)
        return Place(store, "")
