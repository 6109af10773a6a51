"""Delta's own optimistic transactions, through Spark's JVM: begun, read with, and committed when and as a test says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]


class DeltaTable:
    """A table of which only the log is there: conflicts are found without data."""

    def __init__(self, spark: Any, folder: Path, first: Sequence[dict[str, Any]]) -> None:
        log = folder / "_delta_log"
        log.mkdir(parents=True)
        (log / f"{0:020}.json").write_text("".join(json.dumps(action) + "\n" for action in first))
        self._spark = spark
        self._jvm = spark._jvm
        self._log = self._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(self._spark._jsparkSession, str(folder))

    def begin(self) -> DeltaTransaction:
        """A transaction at the newest version."""
        return DeltaTransaction(self._spark, self._log.startTransaction())


class DeltaTransaction:
    """One `OptimisticTransaction`."""

    def __init__(self, spark: Any, txn: Any) -> None:
        self._spark = spark
        self._jvm = spark._jvm
        self._txn = txn

    def read(self, conditions: Sequence[str]) -> None:
        """Read the files that may have rows of which all these SQL conditions are true."""
        parser = self._spark._jsparkSession.sessionState().sqlParser()
        self._txn.filterFiles(self._seq([parser.parseExpression(each) for each in conditions]), False)

    def read_whole_table(self) -> None:
        self._txn.readWholeTable()

    def read_app(self, app_id: str) -> None:
        """Ask for the transaction version of an application."""
        self._txn.txnVersion(app_id)

    def commit(self, actions: Sequence[dict[str, Any]]) -> str | None:
        """Commit; the simple name of the exception that Delta raises instead, if it does."""
        delta = self._jvm.org.apache.spark.sql.delta
        given = []
        operation = getattr(getattr(delta, "DeltaOperations$ManualUpdate$"), "MODULE$")
        try:
            for action in actions:
                made = delta.actions.Action.fromJson(json.dumps(action))
                if "metaData" in action:
                    self._txn.updateMetadata(made, False)
                else:
                    given.append(made)
            self._txn.commit(self._seq(given), operation)
        except Py4JJavaError as error:
            return str(error.java_exception.getClass().getSimpleName())
        return None

    def _seq(self, items: Sequence[Any]) -> Any:
        found = self._jvm.java.util.ArrayList()
        for item in items:
            found.add(item)
        return self._jvm.org.apache.spark.api.python.PythonUtils.toSeq(found)
