"""Transactions over many Delta tables, for Python pipelines."""
