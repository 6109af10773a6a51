"""An independent replay of a `_delta_log`, written from the protocol's text alone: what a table is at a version.

It shares no code with the library, so that the two do not agree by being wrong together. It holds everything in
memory.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10})|\.([0-9a-f-]{36}))?\.(parquet|json)")

Json = dict[str, Any]


@dataclass
class State:
    """A table at one version. `live` is by (canonical path, id of the deletion vector)."""

    protocol: Json = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)
    live: dict[tuple[str, str], Json] = field(default_factory=dict)
    txns: dict[str, Json] = field(default_factory=dict)
    domains: dict[str, Json] = field(default_factory=dict)

    def apply(self, action: Json) -> None:
        """One action after another; the last word counts."""
        for kind, body in action.items():
            if body is None:
                continue
            match kind:
                case "protocol":
                    self.protocol = without_nulls(body)
                case "metaData":
                    self.metadata = _metadata(body)
                case "txn":
                    self.txns[body["appId"]] = without_nulls(body)
                case "domainMetadata":
                    if body.get("removed"):
                        self.domains.pop(body["domain"], None)
                    else:
                        self.domains[body["domain"]] = without_nulls(body)
                case "add":
                    self.live[_key(body)] = _file(body)
                case "remove":
                    self.live.pop(_key(body), None)
                case _:
                    pass

    def compare(self, other: State) -> list[str]:
        """What differs, in words; nothing where the two are equal."""
        found = [
            f"{name}: {getattr(self, name)!r:.300} / {getattr(other, name)!r:.300}"
            for name in ("protocol", "metadata", "txns", "domains")
            if getattr(self, name) != getattr(other, name)
        ]
        found += [f"only here: {key}" for key in self.live.keys() - other.live.keys()]
        found += [f"only there: {key}" for key in other.live.keys() - self.live.keys()]
        for key in self.live.keys() & other.live.keys():
            mine, theirs = self.live[key], other.live[key]
            names = [name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)]
            if names:
                found.append(f"{key} differs in {names}: {mine!r:.600} / {theirs!r:.600}")
        return found


@dataclass
class Log:
    """The files of one `_delta_log`."""

    folder: Path
    commits: dict[int, Path]
    checkpoints: dict[int, list[list[Path]]]
    compacted: bool
    """Whether there are compacted logs beside the commits."""

    @property
    def newest(self) -> int:
        return max([*self.commits, *self.checkpoints], default=-1)

    def versions(self) -> list[int]:
        """Those whose state can be told, down from the newest as far as there is no gap: an import keeps no other."""
        first = self.newest
        while first > 0 and first - 1 >= 0 and first in self.commits and self._base(first - 1) is not None:
            first -= 1
        return list(range(first, self.newest + 1)) if self._base(self.newest) is not None else []

    def at(self, version: int) -> State:
        """The state at a version: from the oldest thing that tells it, as an importer must do it."""
        base = self._base(version)
        assert base is not None, f"{self.folder} does not tell version {version}"
        return self._from(base, version)

    def contradicts_itself(self) -> bool:
        """Whether its newest checkpoint, which readers begin with, says something else than the commits up to it."""
        checkpoint = max((version for version in self.checkpoints if version <= self.newest), default=None)
        if checkpoint is None or checkpoint not in self.versions():
            return False
        return bool(self.at(checkpoint).compare(self._from(checkpoint, checkpoint)))

    def _from(self, base: int, version: int) -> State:
        state = State()
        if base >= 0:
            for action in _checkpoint(self.folder, self.checkpoints[base][0]):
                state.apply(action)
        for number in range(base + 1, version + 1):
            for action in _lines(self.commits[number].read_text("utf-8-sig")):
                state.apply(action)
        return state

    def _base(self, version: int) -> int | None:
        """-1: from nothing; a checkpoint's version; None: it cannot be told."""
        found = None
        number = version
        while True:
            if number in self.checkpoints:
                found = number
            if number not in self.commits:
                return found
            if number == 0:
                return -1
            number -= 1


