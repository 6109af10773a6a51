"""The event log in one SQLite file: durable, for several processes on one host, with nothing but the standard library.

Each partition is a table whose key is the position. Appends of a process go through one thread, which takes what has
gathered and writes it in one transaction; between processes a lock file says whose turn it is, because SQLite's own
waiting is a back-off without a queue, in which an unlucky process starves. The lock is an flock: the kernel frees it
when a process dies, however it dies.
"""

from __future__ import annotations

from .log import SqliteEventLog

__all__ = ["SqliteEventLog"]
