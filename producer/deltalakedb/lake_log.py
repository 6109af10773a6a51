"""The event log of a lake: the one that its store remembers, and no other."""

from __future__ import annotations

from .errors import TxnLogConfigError, TxnLogHaltedError
from .eventlog import EventLog, Stream, open_event_log
from .settings import Settings


def open_lake_log(settings: Settings, remembered: str, *, client_id: str, reads_only: bool = False) -> EventLog:
    """The log at the address that the lake's store remembers. Raises `TxnLogConfigError` if the settings name another."""
    log = open_event_log(
        settings.log_address or remembered,
        options=settings.log_settings,
        client_id=client_id,
        reads_only=reads_only,
    )
    if log.address != remembered:
        log.close()
        raise TxnLogConfigError(
            f"the settings name the log {log.address}, but this lake is written through {remembered}: correct log "
            "(DELTALAKEDB_LOG), or leave it out"
        )
    return log


def verify_stream(log: EventLog, expected: str) -> None:
    """Raises `TxnLogHaltedError` unless the staged stream is the one that the lake was made with."""
    identity = log.identity(Stream.STAGED)
    if identity != expected:
        raise TxnLogHaltedError(
            "LOG_RECREATED",
            f"the staged stream of {log.address} is not the one this lake has read so far (identity {identity}, expected "
            f"{expected}): it was deleted and made again, or the store belongs to another log. Restore the log, or "
            "start a new lake",
        )
