"""The table to be imported, where it lies: its log listed and read version by version."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from deltalakedb.deltalog.checkpoints import CheckpointReader
from deltalakedb.deltalog.listing import LogListing, list_log
from deltalakedb.deltalog.read_ahead import ReadAhead
from deltalakedb.errors import TxnLogImportError
from deltalakedb.events import ImportedAction
from deltalakedb.locations import normal
from deltalakedb.objectstore import Object, ObjectStore, open_object_store
from deltalakedb.storage_options import StorageOptions
from deltalakedb.uri import DeltaTableUri, parse_uri

from .plan import Kind, Step

_DISK: Final = "file://"


@dataclass(frozen=True, slots=True)
class Source:
    """An existing Delta table."""

    location: str
    """Its URI, in the one form that a lake knows tables by."""
    store: ObjectStore

    def list(self) -> LogListing:
        """What its log has now."""
        return list_log(self.store, "")

    def reading(self, listing: LogListing, steps: Iterable[Step], met: Mapping[int, Object] | None = None) -> ReadAhead:
        """The commits that these steps import, to be read in their order; those `met` are at hand already."""
        return ReadAhead(self.store, listing, (step.version for step in steps), met=met)

    def actions(self, commits: ReadAhead, step: Step) -> Iterator[ImportedAction]:
        """What the step imports. Raises `TxnLogDeltaLogError` naming version and file."""
        listing = commits.listing
        if step.kind is not Kind.BASELINE:
            yield from commits.commit(step.version)
            return
        if step.version in listing.commits:
            # A checkpoint has no commitInfo, and with it no in-commit timestamp.
            yield from (action for action in commits.commit(step.version) if action.kind == "commitInfo")
        with CheckpointReader(self.store, listing.folder, listing.checkpoints[step.version][0]) as checkpoint:
            yield from checkpoint.heading()
            yield from checkpoint.files()


def open_source(uri: str, storage: StorageOptions) -> Source:
    """The table at a URI or in a directory. Raises `TxnLogUriError`, and `TxnLogImportError` where there is no log."""
    parsed = parse_uri(uri)
    if not isinstance(parsed, DeltaTableUri):
        raise TxnLogImportError(
            f"{uri} is no Delta table: it has no _delta_log. Give its directory, file:///<path> or s3://<bucket>/<path>"
        )
    location = _location(parsed.uri)
    options = storage.values if location.startswith("s3:") else {}
    return Source(location, open_object_store(location, options))


def behind_links(location: str) -> str:
    """The location that one leads to by symbolic links of this machine; one that is not on its disks stays as it is."""
    path = _on_disk(location)
    return location if path is None else f"{_DISK}{quote(os.path.realpath(path))}"


def _location(uri: str) -> str:
    """A folder on disk has one URI, however its path is spelled; on S3 the key is kept as it was given."""
    path = _on_disk(uri)
    return uri.rstrip("/") if path is None else f"{_DISK}{quote(path)}"


def _on_disk(location: str) -> str | None:
    place = normal(location)
    return place.removeprefix(_DISK) or "/" if place.startswith(_DISK) else None
