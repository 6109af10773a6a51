"""An error of the tree as a person reads it: what happened, where, and what to do next, in one block."""

from __future__ import annotations

import textwrap

from deltalakedb.errors import (
    TxnLogCommitUnknownError,
    TxnLogConfigError,
    TxnLogConflictError,
    TxnLogDatabaseError,
    TxnLogDecodeError,
    TxnLogDeltaLogError,
    TxnLogError,
    TxnLogEventLogError,
    TxnLogFencedError,
    TxnLogHaltedError,
    TxnLogImportError,
    TxnLogMirrorError,
    TxnLogMissingExtraError,
    TxnLogObjectStoreError,
    TxnLogOutcomeUnknownError,
    TxnLogRejectedError,
    TxnLogStoreInUseError,
    TxnLogTableFencedError,
    TxnLogTableNotFoundError,
    TxnLogTimeoutError,
    TxnLogTransactionStateError,
    TxnLogUndoError,
    TxnLogUriError,
    TxnLogValidationError,
    redacted,
)
from deltalakedb.settings import Settings

NEXT: dict[type[TxnLogError], str] = {
    TxnLogError: "run again with --debug for the traceback; docs/troubleshooting.md knows the common causes",
    TxnLogConfigError: "correct the option or variable; docs/uris.md lists all of them",
    TxnLogUriError: "correct the URI; docs/uris.md has an example of every form",
    TxnLogMissingExtraError: "install the extra into the environment that runs this program",
    TxnLogValidationError: "correct what was given; nothing has happened",
    TxnLogTableNotFoundError: "`deltalakedb tables` lists the tables of the lake",
    TxnLogRejectedError: "nothing of it is visible; docs/troubleshooting.md explains every reason",
    TxnLogConflictError: "nothing of it is visible; a new transaction on a fresh snapshot may succeed",
    TxnLogOutcomeUnknownError: "`deltalakedb outcome TXN` asks again, `deltalakedb cancel TXN` settles it",
    TxnLogUndoError: "undo what stands on it first, or stage what is wanted instead in a new transaction",
    TxnLogTransactionStateError: "begin a new transaction",
    TxnLogTimeoutError: "see whether committer and mirror run (`deltalakedb info`), then try again with more time",
    TxnLogDatabaseError: "see whether the store's server is up and takes these credentials, then run again",
    TxnLogCommitUnknownError: "run again: what was committed is found and not repeated",
    TxnLogStoreInUseError: "close the lake in the other process, then run again",
    TxnLogEventLogError: "see whether the event log's brokers are up and take these credentials, then run again",
    TxnLogObjectStoreError: "see whether the object store is up and takes these credentials, then run again",
    TxnLogMirrorError: "`deltalakedb mirror status` shows what the mirror waits for",
    TxnLogTableFencedError: "docs/troubleshooting.md, section FENCED",
    TxnLogDeltaLogError: "see who wrote the file that is named; a copy or a backup of the log may still have it whole",
    TxnLogImportError: "resolve what it names, then import again: it goes on where it stopped (docs/import.md)",
    TxnLogDecodeError: "bring this program to the release that wrote the event",
    TxnLogFencedError: "start it again: it comes back as standby",
}
"""What to do next, by the nearest class in the tree."""

WIDTH = 110


def explanation(error: TxnLogError, *, settings: Settings | None = None) -> str:
    """The block for `error`; `settings` tell where it happened, and what must not be shown."""
    secrets = _secrets(settings)
    lines = [f"error: {type(error).__name__}", ""]
    message = redacted(str(error), secrets)
    lines += _indented(message)
    lines.append("")
    if settings is not None:
        lines += _labelled("where", f"lake {settings.address}")
    cause = redacted(str(error.__cause__ or "").strip(), secrets)
    if cause not in message:
        lines += _labelled("cause", f"{type(error.__cause__).__name__}: {cause}")
    lines += _labelled("next", _next(error))
    return "\n".join(lines)


def _next(error: TxnLogError) -> str:
    if isinstance(error, TxnLogHaltedError):
        return f"docs/troubleshooting.md, section {error.state}: read it before you start anything again"
    return next(NEXT[kind] for kind in type(error).__mro__ if kind in NEXT)


def _secrets(settings: Settings | None) -> dict[str, str]:
    try:
        return {} if settings is None else settings.secrets
    except TxnLogConfigError:  # what is being explained may be that very setting
        return {}


def _indented(text: str) -> list[str]:
    """Long lines broken between words; lines that are there stay lines."""
    return [
        line
        for given in text.splitlines()
        for line in textwrap.wrap(
            given, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        or [""]
    ]


def _labelled(label: str, text: str) -> list[str]:
    first, *rest = _indented(text)
    indent = " " * 9
    return [f"  {label:<7}{first.strip()}", *(indent + line.strip() for line in rest)]
