"""The names of files in a `_delta_log`: one grammar for whoever writes, lists or reads one. Pure."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple

LOG: Final = "_delta_log"
LAST_CHECKPOINT: Final = "_last_checkpoint"
SIDECARS: Final = "_sidecars"

MAX_VERSION: Final = 2**63 - 1

_UUID = "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_COMMIT = re.compile(r"([0-9]{20})\.json")
_NAME = re.compile(
    rf"""(?P<version>[0-9]{{20}})\.(?:
        (?P<commit>json)
      | (?P<checksum>crc)
      | (?P<until>[0-9]{{20}})\.compacted\.json
      | checkpoint\.(?:
            (?P<classic>parquet)
          | (?P<part>[0-9]{{10}})\.(?P<parts>[0-9]{{10}})\.parquet
          | (?P<unique>{_UUID})\.(?:parquet|json)
        )
    )""",
    re.VERBOSE,
)


class LogFile(Enum):
    """What a file of a `_delta_log` is."""

    COMMIT = "commit"
    CHECKSUM = "checksum"
    COMPACTED = "compacted"
    """Several commits in one: nothing that the commits themselves do not say."""
    CLASSIC = "classic checkpoint"
    PART = "part of a checkpoint"
    UNIQUE = "checkpoint with a unique name"


class LogName(NamedTuple):
    """A file's name, understood. `part` of `parts` (from 1) is given for parts of a checkpoint."""

    file: LogFile
    version: int
    part: int = 1
    parts: int = 1


def log_folder(folder: str) -> str:
    """Path of a table's `_delta_log`, with the slash behind, for a table in `folder`.

    `folder` is relative to the store's root; "" is the root itself.
    """
    return f"{folder}/{LOG}/" if folder else f"{LOG}/"


def log_path(folder: str, version: int) -> str:
    """Path of a version's log file."""
    return f"{log_folder(folder)}{version:020}.json"


def checkpoint_path(folder: str, version: int) -> str:
    """Path of a version's classic checkpoint."""
    return f"{log_folder(folder)}{version:020}.checkpoint.parquet"


def checksum_path(folder: str, version: int) -> str:
    """Path of a version's checksum."""
    return f"{log_folder(folder)}{version:020}.crc"


def commit_version(path: str) -> int | None:
    """The version whose log file is at `path`; None for every other file."""
    name = _COMMIT.fullmatch(path.rsplit("/", 1)[-1])
    return None if name is None else int(name[1])


def parse_name(name: str) -> LogName | None:
    """What the file `name` in a `_delta_log` is; None for what the protocol tells readers to ignore."""
    found = _NAME.fullmatch(name)
    if found is None or (version := int(found["version"])) > MAX_VERSION:
        return None
    if found["commit"]:
        return LogName(LogFile.COMMIT, version)
    if found["checksum"]:
        return LogName(LogFile.CHECKSUM, version)
    if found["until"]:
        return LogName(LogFile.COMPACTED, version)
    if found["classic"]:
        return LogName(LogFile.CLASSIC, version)
    if found["unique"]:
        return LogName(LogFile.UNIQUE, version)
    part, parts = int(found["part"]), int(found["parts"])
    return LogName(LogFile.PART, version, part, parts) if 1 <= part <= parts else None
