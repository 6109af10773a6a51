"""What a committer is told to serve is looked at before anything is opened."""

from __future__ import annotations

import threading

import pytest

from deltalakedb.errors import TxnLogConfigError
from deltalakedb.health import ServiceHealth
from deltalakedb.settings import load_settings
from deltalakedb_committer.lakes import serve_lakes

NOWHERE = "postgresql://nobody@127.0.0.1:1/{}?schema=lake"
"""A server that is not there: to ask it anything would be an error of another kind."""


def test_a_lake_is_served_once() -> None:
    """The same lake named twice is refused: its two halves would wait for one another for ever."""
    lakes = [load_settings(store=NOWHERE.format(name)) for name in ("one", "two", "one")]

    with pytest.raises(TxnLogConfigError, match="named twice"):
        serve_lakes(lakes, takeover_after=1.0, health=ServiceHealth("committer"), stop=threading.Event())


def test_every_lake_can_be_served() -> None:
    """One lake that services cannot serve keeps the others from being begun."""
    lakes = [load_settings(store=store) for store in (NOWHERE.format("one"), "deltasql://duckdb//nowhere/lake.duckdb")]

    with pytest.raises(TxnLogConfigError, match="DuckDB"):
        serve_lakes(lakes, takeover_after=1.0, health=ServiceHealth("committer"), stop=threading.Event())
