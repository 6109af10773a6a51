"""Sail (pysail), a reader of Delta of its own make, in a process of its own: its client does not live beside Spark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self


class Sail:
    """A running Sail that reads tables by path. Used by one thread."""

    def __init__(self, log: Path) -> None:
        """`log` takes what it says."""
        self._log = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.services.sail"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )

    def digest(self, table: Path) -> str:
        """Of a table's rows in any order. Raises `ValueError` for a table that it cannot read."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(str(table)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"Sail ended: see {self._log.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return str(answer["digest"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()


def main() -> None:
    """Answer paths on stdin with digests on stdout, one JSON value per line."""
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

    from tests.golden_tables.readers import digest

    server = SparkConnectServer(port=0)
    server.start()
    _, port = server.listening_address
    session = SparkSession.builder.remote(f"sc://localhost:{port}").getOrCreate()
    for line in sys.stdin:
        try:
            answer = {"digest": digest(session.read.format("delta").load(json.loads(line)).toArrow())}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
