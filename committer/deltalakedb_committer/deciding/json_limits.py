"""Limits on JSON texts that come from outside, checked before anything parses them."""

from __future__ import annotations

import json
import re
from typing import Any

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{\]}]', re.DOTALL)


def json_problem(text: str, max_bytes: int, max_depth: int) -> str | None:
    """What forbids parsing `text`, or None: too large, or nested too deeply. Its syntax is the parser's to check."""
    # Every character takes at most four bytes, so most texts need no count.
    if len(text) * 4 > max_bytes and (size := len(text.encode("utf-8", "surrogatepass"))) > max_bytes:
        return f"has {size} bytes, {max_bytes} are allowed"
    if text.count("{") + text.count("[") > max_depth and _depth(text) > max_depth:
        return f"is nested deeper than {max_depth} levels"
    return None


def repeats_a_key(text: str) -> bool:
    """Whether an object in the (valid) JSON `text` has a key twice: readers differ in which one they take."""
    found = False

    def unique(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len({key for key, _ in pairs}) != len(pairs)

    json.loads(text, object_pairs_hook=unique, parse_int=str, parse_float=str)
    return found


def _depth(text: str) -> int:
    deepest = depth = 0
    for match in _TOKENS.finditer(text):
        token = match[0]
        if token in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in "]}":
            depth -= 1
    return deepest
