"""Tests on real services."""

from __future__ import annotations
