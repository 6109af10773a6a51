from __future__ import annotations

import pytest

from deltalakedb.errors import TxnLogHaltedError
from deltalakedb.features import READER_FEATURES
from deltalakedb_committer.deciding.json_limits import json_problem, repeats_a_key
from deltalakedb_committer.deciding.needs import Needs, TableNeeds
from deltalakedb_committer.deciding.refusal import SHOWN, shown
from deltalakedb_committer.deciding.rules import RULES, rules
from tests.model_lake import ModelLake
from tests.works import append, relaxed


def test_rule_sets_have_numbers() -> None:
    """They say how many tables a transaction may have, how wide folds are and what a client may have staged, and are the
    first one in all else."""
    first = rules(1)
    found = {number: (one.max_open_per_client, one.fold_window_ms, one.max_tables) for number, one in RULES.items()}

    assert list(found.values()) == [
        (transactions, window, tables)
        for transactions in (256, 2_500)
        for window in (0, 20, 50, 200)
        for tables in (10, 100)
    ]
    assert list(found) == [one.number for one in RULES.values()] == list(range(1, 17))
    assert {(one.max_open_per_client, one.max_staged_bytes_per_client // 1024**2) for one in RULES.values()} == {
        (256, 8 * 1024),
        (2_500, 64 * 1024),
    }
    assert all(one.max_staged_bytes_per_client <= one.max_staged_bytes for one in RULES.values())
    assert all(one.max_open_per_client <= one.max_open for one in RULES.values())
    for other in RULES.values():
        differ = {name for name in first.__dataclass_fields__ if getattr(first, name) != getattr(other, name)}
        quotas = {"max_open_per_client", "max_staged_bytes_per_client"}
        assert differ <= {"number", "max_tables", "fold_window_ms", *quotas}


def test_an_unknown_rule_set_halts() -> None:
    """The message says what to run."""
    with pytest.raises(TxnLogHaltedError, match="run the release") as halted:
        rules(999)

    assert halted.value.state == "UNKNOWN_RULE_SET"


def test_features_concern_readers_or_writers() -> None:
    """A feature is written as one of the two, as Delta has it."""
    found = rules(1)

    assert found.reader_features <= READER_FEATURES
    assert not found.writer_features & READER_FEATURES


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("[" * 5 + "]" * 5, True),
        ("[" * 6 + "]" * 6, False),
        ("[[],[],[],[],[],[]]", True),
        ('{"a":{"b":[{"c":[[1]]}]}}', False),
        ('["[[[[[[[[", "\\"[[[[[["]', True),
        ("x" * 100, True),
        ("x" * 101, False),
        ("é" * 51, False),
    ],
)
def test_json_is_bounded_before_it_is_parsed(text: str, fits: bool) -> None:
    """Bytes, and nesting outside of texts."""
    assert (json_problem(text, 100, 5) is None) == fits


@pytest.mark.parametrize(
    ("text", "repeats"),
    [('{"a":1,"b":{"a":2}}', False), ('{"a":1,"a":1}', True), ('[{"x":{"a":1,"a":2}}]', True), ("5", False)],
)
def test_keys_that_come_twice_are_found(text: str, repeats: bool) -> None:
    """At any depth."""
    assert repeats_a_key(text) == repeats


def test_values_are_shown_short_and_quoted() -> None:
    """In messages that are logged and stored."""
    assert shown("a\nb") == "'a\\nb'"
    assert len(shown("x" * 10_000)) == SHOWN
    assert shown(None) == "None"


def test_a_state_forgets_what_was_loaded_for_single_events() -> None:
    """Heads stay, and nothing else of the tables that were touched."""
    lake = ModelLake()
    lake.commit(relaxed())
    lake.commit(append("a"))
    state = lake.load(Needs())
    table = state.tables[1]
    lake._load_table(table, TableNeeds(paths={"a"}, read_version=0, metadata_versions={0}))
    state.touch(table)

    state.forget()

    assert (table.version, table.loaded, table.metadata is not None) == (1, True, True)
    assert (table.files, table.vectors, table.winners, table.winners_since) == ({}, {}, [], None)
    assert (table.past_metadata, table.txns, state.touched, state.decided) == ({}, {}, set(), {})
