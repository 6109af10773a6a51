"""Tests of single modules."""

from __future__ import annotations
