"""What a client's error callback told: whether any broker answers, and whether they refused us."""

from __future__ import annotations

import logging

from confluent_kafka import KafkaError, KafkaException

from .settings import Settings

logger = logging.getLogger(__name__)


class Health:
    """Logs an outage and its end once each, however many errors there are in between."""

    def __init__(self, what: str, servers: str) -> None:
        """`what` is being done at `servers`, the addresses at which the client really looks for brokers."""
        self.refused: KafkaError | None = None
        """Why the brokers do not accept our credentials."""
        self._what = what
        self._servers = servers
        self._down = False
        self._last: KafkaError | None = None
        """What came of the last attempt to reach a broker."""

    def __str__(self) -> str:
        """What to add to the message of an error, which by itself says little more than that time was up."""
        if self.refused is not None:
            return f" ({self.refused.str()}: check the credentials)"
        if not self._down:
            return ""
        last = f": {self._last.str()}" if self._last is not None else ""
        return (
            f" (no broker answers at {self._servers}{last}). See that one listens there, and that the log's options "
            "(DELTALAKEDB_LOG_OPTIONS: security.protocol and what goes with it) are those of that listener"
        )

    def callbacks(self) -> Settings:
        """Settings that make a client report here, and write its own log lines to ours instead of to stderr."""
        return {"error_cb": self.told, "logger": logger}

    def told(self, error: KafkaError) -> None:
        """librdkafka's `error_cb`. An error that ends the client is raised by `poll` instead."""
        logger.debug("%s: %s", self._what, error)
        if error.code() == KafkaError._AUTHENTICATION:
            self.refused = error
        elif error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._last = error
        elif not self._down:
            self._down = True
            logger.warning("%s: no broker answers at %s: %s", self._what, self._servers, (self._last or error).str())

    def answered(self) -> None:
        """A broker did what it was asked to."""
        if self._down or self.refused is not None:
            self._down = False
            self.refused = None
            self._last = None
            logger.info("%s: the brokers answer again", self._what)


def said(error: Exception) -> str:
    """What an error of the client says to a person."""
    found = error.args[0] if isinstance(error, KafkaException) and error.args else error
    return found.str() if isinstance(found, KafkaError) else str(error)
