"""Conditions on rows: given as SQL text or as filter lists, used to filter rows, to leave out files, and as a read set.

SQL's three-valued logic holds throughout, and its order of numbers (NaN equals NaN and lies above everything else).
"""

from __future__ import annotations

from .condition import Condition
from .parsing import parse_condition

__all__ = ["Condition", "parse_condition"]
