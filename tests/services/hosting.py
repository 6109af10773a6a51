"""Lends the servers of one process to others: the workers of a parallel test run share one server set.

The process that runs the session owns the servers, starts them when a worker first asks, and stops them when all
workers are done.
"""

from __future__ import annotations

import secrets
import threading
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from typing import NamedTuple

from tests.services.process import ServiceUnavailable
from tests.services.run import Addresses
from tests.services.s3 import S3Address

_STOP = "stop"


class Host(NamedTuple):
    """Where a lender is, in plain values that fit through any channel."""

    port: int
    key: str


class Lender:
    """Answers borrowers from threads of its own until it is closed."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        key = secrets.token_bytes(16)
        self._listener = Listener(("127.0.0.1", 0), authkey=key)
        self.host = Host(int(self._listener.address[1]), key.hex())
        self._thread = threading.Thread(target=self._listen, name="lend-servers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the listening; the servers are the owner's to stop."""
        with suppress(OSError), _connect(self.host) as connection:
            connection.send(_STOP)
        self._thread.join()
        self._listener.close()

    def _listen(self) -> None:
        while True:
            connection = self._listener.accept()
            question = connection.recv()
            if question == _STOP:
                connection.close()
                return
            threading.Thread(target=self._answer, args=(connection, question), daemon=True).start()

    def _answer(self, connection: Connection, question: str) -> None:
        with connection, suppress(OSError):
            try:
                answer = getattr(self._addresses, question)()
            except ServiceUnavailable as error:
                answer = error
            except Exception as error:
                answer = ServiceUnavailable(f"{question} could not be started: {error!r}")
            connection.send(answer)


class Borrower:
    """The addresses of another process's servers."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def kafka(self) -> str:
        return str(self._ask("kafka"))

    def postgres(self) -> str:
        return str(self._ask("postgres"))

    def s3(self) -> S3Address:
        address = self._ask("s3")
        assert isinstance(address, S3Address)
        return address

    def _ask(self, question: str) -> object:
        with _connect(self._host) as connection:
            connection.send(question)
            answer: object = connection.recv()
        if isinstance(answer, ServiceUnavailable):
            raise answer
        return answer


def _connect(host: Host) -> Connection:
    return Client(("127.0.0.1", host.port), authkey=bytes.fromhex(host.key))