def read_log(table: Path) -> Log:
    """The log of the table in a folder."""
    folder = table / "_delta_log"
    commits: dict[int, Path] = {}
    parts: dict[tuple[int, str], dict[int, Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if commit := _COMMIT.fullmatch(path.name):
            commits[int(commit[1])] = path
        elif (checkpoint := _CHECKPOINT.fullmatch(path.name)) and path.stat().st_size:
            version, part, count, unique, _ = checkpoint.groups()
            parts.setdefault((int(version), unique or count or ""), {})[int(part or 1)] = path
    checkpoints: dict[int, list[list[Path]]] = {}
    for (number, kind), files in sorted(parts.items()):
        wanted = int(kind) if kind.isdigit() else 1
        if len(files) == wanted:
            checkpoints.setdefault(number, []).append([files[part] for part in sorted(files)])
    return Log(folder, commits, checkpoints, compacted=any(folder.glob("*.compacted.json")))


def without_nulls(value: Any) -> Any:
    """A JSON value without members that are null (an absent and a null member mean the same), partition values apart."""
    if isinstance(value, dict):
        return {
            name: member if name == "partitionValues" else without_nulls(member)
            for name, member in value.items()
            if member is not None
        }
    return [without_nulls(member) for member in value] if isinstance(value, list) else value


def _metadata(body: Json) -> Json:
    found = without_nulls(body)
    found["schemaString"] = json.loads(found.get("schemaString") or '{"type":"struct","fields":[]}')
    found.setdefault("configuration", {})
    found.setdefault("partitionColumns", [])
    found.setdefault("format", {}).setdefault("provider", "parquet")
    found["format"].setdefault("options", {})
    return found  # type: ignore[no-any-return]


def _key(body: Json) -> tuple[str, str]:
    vector = body.get("deletionVector")
    path = unquote(body["path"])
    if vector is None:
        return path, ""
    offset = vector.get("offset")
    return path, f"{vector['storageType']}{vector['pathOrInlineDv']}{'' if offset is None else f'@{offset}'}"


def _file(body: Json) -> Json:
    """An add in a form that does not depend on who wrote it down. `dataChange` is about a commit, not about the file."""
    found: Json = without_nulls({name: value for name, value in body.items() if not name.endswith("_parsed")})
    found.pop("dataChange", None)
    found.setdefault("partitionValues", {})
    if not found.get("tags"):
        found.pop("tags", None)
    stats = found.pop("stats", None)
    if stats is not None:
        try:
            found["stats"] = _statistics(json.loads(stats))
        except ValueError:
            found["stats"] = stats
    elif body.get("stats_parsed") is not None:
        found["stats"] = _statistics(_plain(body["stats_parsed"]))
    return found


def _statistics(value: Any) -> Any:
    """Statistics by meaning: no nulls, no empty objects, times as instants, numbers as numbers."""
    if isinstance(value, dict):
        members = {name: _statistics(member) for name, member in value.items() if member is not None}
        return {name: member for name, member in members.items() if member != {}}
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d[T ].*", value):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return value
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1000)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return float(value)


def _plain(value: Any) -> Any:
    """A value from a checkpoint's statistics as JSON has it."""
    match value:
        case dict():
            return {name: _plain(member) for name, member in value.items()}
        case datetime():
            return value.isoformat()
        case date():
            return value.isoformat()
        case Decimal():
            return float(value)
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return value


def _lines(text: str) -> Iterator[Json]:
    """Objects one after another, usually one in a line."""
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        found, at = decoder.raw_decode(text, at)
        yield found


def _checkpoint(folder: Path, files: list[Path]) -> Iterator[Json]:
    for path in files:
        actions = list(_lines(path.read_text())) if path.suffix == ".json" else list(_rows(path))
        for action in actions:
            sidecar = action.get("sidecar")
            if sidecar is not None:
                yield from _rows(folder / "_sidecars" / unquote(sidecar["path"]).rsplit("/", 1)[-1])
        yield from actions


def _rows(path: Path) -> Iterator[Json]:
    for row in pq.ParquetFile(path).read().to_pylist(maps_as_pydicts="strict"):
        yield {kind: body for kind, body in row.items() if body is not None}
