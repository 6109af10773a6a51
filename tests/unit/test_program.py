"""The program: its verbs, what it says when something is wrong, and with which exit code."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

import deltalakedb
from deltalakedb.program import app, main

TXN = "0189abcd-0000-7000-8000-000000000000"


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Runs the program in an empty directory, with no setting from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("STORE", "LOG", "ROOT", "CONFIG"):
        monkeypatch.delenv(f"DELTALAKEDB_{name}", raising=False)
    return CliRunner()


def test_version(runner: CliRunner) -> None:
    """`--version` says which release this is."""
    result = runner.invoke(app, ["--version"])

    assert (result.exit_code, result.stdout) == (0, f"deltalakedb {version('deltalakedb')}\n")


def test_help_names_every_verb(runner: CliRunner) -> None:
    """The help lists the program's own verbs and those that services bring."""
    result = runner.invoke(app, ["--help"])

    assert result.exit_code == 0
    for verb in ("demo", "migrate", "tables", "info", "outcome", "cancel", "committer", "mirror"):
        assert f" {verb} " in result.stdout


@pytest.mark.parametrize("verb", ["demo", "migrate", "tables", "info", "outcome", "cancel"])
def test_every_verb_has_an_output_option(runner: CliRunner, verb: str) -> None:
    """Each of the program's own verbs tells its result as text or as JSON."""
    result = runner.invoke(app, [verb, "--help"])

    assert result.exit_code == 0
    assert "--output" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["tables", "--nonsense"],
        ["tables", "--output", "xml"],
        ["outcome"],
        ["outcome", "not-an-id"],
        ["cancel", TXN.upper()],
        ["demo", "--lake", "a", "--store", "deltasql://postgres/db/schema"],
        ["demo", "--log", "kafka://localhost:9092/prefix"],
        ["demo", "--namespace", "a.b"],
        ["demo", "--scale", "0"],
        ["committer", "run", "--log-level", "LOUD"],
        ["mirror", "run", "--log-level", "LOUD"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(runner: CliRunner, arguments: list[str]) -> None:
    """What is wrong with the command line is said on stderr, with exit code 2 and nothing on stdout."""
    result = runner.invoke(app, arguments)

    assert result.exit_code == 2
    assert result.stderr
    assert not result.stdout


def test_an_error_is_a_block_and_exit_code_1(runner: CliRunner) -> None:
    """An error of the tree says what, where and what next, without a traceback."""
    result = runner.invoke(app, ["tables", "--store", "here"])

    assert result.exit_code == 1
    assert not result.stdout
    lines = result.stderr.splitlines()
    assert lines[0] == "error: TxnLogConfigError"
    assert [line.split()[0] for line in lines if line.startswith(("  where", "  next"))] == [
        "where",
        "next",
    ]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["tables"], "make a lake there: `deltalakedb migrate`"),
        (["tables", "--store", "x" * 300], "File name too long"),
        (["migrate", "--store", "file/lake"], "Not a directory"),
        (["info", "--store", "deltasql://sqlite/empty.db"], "make a lake there with `deltalakedb migrate`"),
    ],
    ids=["none yet", "no name of a file", "below a file", "another database"],
)
def test_a_place_without_a_lake(runner: CliRunner, arguments: list[str], part: str) -> None:
    """Where there is no lake, or can be none, it is said why and how one is made."""
    Path("file").touch()
    sqlite3.connect("empty.db").close()
    result = runner.invoke(app, arguments)

    assert result.exit_code == 1
    assert result.stderr.startswith("error: TxnLog")
    assert part in " ".join(result.stderr.split())


@pytest.mark.parametrize("service", ["committer", "mirror"])
def test_a_service_with_wrong_settings_says_so_in_one_line(tmp_path: Path, service: str) -> None:
    """What is wrong with them is a line of its log without a traceback, and its exit code is 1."""
    command = [sys.executable, "-m", "deltalakedb", service, "run", "--store", str(tmp_path / "lake")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = ended.stderr.splitlines()

    assert ended.returncode == 1
    assert "deltalakedb migrate" in json.loads(line)["event"]
    assert "exception" not in json.loads(line)


def test_debug_shows_the_traceback(capfd: pytest.CaptureFixture[str], runner: CliRunner) -> None:
    """`--debug` lets the error through, also when it comes after the verb."""
    from deltalakedb.errors import TxnLogConfigError

    with pytest.raises(TxnLogConfigError):
        main(["tables", "--store", "here", "--debug"])


def test_credentials_are_never_shown(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password in a URI or a setting is in no output, whatever goes wrong with it."""
    canary = "c4nary-p4ss"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", canary)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    stores = [
        f"postgresql://user:{canary}@127.0.0.1:1/db?schema=s",
        f"deltasql://postgres/user:{canary}@127.0.0.1:1/db/s",
        f"deltasql://postgres/user:{canary}@127.0.0.1:99999/db/s",
        f"postgresql://user:{canary}@127.0.0.1:1/db",
        f"nonsense://user:{canary}@127.0.0.1:1/db",
    ]

    for store in stores:
        for verb in (["tables"], ["info"], ["migrate", "--log", "sqlite:///x", "--root", "/x"], ["outcome", TXN]):
            result = runner.invoke(app, [*verb, "--store", store])
            assert result.exit_code == 1, (verb, store, result.output)
            assert canary not in result.output, (verb, store)


@pytest.mark.parametrize(("service", "library"), [("committer", "structlog"), ("mirror", "structlog")])
def test_a_missing_extra_names_what_to_install(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, service: str, library: str
) -> None:
    """A service without its libraries says which extra brings them; the rest of the program works."""
    monkeypatch.setitem(sys.modules, library, None)

    result = runner.invoke(app, [service, "run"])
    other = runner.invoke(app, ["--version"])

    assert result.exit_code == 1
    assert "pip install 'deltalakedb[services]'" in result.stderr
    assert other.exit_code == 0


@pytest.mark.parametrize("library", ["duckdb", "deltalake"])
def test_the_demo_without_its_extra(tmp_path: Path, library: str) -> None:
    """The demo's options can be read without its libraries; running it says which extra brings them."""

    def without(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = f"import sys; sys.modules[{library!r}] = None; from deltalakedb.program import main; main()"
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    helped, ran = without("demo", "--help"), without("demo")

    assert helped.returncode == 0
    assert ran.returncode == 1
    assert "pip install 'deltalakedb[demo]'" in ran.stderr


def test_migrate_tables_and_info_on_an_embedded_lake(runner: CliRunner) -> None:
    """A new lake is made once; then it has no tables, and says where it is."""
    first = runner.invoke(app, ["migrate", "--store", "lake", "--output", "json"])
    again = runner.invoke(app, ["migrate", "--store", "lake", "--output", "json"])
    tables = runner.invoke(app, ["tables", "--store", "lake", "--output", "json"])
    info = runner.invoke(app, ["info", "--store", "lake", "--output", "json"])

    made, found = json.loads(first.stdout), json.loads(again.stdout)
    assert made["migrations"]
    assert found == {**made, "migrations": []}
    assert json.loads(tables.stdout) == []
    lake = json.loads(info.stdout)
    assert lake["lake_id"] == made["lake_id"]
    assert (lake["commit_seq"], lake["tables"]) == (0, 0)


def test_outcome_and_cancel(runner: CliRunner, tmp_path: Path) -> None:
    """A committed transaction is told with its versions; one that nobody knows is undecided until it is cancelled, and
    then rejected for ever."""
    with deltalakedb.connect(tmp_path / "lake") as lake, lake.begin() as tx:
        tx.stage_table("orders", pa.table({"id": [1]}))

    def ask(verb: str, txn: str) -> dict[str, object]:
        result = runner.invoke(app, [verb, txn, "--store", "lake", "--output", "json"])
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert isinstance(found, dict)
        return found

    committed, undecided = ask("outcome", tx.txn_id), ask("outcome", TXN)
    cancelled, kept, afterwards = ask("cancel", TXN), ask("cancel", tx.txn_id), ask("outcome", TXN)

    assert (committed["state"], committed["versions"], committed["commit_seq"]) == ("committed", {"orders": 0}, 1)
    assert undecided["state"] == "undecided"
    assert (cancelled["state"], cancelled["reason"]) == ("rejected", "CANCELLED")
    assert kept == committed
    assert afterwards == cancelled


def test_text_output(runner: CliRunner, tmp_path: Path) -> None:
    """As text, tables are lines with aligned columns, and a table's details name columns, properties and features."""
    with deltalakedb.connect(tmp_path / "lake") as lake, lake.begin() as tx:
        tx.create_table("orders", pa.schema({"id": pa.int64()}), properties={"delta.appendOnly": "true"})

    tables = runner.invoke(app, ["tables", "--store", "lake"]).stdout.splitlines()
    orders = runner.invoke(app, ["info", "orders", "--store", "lake"]).stdout
    told = runner.invoke(app, ["outcome", tx.txn_id, "--store", "lake"]).stdout
    missing = runner.invoke(app, ["info", "nothing", "--store", "lake"])

    assert tables[0].split() == ["table", "version", "by", "path", "files", "bytes", "location"]
    assert tables[1].split()[:4] == ["orders", "0", "0", "0"]
    assert re.search(r"^columns +id long$", orders, re.M)
    assert re.search(r"^properties +.*delta.appendOnly true", orders, re.M)
    assert told == "committed as commit 1: orders version 0\n"
    assert missing.exit_code == 1
    assert missing.stderr.startswith("error: TxnLogTableNotFoundError")


def test_a_name_that_no_table_has(runner: CliRunner, tmp_path: Path) -> None:
    """Every verb that takes the name of a table says which one may have been meant."""
    with deltalakedb.connect(tmp_path / "lake") as lake, lake.begin() as tx:
        tx.create_table("orders", pa.schema({"id": pa.int64()}))

    verbs = [
        ["info"],
        ["release"],
        ["diff"],
        ["mirror", "write", "--to", "out"],
        ["mirror", "repair"],
        ["mirror", "adopt"],
    ]
    said = {" ".join(verb): runner.invoke(app, [*verb, "order", "--store", "lake"]) for verb in verbs}

    for verb, result in said.items():
        assert result.exit_code == 1, verb
        assert "the lake has no table 'order': did you mean 'orders'?" in result.stderr, verb
