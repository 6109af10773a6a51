"""Runs a workload in client processes over a warm-up and a measured window, and keeps every latency of the window.

Clients are processes made with spawn, so that each pays for its own interpreter as a user's would. All of them share
one `Window`, given in the machine's monotonic clock, which is the same in every process.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol

OPEN_SECONDS = 60.0
DRAIN_SECONDS = 60.0


class Client(Protocol):
    """One client of the system under measurement, alone in its process."""

    def transact(self, number: int) -> None:
        """One transaction; returns when it is durable in both tables and raises when it is not committed."""
        ...

    def submit(self, number: int) -> Future[Any]:
        """The same without waiting. Only asked of clients with more than one transaction in flight."""
        ...

    def close(self) -> None: ...


class Workload(Protocol):
    """What clients do; travels to their processes, so it is plain data."""

    def open(self, number: int) -> Client:
        """The client of that number, connected and warm enough to be asked."""
        ...


class Probe(Protocol):
    """Something that is looked at where the measured window begins and where it ends."""

    def begin(self, clients: Sequence[int]) -> None:
        """The window begins; `clients` are the process ids of the clients."""
        ...

    def end(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is asked for: a closed loop, a number of transactions in flight, or a fixed rate (per client)."""

    clients: int
    in_flight: int = 1
    rate: float | None = None
    warm_up: float
    seconds: float


class Window(NamedTuple):
    """The measured time, in seconds of the monotonic clock."""

    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the clients saw between the window's two ends."""

    latencies: Sequence[float]
    """Seconds, ascending, of the transactions that were committed within the window."""
    seconds: float
    failures: Counter[str]
    """Transactions that were not committed, over warm-up and window, by what was raised."""

    @property
    def count(self) -> int:
        return len(self.latencies)

    @property
    def rate(self) -> float:
        """Committed transactions per second."""
        return self.count / self.seconds

    def percentile(self, share: float) -> float:
        """The smallest latency (seconds) that at least `share` of the transactions did not exceed."""
        if not self.latencies:
            return float("nan")
        return self.latencies[max(0, -(-len(self.latencies) * round(share * 1000) // 1000) - 1)]


class ClientFailed(Exception):
    """A client process could not connect or ended; the message is what it said."""


def run(workload: Workload, load: Load, probes: Sequence[Probe] = ()) -> Measured:
    """Measures one workload under one load.

    Raises:
        ClientFailed: a client could not be opened, or died.
    """
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pipes: list[Connection] = []
        processes: list[BaseProcess] = []
        for number in range(load.clients):
            ours, theirs = context.Pipe()
            process = context.Process(target=_client, args=(workload, number, load, theirs), daemon=True)
            process.start()
            theirs.close()
            stack.callback(_end, process)
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            _receive(pipe, OPEN_SECONDS)
        start = time.monotonic() + load.warm_up
        window = Window(start, start + load.seconds)
        for pipe in pipes:
            pipe.send(window)
        _sleep_until(window.start)
        for probe in probes:
            probe.begin([process.pid for process in processes if process.pid is not None])
        _sleep_until(window.end)
        for probe in probes:
            probe.end()
        tallies = [_receive(pipe, DRAIN_SECONDS * 2) for pipe in pipes]
    latencies = array("d")
    failures: Counter[str] = Counter()
    for found, failed in tallies:
        latencies.extend(found)
        failures.update(failed)
    return Measured(latencies=sorted(latencies), seconds=load.seconds, failures=failures)


class _Tally:
    """What one client saw; outcomes come from its own thread and from the library's."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self.latencies = array("d")
        self.failures: Counter[str] = Counter()

    def done(self, begun: float, error: BaseException | None = None) -> None:
        now = time.monotonic()
        if error is not None:
            self.failures[f"{type(error).__name__}: {error}"[:300]] += 1
        elif self._window.start <= now < self._window.end:
            self.latencies.append(now - begun)


def _client(workload: Workload, number: int, load: Load, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        client = workload.open(number)
        pipe.send(None)
        window: Window = pipe.recv()
        tally = _Tally(window)
        if load.rate is not None:
            _paced(client, window, tally, load.rate)
        elif load.in_flight > 1:
            _in_flight(client, window, tally, load.in_flight)
        else:
            _closed(client, window, tally)
        pipe.send((tally.latencies, tally.failures))
        client.close()
    except EOFError:
        return
    except BaseException as error:
        pipe.send(ClientFailed(f"client {number}: {type(error).__name__}: {error}"))
        raise


def _closed(client: Client, window: Window, tally: _Tally) -> None:
    number = 0
    while (begun := time.monotonic()) < window.end:
        try:
            client.transact(number)
        except Exception as error:
            tally.done(begun, error)
        else:
            tally.done(begun)
        number += 1


def _in_flight(client: Client, window: Window, tally: _Tally, limit: int) -> None:
    slots = threading.Semaphore(limit)
    number = 0
    while time.monotonic() < window.end:
        slots.acquire()
        _submit(client, number, tally, time.monotonic(), slots)
        number += 1
    _take_all(slots, limit)


def _paced(client: Client, window: Window, tally: _Tally, rate: float) -> None:
    """Latencies count from when a transaction was due, so that a stall is seen by all that had to wait for it."""
    slots = threading.Semaphore(0)
    number, first = 0, time.monotonic()
    while (due := first + number / rate) < window.end:
        _sleep_until(due)
        _submit(client, number, tally, due, slots)
        number += 1
    _take_all(slots, number)


def _submit(client: Client, number: int, tally: _Tally, begun: float, slots: threading.Semaphore) -> None:
    def finished(future: Future[Any]) -> None:
        tally.done(begun, future.exception())
        slots.release()

    client.submit(number).add_done_callback(finished)


def _take_all(slots: threading.Semaphore, count: int) -> None:
    deadline = time.monotonic() + DRAIN_SECONDS
    for _ in range(count):
        if not slots.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise ClientFailed(f"transactions without an outcome {DRAIN_SECONDS:.0f} s after the last one was sent")


def _receive(pipe: Connection, seconds: float) -> Any:
    if not pipe.poll(seconds):
        raise ClientFailed(f"a client said nothing for {seconds:.0f} s")
    try:
        message = pipe.recv()
    except EOFError as error:
        raise ClientFailed("a client process ended") from error
    if isinstance(message, ClientFailed):
        raise message
    return message


def _end(process: BaseProcess) -> None:
    process.join(10)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()


def _sleep_until(moment: float) -> None:
    while (left := moment - time.monotonic()) > 0:
        time.sleep(left)
