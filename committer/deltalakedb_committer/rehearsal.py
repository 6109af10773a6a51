"""A child process that looks at events before the committer does: what kills it is not let near the lake.

It decodes an event and decides it, on a lake without tables: all that needs no SQL. It may use so much memory and
processor time, and no more.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from typing import IO

import msgspec

from deltalakedb.eventlog.port import Record

from .applying import event_of
from .deciding.decide import decide
from .deciding.needs import Needs, Undecodable, add_needs
from .deciding.rules import rules
from .deciding.state import Lake, State

logger = logging.getLogger(__name__)

MEMORY_BYTES = 1024**3
"""Of memory, beside what the child has from its start."""
CPU_SECONDS = 20
"""Of processor time, for each event."""
OUT_OF_MEMORY = 12
"""Its exit code then."""
COMMAND: tuple[str, ...] = (sys.executable, "-m", "deltalakedb_committer.rehearsal")
_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Signals that an event cannot cause, or not by itself: the system sends one of them where its memory runs out."""
_PASSED = b"."
_LENGTH = 8


class _Asked(msgspec.Struct, array_like=True):
    """What the child is given of an event."""

    position: int
    time_ms: int
    headers: tuple[tuple[str, bytes], ...]
    value: bytes
    lake_id: str
    root: str
    fence: bool
    rule_set: int


class Rehearsal:
    """The child, started when it is needed first, and anew after each death."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._child: subprocess.Popen[bytes] | None = None

    def death_of(self, record: Record, rule_set: int) -> str | None:
        """How the child ended over `record`; None: it did not, or was ended by somebody else."""
        child = self._child or self._started()
        if child is None:
            return None
        lake = self._lake
        asked = _Asked(
            record.position, record.time_ms, record.headers, record.value, lake.lake_id, lake.root, lake.fence, rule_set
        )
        data = msgspec.msgpack.encode(asked)
        try:
            _pipe(child.stdin).write(len(data).to_bytes(_LENGTH) + data)
            _pipe(child.stdin).flush()
        except BrokenPipeError:
            answer = b""
        else:
            answer = _pipe(child.stdout).read(1)
        if answer == _PASSED:
            return None
        code = child.wait()
        self.close()
        return None if -code in _FROM_OUTSIDE else _ending(code)

    def close(self) -> None:
        """End the child. Idempotent."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            _pipe(child.stdout).close()
            with suppress(BrokenPipeError):  # it did not read to the end
                _pipe(child.stdin).close()

    def _started(self) -> subprocess.Popen[bytes] | None:
        try:
            # Signals from a terminal are not for it: they would look like an event's doing.
            self._child = subprocess.Popen(
                COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            logger.warning("events cannot be rehearsed in a child process: %s", error)
            return None
        # It says when it is there: how it starts is not the event's doing.
        if _pipe(self._child.stdout).read(1) == _PASSED:
            return self._child
        logger.warning("events cannot be rehearsed: the child process %s", _ending(self._child.wait()))
        self.close()
        return None


def _pipe(found: IO[bytes] | None) -> IO[bytes]:
    if found is None:
        raise TypeError("the child was started without pipes")
    return found


def _ending(code: int) -> str:
    if code == OUT_OF_MEMORY:
        return f"ran out of {MEMORY_BYTES // 1024**2} MiB of memory"
    if code == -signal.SIGXCPU:
        return f"ran out of {CPU_SECONDS} s of processor time"
    return f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"


def main() -> None:
    """Rehearse events as they come on standard input, until it ends."""
    event_of(Record(0, 0, 0, b"", ()), rules(1))  # what is loaded when it is used first is loaded now
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory()
    _answer()
    while head := sys.stdin.buffer.read(_LENGTH):
        asked = msgspec.msgpack.decode(sys.stdin.buffer.read(int.from_bytes(head)), type=_Asked)
        _limit_time()
        try:
            _rehearse(asked)
        except MemoryError:
            sys.exit(OUT_OF_MEMORY)
        _answer()


def _rehearse(asked: _Asked) -> None:
    record = Record(0, asked.position, asked.time_ms, asked.value, asked.headers)
    event = event_of(record, rules(asked.rule_set))
    if isinstance(event, Undecodable) and isinstance(event.cause, MemoryError):
        raise MemoryError
    try:
        add_needs(Needs(), event)
        state = State(
            lake=Lake(lake_id=asked.lake_id, root=asked.root, fence=asked.fence),
            rules=rules(asked.rule_set),
            commit_seq=0,
            time_ms=0,
            next_table_no=1,
        )
        decide(state, event, position=asked.position, time_ms=asked.time_ms)
    except MemoryError:
        raise
    except Exception:
        return  # for the committer to meet again; only a death is looked for


def _limit_memory() -> None:
    try:
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:  # not on Linux, where a limit of addresses does not mean memory
        return
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))


def _limit_time() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + CPU_SECONDS, hard))


def _answer() -> None:
    try:
        os.write(sys.stdout.fileno(), _PASSED)
    except BrokenPipeError:
        sys.exit()  # the committer is gone, and nobody waits for the answer


if __name__ == "__main__":
    main()
