"""CPU time by component over a measured window, read from /proc by psutil: where the time of a transaction goes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import psutil

_SERVERS = {"java": "broker", "postgres": "postgres", "versitygw": "s3"}


class CpuProbe:
    """CPU seconds that clients, services and servers used between `begin` and `end`.

    Servers are found among this process's own descendants by the name of their program; servers that the environment
    points to elsewhere are not seen.
    """

    def __init__(self, services: Mapping[str, int]) -> None:
        self._services = dict(services)
        self._clients: list[int] = []
        self._before: dict[str, float] = {}
        self._busy_before = 0.0
        self.seconds: dict[str, float] = {}
        """CPU seconds by component; complete after `end`."""
        self.others = 0.0
        """CPU seconds that everything else on the machine used in the same time."""

    def begin(self, clients: Sequence[int]) -> None:
        self._clients = list(clients)
        self._before, self._busy_before = self._read(), _busy()

    def end(self) -> None:
        after, busy = self._read(), _busy()
        self.seconds = {name: used - self._before.get(name, 0.0) for name, used in after.items()}
        self.others = max(0.0, busy - self._busy_before - sum(self.seconds.values()))

    def _read(self) -> dict[str, float]:
        roots = dict.fromkeys(self._clients, "clients") | {pid: name for name, pid in self._services.items()}
        used: dict[str, float] = {}
        for process in psutil.Process().children(recursive=True):
            name = _component(process, roots)
            if name is not None:
                used[name] = used.get(name, 0.0) + _cpu(process)
        used["bench"] = _cpu(psutil.Process(), reaped=False)
        return used


def _component(process: psutil.Process, roots: Mapping[int, str]) -> str | None:
    """The component a process belongs to: its own, or that of the nearest ancestor below us that has one."""
    try:
        while process.pid != os.getpid():
            if process.pid in roots:
                return roots[process.pid]
            if (server := _SERVERS.get(process.name())) is not None:
                return server
            parent = process.parent()
            if parent is None:
                return None
            process = parent
    except psutil.NoSuchProcess:
        return None
    return None


def _cpu(process: psutil.Process, *, reaped: bool = True) -> float:
    """CPU seconds of a process and of those of its children that have ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    own: float = times.user + times.system
    return own + times.children_user + times.children_system if reaped else own


def _busy() -> float:
    times = psutil.cpu_times()
    # guest time is part of user already.
    busy: float = times.user + times.nice + times.system + times.irq + times.softirq
    return busy
