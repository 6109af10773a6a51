"""The lake's name at its root, on a local file system and on S3."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from deltalakedb.errors import TxnLogMirrorError
from deltalakedb.objectstore import NewObject, ObjectStore, open_object_store
from deltalakedb.objectstore.identity import IDENTITY, claim_root, foreign_log, log_object


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "local":
        return open_object_store(str(request.getfixturevalue("tmp_path")))
    bucket = request.getfixturevalue("s3_bucket")
    return open_object_store(bucket.uri("root"), bucket.storage_options)


def test_a_root_is_claimed_once_and_recognised(store: ObjectStore) -> None:
    """The first use writes the lake's id, every later one finds it."""
    claim_root(store, "lake-1")
    claim_root(store, "lake-1")
    found = store.get(IDENTITY)

    assert found is not None
    assert found.data == b'{"lake_id":"lake-1"}\n'


def test_another_lakes_root_is_refused(store: ObjectStore) -> None:
    """The error names both lakes and what to do."""
    claim_root(store, "lake-1")
    with pytest.raises(TxnLogMirrorError, match="lake-1, this is the lake lake-2: give this lake a root of its own"):
        claim_root(store, "lake-2")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"lake_id":7}'])
def test_an_unreadable_identity_is_refused(store: ObjectStore, content: bytes) -> None:
    """What is no identity is not taken for ours, and not overwritten."""
    store.put_if_absent([NewObject(IDENTITY, content)])
    with pytest.raises(TxnLogMirrorError, match="cannot be read"):
        claim_root(store, "lake-1")
    found = store.get(IDENTITY)

    assert found is not None
    assert found.data == content


def test_of_two_lakes_one_gets_the_root(store: ObjectStore) -> None:
    """Lakes that claim one root at once agree on the winner."""

    def claim(lake_id: str) -> bool:
        try:
            claim_root(store, lake_id)
        except TxnLogMirrorError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(claim, [f"lake-{n % 4}" for n in range(8)]))
    winners = {n % 4 for n, won in enumerate(answers) if won}

    assert len(winners) == 1
    assert sum(answers) == 2


def test_a_foreign_log_is_found(store: ObjectStore) -> None:
    """Anything in a `_delta_log` counts, a neighbour's does not; the error says what lies where and what to do."""
    store.put_if_absent([NewObject("orders/_delta_log/00000000000000000010.checkpoint.parquet", b"x")])
    found = log_object(store, "orders")
    assert found is not None
    error = foreign_log(store, found, "orders")

    assert log_object(store, "order") is None
    assert log_object(store, "") is None
    assert f"{store.root}/orders/_delta_log/00000000000000000010.checkpoint.parquet" in str(error)
