"""A few threads that wait for storage. They never hold up the end of the process: what they do may be cut at any point."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Threads:
    """Up to `count` daemon threads, started as they are needed.

    `ThreadPoolExecutor` joins its threads when the interpreter ends, which can take as long as a store that hangs.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run a function in one of the threads. Called by one thread only."""
        future: Future[R] = Future()

        def task() -> None:
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        self._tasks.put(task)
        if not self._idle.acquire(blocking=False) and len(self._started) < self._count:
            thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._started)}", daemon=True)
            self._started.append(thread)
            thread.start()
        return future

    def close(self) -> None:
        """Let the threads end after what they were given. Waits for nothing."""
        for _ in self._started:
            self._tasks.put(None)

    def _run(self) -> None:
        task: Any = self._tasks.get()
        while task is not None:
            task()
            self._idle.release()
            task = self._tasks.get()
