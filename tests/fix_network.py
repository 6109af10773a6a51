"""A TCP proxy that breaks the network for real: cut around a byte pattern, cut everything, stall, heal."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Literal

import pytest

_CHUNK = 65_536
_ANSWER_SECONDS = 30.0


@dataclass(slots=True)
class _Cut:
    pattern: bytes
    when: Literal["before", "after"]


class TcpProxy:
    """Relays connections to one server. What clients send is looked at for the pattern of a cut that is set up.

    Every cut is a reset, not a polite end. A pattern has to lie within what arrives at once, as a short statement does.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._cut: _Cut | None = None
        self._happened = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut_before(self, pattern: bytes) -> None:
        """Reset the next connection that sends `pattern`, before the server gets it."""
        self._arm(_Cut(pattern, "before"))

    def cut_after(self, pattern: bytes) -> None:
        """Reset the next connection that sends `pattern`, once the server has answered it; the answer is lost."""
        self._arm(_Cut(pattern, "after"))

    def wait_until_cut(self, timeout: float = _ANSWER_SECONDS) -> bool:
        """Whether the cut that was set up has happened."""
        return self._happened.wait(timeout)

    def cut_all(self) -> None:
        """Reset every connection there is; new ones are taken."""
        with self._lock:
            sockets = list(self._open)
        for one in sockets:
            _reset(one)

    def stall(self) -> None:
        """Deliver nothing any more, in neither direction, and keep every connection."""
        self._flowing.clear()

    def heal(self) -> None:
        """Deliver again, what was held up first; a cut that has not happened yet is off."""
        with self._lock:
            self._cut = None
        self._flowing.set()

    def close(self) -> None:
        """End it and every connection through it."""
        self._closed = True
        self._flowing.set()
        self._listener.close()
        self.cut_all()

    def _arm(self, cut: _Cut) -> None:
        with self._lock:
            self._happened.clear()
            self._cut = cut

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                _reset(client)
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            for source, sink, look in ((client, server, self._look), (server, client, None)):
                threading.Thread(target=self._relay, args=(source, sink, look), name="proxy", daemon=True).start()

    def _relay(
        self,
        source: socket.socket,
        sink: socket.socket,
        look: Callable[[bytes, socket.socket, socket.socket], bool] | None,
    ) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                self._flowing.wait()
                if look is not None and look(data, source, sink):
                    break
                sink.sendall(data)
        for one in (source, sink):
            _reset(one)
            with self._lock:
                self._open.discard(one)

    def _look(self, data: bytes, client: socket.socket, server: socket.socket) -> bool:
        """Whether the connection is to end here, with everything done that has to be done before."""
        with self._lock:
            cut = self._cut
            if cut is None or cut.pattern not in data:
                return False
            self._cut = None
        if cut.when == "after":
            # The other direction is still relayed: the client must be gone before the server answers.
            _reset(client)
            server.settimeout(_ANSWER_SECONDS)
            server.sendall(data)
            with suppress(OSError):
                server.shutdown(socket.SHUT_WR)
                while server.recv(_CHUNK):
                    pass
        self._happened.set()
        return True


def _reset(one: socket.socket) -> None:
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # A thread that waits in recv() is woken by shutdown only.
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[str, int], TcpProxy]]:
    """Makes proxies to a host and port; they end with the test."""
    with ExitStack() as ending:

        def make(host: str, port: int) -> TcpProxy:
            proxy = TcpProxy(host, port)
            ending.callback(proxy.close)
            return proxy

        yield make
