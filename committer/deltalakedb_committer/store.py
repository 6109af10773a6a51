"""The committer's store: all that is written to SQL, in one transaction per batch. Works on any `Database`.

`SqlCommitStore` is the only writer of everything but `dl_mirror_status`. What differs between engines (COPY and
pipelines, one writer at a time, durability settings) lies in the `Database` adapters, so one contract suite shows the
same behaviour on all of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where the committer stands: the row that moves only together with its effects.

    A write names the cursor it started from; if the stored row is not exactly that any more, nothing is written and
    `TxnLogFencedError` is raised.
    """

    epoch: int
    position: int
    """Next record of the staged stream."""
    stream_identity: str
    last_event_hash: bytes | None
    """SHA-256 of the record before `position`."""
    commit_seq: int
    time_ms: int
    next_table_no: int
    rule_set: int
    published_position: int
    """Everything caused by records below is on the log."""
