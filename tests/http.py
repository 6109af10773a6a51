"""Asks the services over HTTP."""

from __future__ import annotations

import http.client


def get(port: int, path: str, *, host: str = "127.0.0.1", timeout: float = 30.0) -> tuple[int, str]:
    """Status and body of a GET. Raises `OSError` if nobody answers."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
