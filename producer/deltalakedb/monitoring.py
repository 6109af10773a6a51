"""What a service tells over HTTP: `/health`, `/ready` and, for Prometheus, `/metrics`. Imports prometheus_client, alone.

Nothing here can change anything, and nothing that is told holds a credential.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from socketserver import TCPServer
from types import TracebackType
from typing import Self

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from .errors import TxnLogConfigError
from .health import CHECK_SECONDS, Health, ServiceHealth
from .metrics import METRICS, READY, SERVICES, STATE, Distribution, Kind, Metric

_FAMILIES: Mapping[Kind, type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
}

REQUEST_SECONDS = 5.0
"""How long a client may take to ask."""


class Monitor:
    """A listener for one service, from `with` to its end; `address` is `host:port`, the port 0 takes a free one."""

    def __init__(self, health: ServiceHealth, address: str) -> None:
        """Raises `TxnLogConfigError` if the address is none, or taken."""
        self._health = health
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(health))
        ProcessCollector(registry=self._registry, namespace="deltalakedb")
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise TxnLogConfigError(f"the address to listen on has the form host:port, not {address!r}")
        try:
            self._server = _Server((host.strip("[]"), int(port)), self._handler())
        except (OSError, OverflowError) as error:
            raise TxnLogConfigError(f"cannot listen on {address}: {error}") from error
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="monitoring", daemon=True),
            threading.Thread(target=self._look, name="health-checks", daemon=True),
        ]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def _look(self) -> None:
        # A check may hang in a library for longer than the process wants to live: nobody waits for this thread.
        while not self._stop.is_set():
            for lake in self._health.lakes:
                lake.look()
            self._stop.wait(CHECK_SECONDS)

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path not in ("/health", "/ready"):
            return 404, "text/plain", b"there are /health, /ready and /metrics\n"
        lakes = [lake.report() for lake in self._health.lakes]
        live = all(lake.live for lake in lakes)
        ready = bool(lakes) and all(lake.ready for lake in lakes)
        told = {
            "service": self._health.service,
            "live": live,
            "ready": ready,
            "lakes": [asdict(lake) for lake in lakes],
        }
        good = live if path == "/health" else ready
        return 200 if good else 503, "application/json", msgspec.json.encode(told)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_SECONDS

            def do_GET(self) -> None:
                status, kind, body = answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Who looks at a service's health is no news."""

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without asking a name server who we are, which the one above does and has no use for."""
        TCPServer.server_bind(self)


class _Collector(Collector):
    """Shows the numbers as they are when somebody asks."""

    def __init__(self, health: ServiceHealth) -> None:
        self._health = health
        self._version = version("deltalakedb")

    def collect(self) -> Iterator[Family]:
        """Every metric that this service has, for each of its lakes."""
        service = {"service": self._health.service, "version": self._version}
        yield InfoMetricFamily("deltalakedb_build", "which service and release this is", value=service)
        lakes = self._health.lakes
        for metric in SERVICES.get(self._health.service, METRICS):
            shown = _FAMILIES[metric.kind](metric.name, metric.meaning, labels=("lake", *metric.labels))
            for lake in lakes:
                if isinstance(shown, HistogramMetricFamily):
                    for labels, found in lake.measurements.distributions(metric).items():
                        shown.add_metric((lake.lake, *labels), _buckets(found), found.sum)
                else:
                    for labels, value in _numbers(lake, metric).items():
                        shown.add_metric((lake.lake, *labels), value)
            yield shown


def _numbers(lake: Health, metric: Metric) -> Mapping[tuple[str, ...], float]:
    if metric is STATE:
        report = lake.report()
        return {(str(report.state), report.halted): 1.0}
    if metric is READY:
        return {(): float(lake.report().ready)}
    return lake.measurements.numbers(metric)


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    """Upper bounds with the number of observations up to each, as Prometheus wants them."""
    names = [*(str(float(bound)) for bound in distribution.bounds), "+Inf"]
    total = 0.0
    buckets = []
    for name, count in zip(names, list(distribution.counts), strict=True):
        total += count
        buckets.append((name, total))
    return buckets
