"""The Avro schemas of the events, and their loader."""
