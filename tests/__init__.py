"""The tests of deltalakedb."""

from __future__ import annotations
