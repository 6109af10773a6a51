"""Reading ahead: the next batch is on its way while the one before is being used."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1


def ahead(source: Generator[T]) -> Iterator[T]:
    """The items of `source`, which runs in a thread of its own, one item ahead. Its errors are raised here.

    Whoever stops early waits for nothing: the thread ends by itself, and never holds up the end of the process.
    """
    ready: queue.Queue[T | None] = queue.Queue(maxsize=1)
    errors: list[BaseException] = []
    abandoned = threading.Event()

    def give(item: T | None) -> None:
        while not abandoned.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=_POLL_SECONDS)
                return

    def read() -> None:
        try:
            with contextlib.closing(source):
                for item in source:
                    give(item)
                    if abandoned.is_set():
                        return
        except BaseException as error:
            errors.append(error)
        give(None)

    threading.Thread(target=read, name="read-ahead", daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            yield item
        if errors:
            raise errors[0]
    finally:
        abandoned.set()
