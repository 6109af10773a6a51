"""The SQL migrations of every store, and their runner."""

from __future__ import annotations

from .runner import DIALECTS, Migration, MigrationError, migrate, migrations, pending

__all__ = ["DIALECTS", "Migration", "MigrationError", "migrate", "migrations", "pending"]
