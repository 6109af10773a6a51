"""Delta's own optimistic transactions, through Spark's JVM: begun, read with, and committed when and as a test says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors.exceptions.captured import UnsupportedOperationException

Actions = Sequence[tuple[str, dict[str, Any]]]
"""Kinds and JSON objects."""
_ROW_IDS = ("baseRowId", "defaultRowCommitVersion")


class DeltaTable:
    """A table of which only the log is there: conflicts are found without data.

    With Delta the isolation level is the table's. So that a transaction may ask for another, the table lies in a folder
    for each that was asked for: all of them have the same versions, but for the level that they name.
    """

    def __init__(self, spark: Any, folder: Path, level: str, first: Actions) -> None:
        self._spark = spark
        self._folder = folder
        self._level = level
        self._log_of(level).mkdir(parents=True)
        (self._log_of(level) / f"{0:020}.json").write_text(_lines(first))

    def begin(self, level: str | None = None) -> DeltaTransaction:
        """A transaction at the newest version; under another isolation level than the table's, if it is given."""
        return DeltaTransaction(self, self._spark, level or self._level)

    def follow(self, level: str) -> str:
        """Bring the folder of `level` to the newest version of the table. The folder."""
        self._copy(self._level, level)
        return str(self._log_of(level).parent)

    def lead(self, level: str) -> None:
        """Take over what was committed in the folder of `level`."""
        self._copy(level, self._level)

    def versions(self) -> list[list[tuple[str, dict[str, Any]]]]:
        """The actions of each."""
        texts = [path.read_text() for path in sorted(self._log_of(self._level).glob("*.json"))]
        return [[pair for line in text.splitlines() for pair in json.loads(line).items()] for text in texts]

    def live(self) -> dict[str, dict[str, Any]]:
        """The adds that hold, by path."""
        found: dict[str, dict[str, Any]] = {}
        for actions in self.versions():
            for kind in ("remove", "add"):
                for each, body in actions:
                    if (each, kind) == ("add", "add"):
                        found[body["path"]] = body
                    elif (each, kind) == ("remove", "remove"):
                        found.pop(body["path"], None)
        return found

    def _log_of(self, level: str) -> Path:
        return self._folder / level / "_delta_log"

    def _copy(self, source: str, to: str) -> None:
        self._log_of(to).mkdir(parents=True, exist_ok=True)
        for path in sorted(self._log_of(source).glob("*.json")):
            copy = self._log_of(to) / path.name
            if not copy.exists():
                copy.write_text(_under(path.read_text(), to))


class DeltaTransaction:
    """One `OptimisticTransaction`."""

    def __init__(self, table: DeltaTable, spark: Any, level: str) -> None:
        self._table = table
        self._level = level
        self._spark = spark
        self._jvm = spark._jvm
        log = self._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, table.follow(level))
        self._txn = log.startTransaction()
        self._live = table.live()

    def read(self, conditions: Sequence[str]) -> list[str]:
        """Read the files that may have rows of which all these SQL conditions are true. Their paths."""
        parser = self._spark._jsparkSession.sessionState().sqlParser()
        found = self._txn.filterFiles(self._seq([parser.parseExpression(each) for each in conditions]), False)
        return sorted(found.apply(n).path() for n in range(found.size()))

    def read_files(self, paths: Iterable[str]) -> None:
        """Read these files, whatever made them the ones to be read."""
        self._txn.trackFilesRead(self._seq([self._action("add", self._live[path]) for path in paths]))

    def read_whole_table(self) -> None:
        self._txn.readWholeTable()

    def read_app(self, app_id: str) -> None:
        """Ask for the transaction version of an application."""
        self._txn.txnVersion(app_id)

    def commit(self, actions: Actions) -> str | None:
        """Commit; the simple name of the exception that Delta raises instead, or its condition, if it does.

        A file that was there when the transaction began keeps its row ids.
        """
        self._table.follow(self._level)
        given = []
        operation = getattr(getattr(self._jvm.org.apache.spark.sql.delta, "DeltaOperations$ManualUpdate$"), "MODULE$")
        try:
            for kind, body in actions:
                if kind == "metaData":
                    self._txn.updateMetadata(self._action(kind, body), False)
                else:
                    given.append(self._action(kind, {**_row_ids(self._live.get(body.get("path", ""), {})), **body}))
            self._txn.commit(self._seq(given), operation)
        except UnsupportedOperationException as error:  # as PySpark has it
            return str(error.getCondition())
        except Py4JJavaError as error:
            name = str(error.java_exception.getClass().getName())
            if not name.startswith("io.delta.exceptions."):
                raise
            return name.rpartition(".")[2]
        self._table.lead(self._level)
        return None

    def _action(self, kind: str, body: Mapping[str, Any]) -> Any:
        return self._jvm.org.apache.spark.sql.delta.actions.Action.fromJson(
            _under(json.dumps({kind: body}), self._level)
        )

    def _seq(self, items: Sequence[Any]) -> Any:
        found = self._jvm.java.util.ArrayList()
        for item in items:
            found.add(item)
        return self._jvm.org.apache.spark.api.python.PythonUtils.toSeq(found)


def _row_ids(add: Mapping[str, Any]) -> dict[str, Any]:
    return {name: add[name] for name in _ROW_IDS if name in add}


def _lines(actions: Actions) -> str:
    return "".join(json.dumps({kind: body}) + "\n" for kind, body in actions)


def _under(text: str, level: str) -> str:
    """Actions, with another isolation level for the table that they define."""
    lines = []
    for line in text.splitlines():
        action = json.loads(line)
        if "metaData" in action:
            action["metaData"]["configuration"]["delta.isolationLevel"] = level
        lines.append(json.dumps(action))
    return "".join(line + "\n" for line in lines)
