"""The SQL migrations of every store, their runner, and the rights of roles."""

from __future__ import annotations

from .grants import grant
from .runner import DIALECTS, Migration, MigrationError, migrate, migrations, pending

__all__ = ["DIALECTS", "Migration", "MigrationError", "grant", "migrate", "migrations", "pending"]
