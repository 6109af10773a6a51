"""One `_delta_log` as it was when it was listed: its commits, and the table's state at any version that it can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard
from urllib.parse import quote

from deltalakedb.errors import LogProblem, TxnLogDeltaLogError
from deltalakedb.events import ImportedAction
from deltalakedb.log_names import commit_version
from deltalakedb.objectstore import ObjectStore

from .checkpoints import CheckpointReader
from .commits import read_commit
from .listing import Checkpoint, LogListing, list_log
from .logical_files import TableRoot
from .state import LogState


class DeltaLog:
    """The `_delta_log` of the table in `folder` (relative to the store's root; "" is the root itself).

    What was listed is what there is: another listing sees later commits. Used by one thread.
    """

    def __init__(self, store: ObjectStore, folder: str = "", listing: LogListing | None = None) -> None:
        self.store = store
        self.folder = folder
        self.listing = listing or list_log(store, folder)
        self.root = TableRoot(f"{store.root}/{quote(folder)}" if folder else store.root)

    def commit(self, version: int) -> Iterator[ImportedAction]:
        """The actions of one commit, in the order of its file.

        Raises `TxnLogDeltaLogError`: CORRUPT, VANISHED, or GAP where there is no such file.
        """
        return read_commit(self.store, self.listing.commit(version), version)

    def state(self, version: int | None = None) -> LogState:
        """The table at `version`, or at the newest one. Close it, or use `with`.

        Raises `TxnLogDeltaLogError`, which names version and file: what the state is made of cannot be read, has no
        protocol or metadata, or asks readers for a feature that this release does not know.
        """
        version = self.listing.newest if version is None else version
        problem: TxnLogDeltaLogError | None = None
        for base in self.listing.bases(version):
            checkpoint = None if base is None else self.open(base)
            try:
                return LogState(self.store, self.listing, self.root, version, checkpoint)
            except BaseException as error:
                if checkpoint is not None:
                    checkpoint.close()
                # All checkpoints say the same: one that cannot be read is no loss while another one, or the commits, can.
                if checkpoint is None or not _of_a_checkpoint(error):
                    raise
                problem = problem or error
        assert problem is not None
        raise problem

    def open(self, checkpoint: Checkpoint) -> CheckpointReader:
        """Open a checkpoint of this log."""
        return CheckpointReader(self.store, self.folder, checkpoint)


def _of_a_checkpoint(error: BaseException) -> TypeGuard[TxnLogDeltaLogError]:
    if not isinstance(error, TxnLogDeltaLogError) or error.path is None:
        return False
    return error.problem in (LogProblem.CORRUPT, LogProblem.VANISHED) and commit_version(error.path) is None
