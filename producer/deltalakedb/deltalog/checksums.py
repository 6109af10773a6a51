"""Version checksums (`.crc`): what one says about a version, beside what the log itself says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from . import meaning
from .log import DeltaLog
from .state import LogState


class _Checksum(msgspec.Struct, rename="camel"):
    table_size_bytes: int
    num_files: int
    metadata: dict[str, Any] | None = None
    protocol: dict[str, Any] | None = None
    set_transactions: list[dict[str, Any]] | None = None
    domain_metadata: list[dict[str, Any]] | None = None


class _Size(msgspec.Struct):
    size: int = 0


def contradictions(log: DeltaLog, state: LogState) -> list[str]:
    """What the checksum of a state's version says otherwise than the log, in words; nothing where there is none to read.

    Readers ignore a checksum that they cannot read, and some believe one that is wrong. Goes through all files.
    """
    file = log.listing.checksums.get(state.version)
    found = None if file is None else log.store.get(file.path)
    if file is None or found is None:
        return []
    try:
        checksum = msgspec.json.decode(found.data, type=_Checksum, strict=False)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []
    said, told = _said(checksum), _told(state)
    return [
        f"{file.path} says {name} {_shown(said[name])}, the log says {_shown(told[name])}"
        for name in said
        if said[name] != told[name]
    ]


def _said(checksum: _Checksum) -> dict[str, Any]:
    said: dict[str, Any] = {"numFiles": checksum.num_files, "tableSizeBytes": checksum.table_size_bytes}
    if checksum.protocol is not None:
        said["protocol"] = meaning.protocol(checksum.protocol)
    if checksum.metadata is not None:
        said["metadata"] = meaning.metadata(checksum.metadata)
    if checksum.set_transactions is not None:
        said["setTransactions"] = _transactions(checksum.set_transactions)
    if checksum.domain_metadata is not None:
        said["domainMetadata"] = _domains(checksum.domain_metadata)
    return said


def _told(state: LogState) -> dict[str, Any]:
    sizes = [
        msgspec.json.decode(action.json, type=_Size, strict=False).size
        for action in state.files()
        if action.kind == "add"
    ]
    return {
        "numFiles": len(sizes),
        "tableSizeBytes": sum(sizes),
        "protocol": meaning.protocol(meaning.parsed(state.protocol.json)),
        "metadata": meaning.metadata(meaning.parsed(state.metadata.json)),
        "setTransactions": _transactions(meaning.parsed(action.json) for action in state.txns.values()),
        "domainMetadata": _domains(meaning.parsed(action.json) for action in state.domains.values()),
    }


def _transactions(bodies: Iterable[Mapping[str, Any]]) -> dict[Any, Any]:
    return {body.get("appId"): meaning.normal(dict(body)) for body in bodies}


def _domains(bodies: Iterable[Mapping[str, Any]]) -> dict[Any, Any]:
    return {body.get("domain"): meaning.domain(body) for body in bodies}


def _shown(value: Any) -> str:
    text = meaning.encoded(value).decode()
    return text if len(text) <= 200 else f"{text[:200]}..."
