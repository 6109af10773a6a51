"""SQL databases behind one small port. `open_database` picks the adapter."""
