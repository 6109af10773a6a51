"""Local folders that do not outlive their process."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from deltalakedb.scratch import claim_folder, sweep

HOLDER = """
from deltalakedb.scratch import scratch_folder
with scratch_folder("test") as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    input()
"""


@contextmanager
def holder(temporary: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that has a folder until it is ended, by a line or otherwise; and that folder."""
    command, environment = [sys.executable, "-c", HOLDER], {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.communicate("\n")


def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    """The folder of one that lives is left alone, and so is what none of us has made."""
    others = tmp_path / "deltalakedb-others"
    others.mkdir()
    with holder(tmp_path) as (_, held):
        with holder(tmp_path) as (killed, left):
            killed.kill()
            killed.wait()
            assert (left / "file").exists()
        with holder(tmp_path) as (_, third):
            assert set(tmp_path.iterdir()) == {others, held, third}

    assert set(tmp_path.iterdir()) == {others}


@pytest.mark.parametrize(("module", "call"), [(os, "open"), (fcntl, "flock")])
def test_a_sweeper_may_come_while_a_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, call: str
) -> None:
    """Before it is opened, or before it is locked: who makes it has one in the end, which is not taken from there on."""
    start, original = f"{tmp_path}/some-", getattr(module, call)

    def swept_first(*arguments: object) -> object:
        monkeypatch.undo()
        assert len(list(tmp_path.iterdir())) == 1
        sweep(start)
        assert not list(tmp_path.iterdir())
        return original(*arguments)

    monkeypatch.setattr(module, call, swept_first)
    folder, descriptor = claim_folder(start)
    sweep(start)
    held = list(tmp_path.iterdir())
    os.close(descriptor)
    sweep(start)

    assert held == [Path(folder)]
    assert not list(tmp_path.iterdir())
