"""The mirror on real stores: what it publishes, what it records, and what it does when things go wrong."""
