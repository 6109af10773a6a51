"""The troubleshooting page knows every halted state and every reason that the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from deltalakedb.errors import Reason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
PACKAGES = ("producer", "committer", "mirror_worker", "migrations")
RAISES_STATES = {"TxnLogHaltedError", "MigrationError"}


def states_in_code() -> set[str]:
    """First argument of every halted state that is made anywhere, where it is written out."""
    states = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISES_STATES:
                    first = node.args[0]
                    if isinstance(first, ast.Constant):
                        states.add(str(first.value))
    return states


def test_every_halted_state_has_its_section() -> None:
    """Sections of the page about halted states and states that the code can stop with are the same."""
    part = PAGE.split("\n## Halted states\n")[1].split("\n## ")[0]

    assert set(re.findall(r"^### ([A-Z_]+)$", part, re.M)) == states_in_code()


def test_every_halted_state_has_its_runbook() -> None:
    """The page for who deploys leads to each of them."""
    deploy = (ROOT / "docs" / "deploy.md").read_text("utf-8")

    assert set(re.findall(r"^\| \[([A-Z_]+)\]\(troubleshooting\.md#[a-z_]+\)", deploy, re.M)) == states_in_code()


def test_every_reason_is_explained() -> None:
    """Reasons in the table and reasons that the committer can give are the same."""
    assert set(re.findall(r"^\| ([A-Z_]{4,}) \|", PAGE, re.M)) == set(Reason)
