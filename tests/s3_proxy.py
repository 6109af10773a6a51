"""An HTTP proxy before an S3 endpoint that does to requests what networks and overloaded servers do."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to one request."""

    reach: bool = True
    """Whether the request reaches the server."""
    status: int | None = None
    """The client is told this instead of the server's answer; None: the connection is cut without an answer."""
    delay: float = 0.0
    """Seconds that pass before the answer or the cut."""
    truncate: bool = False
    """Whether the client gets the first half of the server's answer, and then nothing more."""


CUT_BEFORE = Fault(reach=False)
CUT_AFTER = Fault()
TRUNCATED = Fault(truncate=True)

Plan = Callable[[str, str], Fault | None]
"""From method and path of a request to what happens to it; None: it passes."""


@dataclass(slots=True)
class Journal:
    """Every request that reached the server, with the status it answered, in order of answers."""

    entries: list[tuple[str, str, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, method: str, path: str, status: int) -> None:
        with self.lock:
            self.entries.append((method, path, status))

    def stored(self) -> list[str]:
        """Paths of the puts that the server accepted, in order."""
        with self.lock:
            return [path for method, path, status in self.entries if method == "PUT" and status == 200]


class S3Proxy:
    """The proxy: listens on a loopback port of its own until closed. `plan` may be changed at any time."""

    def __init__(self, endpoint: str) -> None:
        self.plan: Plan = lambda method, path: None
        self.journal = Journal()
        self._upstream = urlsplit(endpoint)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any, bytes]:
        """Send a request on; status, headers and body of the answer."""
        upstream = http.client.HTTPConnection(self._upstream.hostname or "", self._upstream.port or 80, timeout=30)
        try:
            upstream.request(method, path, body=body or None, headers=headers)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        self.journal.note(method, urlsplit(path).path, answer.status)
        return answer.status, answer.headers, content

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _handler(proxy: S3Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.plan(self.command, urlsplit(self.path).path)
            if fault is None or fault.reach:
                # The Host header is signed: it stays the client's.
                headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
                status, given, content = proxy.forward(self.command, self.path, headers, body)
            if fault is None:
                self._answer(status, given, content)
                return
            time.sleep(fault.delay)
            if fault.truncate:
                self._answer(status, given, content[: len(content) // 2], length=len(content))
            if fault.status is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            code = {409: "ConditionalRequestConflict", 412: "PreconditionFailed", 503: "SlowDown"}
            text = f"<Error><Code>{code.get(fault.status, 'InternalError')}</Code><Message>injected</Message></Error>"
            self._answer(fault.status, {"Content-Type": "application/xml"}, text.encode())

        def _answer(self, status: int, headers: Any, content: bytes, *, length: int | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            told = headers.get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", told or str(len(content) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815 - names that http.server looks for

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler
