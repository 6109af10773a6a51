"""What every service process does the same way: signals, structured logs, health over HTTP, exit codes."""

from __future__ import annotations

import gc
import logging
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from .errors import (
    TxnLogConfigError,
    TxnLogError,
    TxnLogFencedError,
    TxnLogHaltedError,
    TxnLogMissingExtraError,
    redacted,
)
from .health import ServiceHealth

logger = logging.getLogger(__name__)

COLLECT_AFTER = 100_000
"""New objects after which Python looks for cycles among them. Those of a batch live until it is written and hardly any
is part of a cycle; to look after every 700, as by default, took a twelfth of the committer's time."""
EXIT_FAILED = 1
EXIT_FENCED = 3
"""Another process took over: a supervisor starts this one again, and it comes back as standby."""
EXIT_HALTED = 4
"""A named halted state: starting again does not help before an operator has looked."""


def run(
    main: Callable[[threading.Event], None],
    *,
    health: ServiceHealth,
    listen: str | None = None,
    log_level: str = "INFO",
) -> int:
    """Run a service until SIGTERM or SIGINT sets the event that `main` gets; its exit code.

    Logs go to stderr as JSON lines. With `listen` (`host:port`) its `health` is told there over HTTP, and a service that
    halts stays, so that its state can be asked for, until it is told to stop. Raises nothing of ours: every error of the
    tree becomes one log line and an exit code (`EXIT_FAILED`, `EXIT_FENCED`, `EXIT_HALTED`).
    """
    gc.set_threshold(COLLECT_AFTER)
    _log_as_json(health.service, log_level)
    stop = _stop_on_signals()
    try:
        with _monitor(health, listen):
            try:
                main(stop)
            except TxnLogHaltedError as error:
                logger.critical("halted: %s", error, extra={"state": error.state})
                health.halted(error)
                if listen is not None:
                    stop.wait()
                return EXIT_HALTED
    except TxnLogFencedError as error:
        logger.error("fenced: %s", error)
        return EXIT_FENCED
    except TxnLogError as error:
        # Of wrong settings the message says all there is; where the program noticed is nobody's concern.
        logger.error("%s", error, exc_info=None if isinstance(error, TxnLogConfigError) else error)
        return EXIT_FAILED
    else:
        logger.info("stopped")
        return 0
    finally:
        _ignore_signals()


def _monitor(health: ServiceHealth, listen: str | None) -> AbstractContextManager[object]:
    if listen is None:
        return nullcontext()
    try:
        from .monitoring import Monitor
    except ImportError as error:
        raise TxnLogMissingExtraError("health over HTTP", "services") from error
    return Monitor(health, listen)


def _ignore_signals() -> None:
    """A signal that comes while the interpreter ends changes nothing any more.

    The interpreter gives handlers written in Python back to the system before it is gone, and a second Ctrl-C would then
    end a service that has already stopped as if it had been killed; a handler that ignores is left as it is.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _stop_on_signals() -> threading.Event:
    """An event that SIGTERM or SIGINT sets.

    A thread sets it. A signal handler runs between two instructions of the main thread, which may hold the event's lock
    just then, and would wait for itself; `SimpleQueue.put` is made for that place.
    """
    stop = threading.Event()
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()

    def attend() -> None:
        asked.get()
        stop.set()

    threading.Thread(target=attend, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.put(number))
    return stop


def _log_as_json(name: str, level: str) -> None:
    try:
        import structlog
    except ImportError as error:
        raise TxnLogMissingExtraError("a service", "services") from error
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.CallsiteParameterAdder({structlog.processors.CallsiteParameter.THREAD_NAME}),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _service(name),
        structlog.processors.format_exc_info,
        _redact,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _service(name: str) -> Callable[..., Any]:
    def add(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        event["service"] = name
        return event

    return add


def _redact(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    return {key: redacted(value) if isinstance(value, str) else value for key, value in event.items()}
