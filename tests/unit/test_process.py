"""A service process ends when it is asked to, whatever it is doing and however often it is asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

WAITS = """
import threading
from deltalakedb import process
from deltalakedb.health import ServiceHealth

def main(stop: threading.Event) -> None:
    print("ready", flush=True)
    while not stop.wait(1e-6):
        pass

raise SystemExit(process.run(main, health=ServiceHealth("waiting")))
"""
"""A service that is nearly always inside `stop.wait`, with the event's lock in its hands."""


def test_any_number_of_signals_at_any_moment_ends_it() -> None:
    """SIGTERM and SIGINT, hundreds of them until the process is gone, end it at once with exit code 0."""
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"ready\n"
            until = time.monotonic() + 60
            while running.poll() is None and time.monotonic() < until:
                os.kill(running.pid, signal.SIGTERM)
                os.kill(running.pid, signal.SIGINT)
            ended = running.poll()
            running.kill()
        assert ended == 0
