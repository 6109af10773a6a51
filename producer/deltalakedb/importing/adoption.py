"""The version by which a lake takes a table over: protocol with the writer fence, in-commit timestamps, and whose it is.

Pure. Its actions have the form that the mirror gives them, so that a mirror finds the file to be its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from deltalakedb.actions import Metadata, Protocol, as_json
from deltalakedb.events import ImportedAction
from deltalakedb.features import FENCE_FEATURE, ICT, ICT_FEATURE, listed

OPERATION: Final = "ADOPT"
"""`commitInfo.operation` of the version."""
_ENABLED_VERSION: Final = "delta.inCommitTimestampEnablementVersion"
_ENABLED_TIMESTAMP: Final = "delta.inCommitTimestampEnablementTimestamp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The table as it is taken over."""

    name: str
    version: int
    """Its newest version; the adoption is the next one."""
    time_ms: int
    """Of that version: in-commit timestamp, or the time that its file gave it."""
    protocol: Protocol
    metadata: Metadata


def adoption(taken: Taken, *, txn_id: str, lake_id: str, engine_info: str, now_ms: int) -> list[ImportedAction]:
    """The actions of the next version: commitInfo, protocol, and metaData unless in-commit timestamps were on before."""
    version = taken.version + 1
    time_ms = max(now_ms, taken.time_ms + 1)
    info: dict[str, Any] = {
        "inCommitTimestamp": time_ms,
        "timestamp": time_ms,
        "operation": OPERATION,
        "operationParameters": {"lakeId": lake_id, "table": taken.name},
        "readVersion": taken.version,
        "isolationLevel": "Serializable",
        "isBlindAppend": False,
        "engineInfo": engine_info,
        "txnId": txn_id,
    }
    actions = [
        _action("commitInfo", info),
        _action("protocol", as_json("protocol", fenced(taken.protocol))),
    ]
    configuration = taken.metadata.configuration
    if configuration.get(ICT) != "true":
        enabled = {ICT: "true", _ENABLED_VERSION: str(version), _ENABLED_TIMESTAMP: str(time_ms)}
        metadata = msgspec.structs.replace(taken.metadata, configuration={**configuration, **enabled})
        actions.append(_action("metaData", as_json("metaData", metadata)))
    return actions


def fenced(protocol: Protocol) -> Protocol:
    """The protocol with the writer fence and in-commit timestamps, and every feature that it stood for before.

    What readers need to know stays the same: both features concern writers only.
    """
    features = {*listed(protocol), ICT_FEATURE, FENCE_FEATURE}
    if protocol.min_writer_version < 7 and protocol.min_reader_version < 2:
        # Writer version 5 stands for column mapping only together with reader version 2.
        features.discard("columnMapping")
    return msgspec.structs.replace(protocol, min_writer_version=7, writer_features=tuple(sorted(features)))


def log_file(actions: list[ImportedAction]) -> bytes:
    """The actions as a file of the log."""
    return "".join(f'{{"{action.kind}":{action.json}}}\n' for action in actions).encode()


def _action(kind: str, body: dict[str, Any]) -> ImportedAction:
    return ImportedAction(kind, msgspec.json.encode(body).decode())
