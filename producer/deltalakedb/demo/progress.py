"""What the demo shows while it runs: bars on a terminal, a line every two seconds elsewhere. On stderr only."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .plan import Done

LINE_SECONDS = 2.0


class Display:
    """Counts what clients tell and how far the mirror is, and shows it."""

    def __init__(self, total: int, console: Console) -> None:
        self._total = total
        self._console = console
        self._began = time.monotonic()
        self._line_at = self._began + LINE_SECONDS
        self._counts = {"committed": 0, "rejected": 0, "unknown": 0, "nothing": 0}
        self._mirrored: int | None = None
        self._bars: Progress | None = None
        if console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=console,
            )
            self._task = self._bars.add_task("transactions", total=total, note="")

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def done(self, done: Done) -> None:
        """A client did a step."""
        self._counts[done.status] += 1
        self.show()

    def mirrored(self, commit_seq: int) -> None:
        """The mirror has published everything up to `commit_seq`."""
        self._mirrored = commit_seq
        self.show()

    def show(self) -> None:
        """Bring what is shown up to date."""
        if self._bars is not None:
            self._bars.update(self._task, completed=sum(self._counts.values()), note=self._note())
        elif time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + LINE_SECONDS
            self.line()

    def line(self) -> None:
        """Say in a line how far things are."""
        done = sum(self._counts.values())
        line = f"{time.monotonic() - self._began:5.1f} s  {done}/{self._total} transactions, {self._note()}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
        elif error is None:
            self.line()

    def _note(self) -> str:
        known = {name: count for name, count in self._counts.items() if count or name == "committed"}
        counts = ", ".join(f"{count} {name}" for name, count in known.items())
        return counts if self._mirrored is None else f"{counts}; mirrored up to commit {self._mirrored}"
