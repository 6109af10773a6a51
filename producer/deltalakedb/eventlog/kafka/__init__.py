"""The event log on Kafka: one topic per stream, `<prefix>.<stream>`; the only place that knows confluent_kafka.

A log has one idempotent producer, whose delivery reports a thread of its own collects, and one consumer per reader,
assigned to its partition at an explicit offset: no consumer group is joined and no offset is left to Kafka. Brokers
that are away for a while are ridden out: in appends by librdkafka's own retries, in readers by returning nothing.
"""

from __future__ import annotations

from .log import KafkaEventLog

__all__ = ["KafkaEventLog"]
