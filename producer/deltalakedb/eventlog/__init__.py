"""The event log: moves bytes in order and knows nothing of Delta. `open_event_log` picks the adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

from deltalakedb.errors import TxnLogConfigError, TxnLogMissingExtraError, TxnLogUriError

from .port import (
    MAX_HEADERS_BYTES,
    MAX_RECORD_BYTES,
    OUTCOME_PARTITIONS,
    Append,
    Appended,
    Done,
    EventLog,
    Headers,
    LogReader,
    Message,
    Record,
    Stream,
)

__all__ = [
    "MAX_HEADERS_BYTES",
    "MAX_RECORD_BYTES",
    "OUTCOME_PARTITIONS",
    "Append",
    "Appended",
    "Done",
    "EventLog",
    "Headers",
    "LogReader",
    "Message",
    "Record",
    "Stream",
    "open_event_log",
]

_FORMS = "kafka://host:9092,host2:9092/<prefix> or sqlite:///absolute/path/log.db"

_SERVER = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?")

# Kafka's own rule for topic names (249 characters at most), less room for the longest stream's name.
_PREFIX = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,230}")


def open_event_log(
    address: str,
    *,
    options: Mapping[str, str] | None = None,
    client_id: str = "deltalakedb",
    reads_only: bool = False,
) -> EventLog:
    """The log at `address`: `kafka://host:9092,host2:9092/<prefix>` or `sqlite:///absolute/path/log.db`.

    `options` are librdkafka settings (`security.protocol`, `sasl.password`, ...), for Kafka only; credentials belong
    there and never into the address. `client_id` is what a broker calls this process in its own logs and quotas.
    Nothing is created, and whether the log can be reached shows at first use. With `reads_only` nothing asks the brokers
    for what only an append needs, and a reader may have no right to.

    Raises `TxnLogUriError` if the address has another form, `TxnLogConfigError` if an option would break a promise of
    the log, `TxnLogMissingExtraError` if the Kafka client is not installed.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        raise TxnLogUriError(f"an event log's address has the form {_FORMS}")
    if scheme == "kafka":
        servers, prefix = _kafka_parts(rest)
        try:
            from .kafka import KafkaEventLog
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "confluent_kafka":
                raise
            raise TxnLogMissingExtraError("an event log on Kafka", "kafka") from error
        return KafkaEventLog(servers, prefix, options=options, client_id=client_id, reads_only=reads_only)
    if scheme == "sqlite":
        path = _sqlite_path(rest)
        if options:
            raise TxnLogConfigError("an event log in a SQLite file takes no options")
        from .sqlite import SqliteEventLog

        return SqliteEventLog(path)
    raise TxnLogUriError(f"no event log is known for {scheme!r}: an address has the form {_FORMS}")


def _kafka_parts(rest: str) -> tuple[str, str]:
    servers, _, prefix = rest.partition("/")
    if "@" in rest:
        raise TxnLogUriError(f"credentials belong into the options, not into the address: {_FORMS}")
    matches = [_SERVER.fullmatch(server) for server in servers.split(",")]
    if not all(matches) or not _PREFIX.fullmatch(prefix):
        raise TxnLogUriError(
            f"cannot understand {'kafka://' + rest!r}: the form is kafka://host:9092,host2:9092/<prefix>, "
            "with a prefix of letters, digits, '.', '_' and '-'"
        )
    return ",".join(f"{match['host']}:{match['port'] or 9092}" for match in matches if match), prefix


def _sqlite_path(rest: str) -> str:
    path = unquote(rest)
    if not rest.startswith("/") or rest.endswith("/") or "?" in rest or "#" in rest or "\0" in path:
        raise TxnLogUriError(
            f"cannot understand {'sqlite://' + rest!r}: the form is sqlite:///absolute/path/log.db "
            "('?', '#' and '%' in a path are written %3F, %23 and %25)"
        )
    return "/" + path.lstrip("/")
