"""The `commitInfo` of an imported version: which of its fields have columns, and what stays verbatim."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

_TEXTS = {
    "txnId": "txn_id",
    "operation": "operation",
    "isolationLevel": "isolation_level",
    "userMetadata": "user_metadata",
    "engineInfo": "engine_info",
}
_OBJECTS = {
    "operationParameters": "operation_parameters",
    "operationMetrics": "operation_metrics",
    "tags": "tags",
}


class CommitInfo(NamedTuple):
    """Columns of `dl_table_versions`; None where there is nothing that fits."""

    txn_id: str | None = None
    operation: str | None = None
    operation_parameters: str | None = None
    operation_metrics: str | None = None
    read_version: int | None = None
    isolation_level: str | None = None
    is_blind_append: bool | None = None
    user_metadata: str | None = None
    engine_info: str | None = None
    tags: str | None = None
    commit_info: str | None = None
    """All other fields; None where the version has no `commitInfo` at all."""


def read_commit_info(body: str | None) -> CommitInfo:
    """The columns for a `commitInfo` action. Its times stay as they are: a version's own time may be another one."""
    if body is None:
        return CommitInfo()
    rest: dict[str, msgspec.Raw] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    columns: dict[str, Any] = {}
    for key, name in _OBJECTS.items():
        if key in rest and bytes(rest[key])[:1] == b"{":
            columns[name] = str(rest.pop(key), "utf-8")
    for key, name in _TEXTS.items():
        text = _plain(rest.get(key))
        if isinstance(text, str) and "\0" not in text:
            columns[name] = text
            del rest[key]
    version, blind = _plain(rest.get("readVersion")), _plain(rest.get("isBlindAppend"))
    if type(version) is int and -(2**63) <= version < 2**63:
        columns["read_version"] = version
        del rest["readVersion"]
    if type(blind) is bool:
        columns["is_blind_append"] = blind
        del rest["isBlindAppend"]
    return CommitInfo(**columns, commit_info=msgspec.json.encode(rest).decode())


def _plain(raw: msgspec.Raw | None) -> Any:
    """The value, if there is one: a number may be larger than any that has a form here."""
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except msgspec.MsgspecError:
        return None
