"""What is imported, exported and shipped."""

from __future__ import annotations
