"""`_last_checkpoint`: the hint that spares readers a listing. Pure: its bytes, its checksum, what an existing one names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec


class MainFile(NamedTuple):
    """The main file of a V2 checkpoint."""

    name: str
    size: int
    modification_time: int


def render(*, version: int, actions: int, size: int, adds: int, main: MainFile | None = None) -> bytes:
    """The hint for a checkpoint of `version` with that many actions (adds among them) in `size` bytes.

    `main` is given for a V2 checkpoint. Compact, and version and size first: some readers look no further, and one that
    reads a torn file stays consistent.
    """
    hint: dict[str, Any] = {"version": version, "size": actions, "sizeInBytes": size, "numOfAddFiles": adds}
    if main is not None:
        hint["v2Checkpoint"] = {
            "path": main.name,
            "sizeInBytes": main.size,
            "modificationTime": main.modification_time,
        }
    return msgspec.json.encode({**hint, "checksum": checksum(hint)})


def named_version(data: bytes) -> int | None:
    """The version that an existing hint names; None if it cannot be read."""
    try:
        return msgspec.json.decode(data, type=_Hint).version
    except msgspec.MsgspecError:
        return None


class _Hint(msgspec.Struct):
    version: int


def checksum(hint: Mapping[str, Any]) -> str:
    """The protocol's checksum over a hint: MD5 of its leaves, one `path=value` each, in byte order.

    `checksum` itself is left out. Numbers other than integers are taken as Python writes them.
    """
    leaves = _leaves("", {key: value for key, value in hint.items() if key != "checksum"})
    return hashlib.md5(",".join(sorted(leaves)).encode(), usedforsecurity=False).hexdigest()


def _leaves(path: str, value: Any) -> Iterator[str]:
    joined = f"{path}+" if path else ""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(f"{joined}{_text(key)}", below)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _leaves(f"{joined}{index}", below)
    else:
        yield f"{path}={_text(value) if isinstance(value, str) else msgspec.json.encode(value).decode()}"


def _text(text: str) -> str:
    return f'"{quote(text, safe="-._~")}"'
