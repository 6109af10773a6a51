"""How errors are told to a person."""

from __future__ import annotations

import inspect

import pytest

from deltalakedb import errors
from deltalakedb.errors import TxnLogError, TxnLogHaltedError
from deltalakedb.verbs.explain import NEXT, explanation

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, TxnLogError)]


def test_every_class_of_the_tree_says_what_to_do_next() -> None:
    """Each class has a next step; only these have none of their own: a halted state names its section."""
    inherited = {kind.__name__ for kind in set(CLASSES) - set(NEXT)}

    assert set(NEXT) <= set(CLASSES)
    assert inherited == {"TxnLogHaltedError", "TxnLogSchemaError", "TxnLogTransactionError"}


def test_the_block() -> None:
    """What happened, its cause and the next step stand in one block, lines broken between words."""
    error = TxnLogHaltedError("LOG_TRUNCATED", "record 7 is gone " * 12)
    error.__cause__ = OSError("no such file")

    lines = explanation(error).splitlines()

    assert lines[0] == "error: TxnLogHaltedError"
    assert lines[2].startswith("  LOG_TRUNCATED: record 7 is gone")
    assert max(map(len, lines)) <= 112
    assert "  cause  OSError: no such file" in lines
    assert lines[-1].startswith("  next   docs/troubleshooting.md, section LOG_TRUNCATED")


@pytest.mark.parametrize("words", ["the server has closed the connection", " "])
def test_a_cause_that_says_no_more_is_left_out(words: str) -> None:
    """Most messages have the words of a driver's error in them."""
    error = TxnLogError("a query failed: the server has closed the connection")
    error.__cause__ = OSError(words)

    assert "  cause" not in explanation(error)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:c4nary@h/db cannot be reached",
        "connection failed: host=h password=c4nary",
        "sasl.password='c4nary' was refused",
    ],
)
def test_no_credentials(text: str) -> None:
    """Passwords are removed from messages and causes, whoever wrote them."""
    error = TxnLogError(text)
    error.__cause__ = ValueError(f"the driver: {text}")

    assert "c4nary" not in explanation(error)
