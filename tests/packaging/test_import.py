"""Importing the library is light, and its public names are these."""

from __future__ import annotations

import subprocess
import sys

import pytest

import deltalakedb

HEAVY = (
    "pyarrow",
    "confluent_kafka",
    "psycopg",
    "boto3",
    "botocore",
    "fastavro",
    "sqlglot",
    "pydantic",
    "duckdb",
    "numpy",
)

NAMES = {
    "AddFile", "ArrayType", "CdcFile", "DeletionVector", "Lake", "MapType", "OtherAction", "Outcome", "Reason",
    "Rejection", "RemoveFile", "Result", "Settings", "Snapshot", "State", "StructField", "StructType", "TableSnapshot",
    "Transaction", "TransactionTable", "TxnLogCommitUnknownError", "TxnLogConfigError", "TxnLogConflictError",
    "TxnLogDatabaseError", "TxnLogDecodeError", "TxnLogDeltaLogError", "TxnLogError", "TxnLogEventLogError",
    "TxnLogFencedError", "TxnLogHaltedError", "TxnLogImportError", "TxnLogMirrorError", "TxnLogMissingExtraError",
    "TxnLogObjectStoreError", "TxnLogOutcomeUnknownError", "TxnLogRejectedError", "TxnLogSchemaError",
    "TxnLogStoreInUseError", "TxnLogTableFencedError", "TxnLogTableNotFoundError", "TxnLogTimeoutError",
    "TxnLogTransactionError", "TxnLogTransactionStateError", "TxnLogUndoError", "TxnLogUriError",
    "TxnLogValidationError", "begin", "connect", "load_settings", "open",
}  # fmt: skip


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    return set(ran.stdout.split())


def _quietly(arguments: list[str]) -> str:
    """A statement that runs the program and drops what it prints."""
    quiet = "contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO())"
    return f"with {quiet}:\n    main({arguments!r})"


def test_import_is_light() -> None:
    """`import deltalakedb` loads no library of anybody else that is heavy; so does catching its errors."""
    assert loaded_by("import deltalakedb").isdisjoint(HEAVY)
    assert loaded_by("from deltalakedb import TxnLogError, TxnLogRejectedError").isdisjoint(HEAVY)


def test_actions_need_little() -> None:
    """Making actions takes neither pyarrow nor any client of a service."""
    loaded = loaded_by(
        "from deltalakedb import AddFile; AddFile(path='x', partition_values={}, size=1, modification_time=1)"
    )

    assert loaded.isdisjoint(HEAVY)


def test_an_embedded_lake_needs_no_service_client(tmp_path: object) -> None:
    """Committing actions to an embedded lake loads no client of Kafka, Postgres or S3."""
    statement = f"import deltalakedb\nwith deltalakedb.connect({str(tmp_path)!r} + '/lake') as lake:\n    lake.tables()"

    assert loaded_by(statement).isdisjoint(("confluent_kafka", "psycopg", "boto3", "botocore", "duckdb"))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["committer", "run", "--help"], ["import", "--help"]])
def test_the_program_loads_what_is_asked_for(arguments: list[str]) -> None:
    """Help, and the way to a verb, load no client of a service and nothing that computes: processes start often."""
    loaded = loaded_by(f"import contextlib, io\nfrom deltalakedb.program import main\n{_quietly(arguments)}")

    assert loaded.isdisjoint({*HEAVY, "prometheus_client", "structlog"} - {"pydantic"})


def test_running_a_service_loads_no_arrow() -> None:
    """The committer's loop, and the mirror's beside checkpoints, work without pyarrow and numpy."""
    loops = (
        "import deltalakedb_committer.lakes, deltalakedb_mirror_worker.service, deltalakedb_mirror_worker.worker\n"
        "import deltalakedb.database.postgres, deltalakedb.eventlog.kafka"
    )

    assert loaded_by(loops).isdisjoint(("pyarrow", "numpy", "duckdb", "boto3", "sqlglot"))


def test_exported_names() -> None:
    """The public names are these, each can be had, and each is where `dir` and a star import find it."""
    assert set(deltalakedb.__all__) == NAMES
    assert {name for name in dir(deltalakedb) if not name.startswith("_")} == NAMES
    for name in NAMES:
        assert getattr(deltalakedb, name).__name__ == name
    assert deltalakedb.__version__.count(".") >= 1


def test_every_error_is_exported() -> None:
    """Every error of the tree can be caught by a public name."""
    from deltalakedb import errors

    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.TxnLogError)
    }

    assert tree <= NAMES


def test_unknown_names() -> None:
    """A name that is not there is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        deltalakedb.nothing  # noqa: B018
