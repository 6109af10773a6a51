"""The wire contract: Avro schemas as data, and how to load them."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

NAMES = (
    *("staged_transaction.v1", "staged_transaction.v2"),
    *("imported_version.v1", "control.v1", "completion.v1"),
    *("commit.v1", "commit.v2", "outcome.v1", "outcome.v2"),
)
"""Every schema this release can read, as `<event>.v<number>`. Released ones are never changed and never dropped."""


@cache
def load_schema(name: str) -> dict[str, Any]:
    """The schema `name` (one of `NAMES`) as parsed JSON. Callers must not change it."""
    if name not in NAMES:
        raise KeyError(name)
    text = files(__package__).joinpath(f"{name}.avsc").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
