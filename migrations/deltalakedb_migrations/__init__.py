"""The SQL migrations of every store, and their runner."""
