"""Comparing files by digests and in slices finds what comparing all of them at once finds."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltalakedb.deltalog.logical_files import TableRoot
from deltalakedb.deltalog.meaning import Statistics
from deltalakedb_mirror_worker import differences
from deltalakedb_mirror_worker.differences import Findings, compare_files

_BODIES = st.fixed_dictionaries(
    {"size": st.integers(0, 2)},
    optional={
        "stats": st.sampled_from(['{"numRecords":1}', '{ "numRecords":1.0 }', '{"numRecords":2}']),
        "partitionValues": st.sampled_from([{}, {"p": ""}, {"p": None}, {"p": "1"}]),
        "deletionVector": st.just({"storageType": "u", "pathOrInlineDv": "x", "sizeInBytes": 1}),
        "dataChange": st.booleans(),
    },
)
_SIDES = st.dictionaries(st.sampled_from([f"p={n}/f" for n in range(8)]), _BODIES, max_size=8)
_MEANT = {
    '{"numRecords":1}': {"numRecords": 1},
    '{ "numRecords":1.0 }': {"numRecords": 1},
    '{"numRecords":2}': {"numRecords": 2},
}


def naively(sql: dict[str, Any], log: dict[str, Any]) -> Counter[str]:
    """Kinds of differences, counted by looking at every file of both sides."""
    ours, theirs = ({(path, "deletionVector" in body): body for path, body in side.items()} for side in (sql, log))
    found = Counter({"file only in SQL": len(ours.keys() - theirs.keys())})
    found["file only in the log"] = len(theirs.keys() - ours.keys())
    for key in ours.keys() & theirs.keys():
        one, other = ours[key], theirs[key]
        found["size of a file"] += one["size"] != other["size"]
        found["stats of a file"] += _MEANT.get(one.get("stats", "")) != _MEANT.get(other.get("stats", ""))
        values = [{k: v or None for k, v in body.get("partitionValues", {}).items()} for body in (one, other)]
        found["partitionValues of a file"] += values[0] != values[1]
    return +found


@settings(deadline=None)
@given(_SIDES, _SIDES, st.integers(0, 3), st.integers(1, 9), st.integers(0, 20))
def test_slices_and_digests_lose_nothing(
    sql: dict[str, Any], log: dict[str, Any], most: int, slice_files: int, files: int
) -> None:
    """The counts are those of a naive comparison, and as many differences are told in full as may be."""
    findings = Findings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(differences, "SHOWN", most)
        patch.setattr(differences, "SLICE_FILES", slice_files)
        compare_files(
            findings,
            lambda: (json.dumps({"path": path, **body}) for path, body in sql.items()),
            lambda: (json.dumps({"path": f"./{path}", **body}, indent=1) for path, body in log.items()),
            root=TableRoot("file:///t"),
            statistics=Statistics(""),
            files=files,
        )

    wanted = naively(sql, log)
    assert +findings.counts == wanted
    assert bool(findings.shown) == bool(wanted and most)
    for one in findings.shown:
        assert one.sql != one.log
        assert one.name.removeprefix("./") in sql.keys() | log.keys()
