"""Readers of Delta in processes of their own: Sail (pysail), whose client does not live beside Spark, and Spark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PATIENCE = 60.0
"""Seconds that a reader may take to end."""


class ReaderLost(Exception):
    """A reader ended over a table: whether it reads that one, nobody knows."""


class ReaderProcess:
    """A running reader of tables by path. Used by one thread. One that was lost is started again when it is asked."""

    def __init__(self, name: Literal["sail", "spark"], log: Path) -> None:
        """`log` takes what it says; files of its own lie beside that."""
        self._name = name
        self._log = log.open("ab")
        self._folder = log.parent
        self._process = self._start()
        self._lost = False

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    def digest(self, table: Path, *, timestamp: str | None = None) -> str:
        """How many rows a table has, and a digest of them in any order; as of that time, in the reader's zone.

        Raises:
            ValueError: it cannot read the table, and says why.
            ReaderLost: it ended instead of answering.
        """
        return self._ask({"digest": str(table), "timestamp": timestamp}, table)

    def execute(self, table: Path, *statements: str) -> None:
        """Run SQL on a table, whose name in it is `t`. Raises like `digest`."""
        named = ("DROP TABLE IF EXISTS t", f"CREATE TABLE t USING delta LOCATION '{table}'")
        self._ask({"execute": [*named, *statements]}, table)

    def _ask(self, question: dict[str, object], table: Path) -> str:
        if self._lost:
            self._process, self._lost = self._start(), False
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass  # it has ended, as no line says
        if not line:
            self._lost = True
            self._process.communicate(timeout=PATIENCE)
            said = Path(self._log.name).read_text(errors="replace").strip().splitlines()[-3:]
            raise ReaderLost(f"{self._name} ended with {self._process.returncode} over {table}: {' | '.join(said)}")
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return str(answer["done"])

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.services.readers", self._name, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Its input ends, and so does it, with the Java that it may have started.
        try:
            self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()


def main() -> None:
    """Answer questions on stdin, one JSON object per line, until it ends or the reader is lost."""
    from tests.golden_tables.readers import digest

    name, folder = sys.argv[1:]
    # A server ends with the last that knows it.
    _server, session = _sail() if name == "sail" else (None, _spark(Path(folder)))
    for line in sys.stdin:
        question = json.loads(line)
        try:
            for statement in question.get("execute", ()):
                session.sql(statement).collect()
            answer = {"done": ""}
            if "digest" in question:
                reader, moment = session.read.format("delta"), question["timestamp"]
                reader = reader if moment is None else reader.option("timestampAsOf", moment)
                answer = {"done": digest(reader.load(question["digest"]).toArrow())}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
            # Was it the table, or is nobody there any more? That ends this process.
            session.range(1).collect()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    if name == "spark":
        session.stop()
    # Sail's threads would keep the process.
    os._exit(0)


def _sail() -> tuple[object, SparkSession]:
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

    server = SparkConnectServer(port=0)
    server.start()
    _, port = server.listening_address
    return server, SparkSession.builder.remote(f"sc://localhost:{port}").getOrCreate()


def _spark(folder: Path) -> SparkSession:
    from tests.services import spark
    from tests.services.s3 import S3Address

    nowhere = S3Address(endpoint="http://127.0.0.1:1", access_key="none", secret_key="none")
    session = spark.session(folder / "spark", nowhere)
    # It says much of each table that is not as it should be, and the answer says why it is not read.
    session.sparkContext.setLogLevel("OFF")
    # It would believe compacted logs, also those that are wrong; no import reads them.
    session.conf.set("spark.databricks.delta.deltaLog.minorCompaction.useForReads", "false")
    return session


if __name__ == "__main__":
    main()
