"""Benchmarks of the whole pipeline and of its peers, on real servers: ``make bench``."""

from __future__ import annotations
