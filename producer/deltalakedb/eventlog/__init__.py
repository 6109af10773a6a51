"""The event log: moves bytes in order and knows nothing of Delta. `open_event_log` picks the adapter."""
