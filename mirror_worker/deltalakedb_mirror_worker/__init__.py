"""The mirror worker: publishes committed versions as Delta logs that any reader opens by path."""
