"""Actions as users give them."""

from __future__ import annotations

from typing import Any

import pytest

from deltalakedb.actions import AddFile, CdcFile, DeletionVector, OtherAction, RemoveFile
from deltalakedb.errors import TxnLogValidationError
from deltalakedb.given_actions import actions_of


def test_dicts_as_in_the_log() -> None:
    """Dicts with Delta's own names become the same actions as values do; unknown fields and kinds are kept."""
    vector = {"storageType": "i", "pathOrInlineDv": "x", "sizeInBytes": 3, "cardinality": 1}
    given: list[Any] = [
        {
            "add": {
                "path": "a",
                "partitionValues": {"p": None},
                "size": 5,
                "modificationTime": 7,
                "dataChange": True,
                "new": 1,
            }
        },
        {"remove": {"path": "b", "dataChange": False, "deletionVector": vector}},
        {"cdc": {"path": "c", "partitionValues": {}, "size": 1, "dataChange": False}},
        {"txn": {"appId": "x", "version": 3}},
        RemoveFile(path="d"),
    ]

    assert actions_of(given) == [
        AddFile(path="a", partition_values={"p": None}, size=5, modification_time=7, rest='{"new":1}'),
        RemoveFile(
            path="b",
            data_change=False,
            deletion_vector=DeletionVector(storage_type="i", path_or_inline_dv="x", size_in_bytes=3, cardinality=1),
        ),
        CdcFile(path="c", partition_values={}, size=1),
        OtherAction(kind="txn", json='{"appId":"x","version":3}'),
        RemoveFile(path="d"),
    ]


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ([{"add": {"path": "a"}}], "this is no add action"),
        ([{"add": {"path": 5, "size": 1, "modificationTime": 1}}], "this is no add action"),
        ([{"remove": {}}], "this is no remove action"),
        ([{"add": {"path": "a"}, "remove": {}}], "one key as in Delta's log"),
        ([{"add": "x"}], "as a dict is like"),
        (["add"], "not 'add'"),
        ([{"commitInfo": {"operation": "X"}}], "user_metadata="),
        ([{"x": {"a": object()}}], "this is no x action"),
        ({"add": {}}, "is a list of actions"),
        ("add", "is a list of actions"),
    ],
)
def test_what_is_no_action(given: Any, part: str) -> None:
    """Anything else is refused before it is staged."""
    with pytest.raises(TxnLogValidationError) as caught:
        actions_of(given)
    assert part in str(caught.value)
