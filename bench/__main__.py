"""Runs the benchmark: ``python -m bench`` (``make bench``). JSON lines on stdout, a table on stderr at the end."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from fnmatch import fnmatch

from tests.services.run import ServerSet

from .measurements import Setting, measure, measurements, warm_broker
from .report import Report, environment

logger = logging.getLogger("bench")

# The tests' broker compiles its code once and quickly. The full compiler halves the broker's CPU time, and takes most of
# a minute for that, in which it has a fifth of a processor itself: one that is deployed has that behind it.
BROKER_OPTIONS = ("-XX:TieredStopAtLevel=4", "-Xms512m", "-Xmx512m")
BROKER_SECONDS = 60.0


def main(arguments: list[str] | None = None) -> None:
    """The run that the arguments ask for."""
    asked = _arguments(arguments)
    names = [name for name in measurements() if any(_matches(name, part) for part in asked.only.split(","))]
    if asked.list:
        print("\n".join(names))
        return
    if not names:
        raise SystemExit(f"no measurement is called {asked.only}; --list shows them all")
    if asked.cores:
        # Before anything is started: threads, client processes and servers all inherit it.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.cores])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    report = Report(environment({"warm_up_s": asked.warm_up, "seconds": asked.seconds}))
    try:
        with ServerSet(broker_options=BROKER_OPTIONS) as servers:
            setting = Setting(servers=servers, warm_up=asked.warm_up, seconds=asked.seconds)
            if any(".kafka." in name or ".postgres." in name for name in names):
                warm_broker(servers, BROKER_SECONDS)
            for name in names:
                logger.info("%s (load %.1f)", name, os.getloadavg()[0])
                for line in measure(name, setting):
                    report.add(line)
    finally:
        report.finish()


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default="", help="names or beginnings of names, wildcards allowed, comma-separated")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured time of each measurement")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds before it")
    parser.add_argument("--cores", type=int, default=0, help="cores for servers, services and clients; 0: all")
    parser.add_argument("--list", action="store_true", help="show the names and end")
    return parser.parse_args(arguments)


def _matches(name: str, part: str) -> bool:
    return fnmatch(name, part) or fnmatch(name, f"{part}.*") or not part


if __name__ == "__main__":
    main()
