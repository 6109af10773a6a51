"""The stated targets, asserted as they stand, on real Kafka and Postgres with committer and mirror as processes."""

from __future__ import annotations
