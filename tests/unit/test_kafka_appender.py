"""What a broker reports of a message, and what an append says of it."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError

from deltalakedb.errors import TxnLogEventLogError
from deltalakedb.eventlog.kafka.appender import _Delivery
from deltalakedb.eventlog.kafka.health import Health
from deltalakedb.eventlog.port import Append


class _Message:
    def __init__(self, offset: int | None) -> None:
        self._offset = offset

    def offset(self) -> int | None:
        return self._offset


def reported(offset: int | None) -> Any:
    """A message as far as librdkafka's delivery report is looked at."""
    return _Message(offset)


def delivery() -> tuple[_Delivery, Append]:
    append = Append()
    return _Delivery("topic", "servers", 2, Health("appending", "servers"), append.done_with), append


def test_positions_are_those_that_the_broker_gave() -> None:
    """In the order of the messages, whatever the order of the reports."""
    found, append = delivery()
    found.report(1, None, reported(8))
    found.report(0, None, reported(7))

    assert append.result(0) == [7, 8]


@pytest.mark.parametrize("offset", [None, -1, -1001])
def test_a_success_without_a_place_in_the_log_is_none(offset: int | None) -> None:
    """A broker calls a message a duplicate also when a later one of a new producer overtook it: it may be nowhere."""
    found, append = delivery()
    found.report(0, None, reported(offset))
    found.report(1, None, reported(0))

    with pytest.raises(TxnLogEventLogError, match="append the same again"):
        append.result(0)


def test_an_error_of_one_message_is_the_appends() -> None:
    """Once all of them are reported."""
    found, append = delivery()
    found.report(0, KafkaError(KafkaError._MSG_TIMED_OUT), reported(None))
    assert not append.done()
    found.report(1, None, reported(3))

    with pytest.raises(TxnLogEventLogError):
        append.result(0)
