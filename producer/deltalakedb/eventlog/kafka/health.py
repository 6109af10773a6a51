"""What a client's error callback told: whether any broker answers, and whether they refused us."""

from __future__ import annotations

import logging

from confluent_kafka import KafkaError

from .settings import Settings

logger = logging.getLogger(__name__)


class Health:
    """Logs an outage and its end once each, however many errors there are in between."""

    def __init__(self, what: str) -> None:
        self.refused: KafkaError | None = None
        """Why the brokers do not accept our credentials."""
        self._what = what
        self._down = False

    def __str__(self) -> str:
        """What to add to the message of an error, which by itself says little more than that time was up."""
        if self.refused is not None:
            return f" ({self.refused.str()}: check the credentials)"
        return " (no broker answers)" if self._down else ""

    def callbacks(self) -> Settings:
        """Settings that make a client report here, and write its own log lines to ours instead of to stderr."""
        return {"error_cb": self.told, "logger": logger}

    def told(self, error: KafkaError) -> None:
        """librdkafka's `error_cb`. An error that ends the client is raised by `poll` instead."""
        logger.debug("%s: %s", self._what, error)
        if error.code() == KafkaError._AUTHENTICATION:
            self.refused = error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and not self._down:
            self._down = True
            logger.warning("%s: no broker answers", self._what)

    def answered(self) -> None:
        """A broker did what it was asked to."""
        if self._down or self.refused is not None:
            self._down = False
            self.refused = None
            logger.info("%s: the brokers answer again", self._what)
