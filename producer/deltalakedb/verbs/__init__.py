"""The program's own verbs, their common options, and how results and errors are told to a person."""

from __future__ import annotations
