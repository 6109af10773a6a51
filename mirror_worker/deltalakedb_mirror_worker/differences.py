"""Where SQL and a `_delta_log` say different things of a table, by meaning. Pure: both sides come as JSON of actions.

Files are compared by digests, so that a million of them on each side need some hundred megabytes: first as they are
written, then those that differ by what they mean, and only what is to be shown is kept as a whole.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgspec

from deltalakedb.deltalog import meaning
from deltalakedb.deltalog.logical_files import TableRoot

SHOWN = 20
"""Differences of one kind that are told in full; beyond, they are counted."""
SLICE_FILES = 1_000_000
"""Files that are compared at once, at most."""

_OTHERS = ("size", "modificationTime", "tags", "baseRowId", "defaultRowCommitVersion", "clusteringProvider")
_SAID = ("partitionValues", "stats", "deletionVector", *_OTHERS)
_DIGEST = 6
_decode = msgspec.json.Decoder(dict[str, Any]).decode

Adds = Callable[[], Iterable[str]]
"""The live files of one side as JSON objects of `add`, as often as they are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that SQL and the log do not agree on. What one side does not have at all is None there."""

    about: str
    """file, protocol, metaData, txn, domainMetadata, history, checksum or log."""
    name: str
    """Which one: a path, a field, an application, a domain, a version, a problem."""
    sql: Any
    log: Any


@dataclass(slots=True)
class Findings:
    """What was found so far: how many differences of which kind, and the first of each."""

    counts: Counter[str] = field(default_factory=Counter)
    shown: list[Difference] = field(default_factory=list)

    def add(self, about: str, name: str, sql: Any, log: Any) -> None:
        """Note a difference."""
        self.counts[about] += 1
        if self.counts[about] <= SHOWN:
            self.shown.append(Difference(about=about, name=name, sql=sql, log=log))


def compare(findings: Findings, about: str, sql: Mapping[str, Any], log: Mapping[str, Any]) -> None:
    """What has a name (a field, an application, a domain, a version), in the normal form of `meaning`."""
    for name in sorted(sql.keys() | log.keys()):
        if sql.get(name) != log.get(name):
            findings.add(about, name, sql.get(name), log.get(name))


def compare_files(
    findings: Findings, sql: Adds, log: Adds, *, root: TableRoot, statistics: meaning.Statistics | None, files: int = 0
) -> None:
    """Live files: which there are, and what each side says of them. `files`: how many there are, about.

    Paths are compared as Delta matches them. `dataChange` and fields that the protocol does not know are not compared: a
    checkpoint does not have them. Nor are statistics without `statistics`, which understand them.
    """
    slices = max(1, math.ceil(files / SLICE_FILES))

    def keyed(adds: Adds, part: int) -> _Keyed:
        return lambda: _slice(adds(), root, part, slices)

    for part in range(slices):
        _compare_slice(findings, keyed(sql, part), keyed(log, part), statistics)


_Keyed = Callable[[], Iterator[tuple[bytes, str]]]


def _slice(adds: Iterable[str], root: TableRoot, part: int, slices: int) -> Iterator[tuple[bytes, str]]:
    for add in adds:
        key = root.key(add)
        if slices == 1 or int.from_bytes(key[:4], "little") % slices == part:
            yield key, add


def _compare_slice(findings: Findings, sql: _Keyed, log: _Keyed, statistics: meaning.Statistics | None) -> None:
    there = {key: _as_written(add) for key, add in log()}
    only_sql: list[bytes] = []
    suspects: set[bytes] = set()
    for key, add in sql():
        digest = there.pop(key, None)
        if digest is None:
            only_sql.append(key)
        elif digest != _as_written(add):
            suspects.add(key)
    only_log = list(there)
    del there
    differing = _differing(findings, sql, log, suspects, statistics) if suspects else []
    findings.counts["file only in SQL"] += len(only_sql)
    findings.counts["file only in the log"] += len(only_log)
    _show(findings, sql, log, [*_few(only_sql), *_few(only_log), *differing], statistics)


def _differing(
    findings: Findings, sql: _Keyed, log: _Keyed, suspects: set[bytes], statistics: meaning.Statistics | None
) -> list[bytes]:
    """Count what is said differently of the files `suspects`, which are on both sides; some of those that differ."""
    meant = {key: _as_meant(add, statistics) for key, add in log() if key in suspects}
    found: list[bytes] = []
    for key, add in sql():
        if key in suspects:
            mine, its = _as_meant(add, statistics), meant[key]
            wrong = [
                name
                for n, name in enumerate(_SAID)
                if mine[n * _DIGEST : (n + 1) * _DIGEST] != its[n * _DIGEST : (n + 1) * _DIGEST]
            ]
            findings.counts.update(f"{name} of a file" for name in wrong)
            if any(findings.counts[f"{name} of a file"] <= SHOWN for name in wrong):
                found.append(key)
    return found


def _few(keys: Iterable[bytes]) -> list[bytes]:
    return heapq.nsmallest(SHOWN, keys)


def _show(
    findings: Findings, sql: _Keyed, log: _Keyed, keys: Iterable[bytes], statistics: meaning.Statistics | None
) -> None:
    """Read the files `keys` once more, to tell them in full."""
    wanted = set(keys)
    if not wanted:
        return
    sides = [{key: add for key, add in side() if key in wanted} for side in (sql, log)]
    for key in sorted(wanted):
        ours, theirs = (side.get(key) for side in sides)
        path = _decode(ours or theirs or "{}")["path"]
        mine, its = (None if add is None else _said(add, statistics) for add in (ours, theirs))
        if mine is not None and its is not None:
            wrong = [name for name in _SAID if mine[name] != its[name]]
            mine, its = {name: mine[name] for name in wrong}, {name: its[name] for name in wrong}
        findings.shown.append(Difference(about="file", name=path, sql=mine, log=its))


def _as_written(add: str) -> bytes:
    """A digest of an add that is the same for the same fields and texts. It need not be the same for the same meaning."""
    body = _decode(add)
    del body["path"]
    body.pop("dataChange", None)
    return blake2b(meaning.encoded(body), digest_size=16).digest()


def _as_meant(add: str, statistics: meaning.Statistics | None) -> bytes:
    """What an add says: a short digest for each thing, one after another."""
    said = _said(add, statistics)
    return b"".join(blake2b(meaning.encoded(said[name]), digest_size=_DIGEST).digest() for name in _SAID)


def _said(add: str, statistics: meaning.Statistics | None) -> dict[str, Any]:
    body = _decode(add)
    other = meaning.other_fields(body)
    return {
        "partitionValues": meaning.partition_values(body.get("partitionValues")),
        "stats": None if statistics is None else statistics.normal(body.get("stats")),
        "deletionVector": meaning.deletion_vector(body.get("deletionVector")),
        **{name: other.get(name) for name in _OTHERS},
    }
