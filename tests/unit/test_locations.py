"""Locations are compared by the place they name, however they are spelled."""

from __future__ import annotations

import pytest

from deltalakedb.locations import nested, normal, same, within


@pytest.mark.parametrize(
    "spelled",
    [
        "file:///data/a b",
        "file:///data/a%20b",
        "file:///data/a%20b/",
        "file:///data/a%20b//",
        "file:///data//a%20b",
        "file:////data/a%20b",
        "file:///data/./a%20b/.",
        "file:///data/x/../a%20b",
        "file:///data/x/%2e%2e/a%20b",
        "file:///data%2Fa%20b",
        "file:/data/a%20b",
        "FILE:///data/a%20b",
        "file://localhost/data/a%20b",
        "file://LOCALHOST/data/a%20b",
        "file:///%64ata/a%20b",
        "file:///data/a%20b?versionId=1",
        "file:///data/a%20b#part",
        "/data/a b",
        "//data/a b/",
    ],
)
def test_one_place_on_disk(spelled: str) -> None:
    """Whatever readers may take for one folder is one."""
    assert normal(spelled) == "file:///data/a b"


@pytest.mark.parametrize(
    "spelled",
    [
        "s3://bucket/lake/a",
        "s3a://bucket/lake/a",
        "s3n://bucket/lake/a",
        "S3://bucket/lake/a/",
        "s3://bucket//lake/a",
        "s3://bucket/lake//a",
        "s3://bucket/lake/%61",
        "s3://bucket/lake/./a",
        "s3://bucket/../lake/a",
    ],
)
def test_one_place_in_a_bucket(spelled: str) -> None:
    """Schemes of one store are one, and so are spellings of one key that readers collapse."""
    assert normal(spelled) == "s3://bucket/lake/a"


def test_percent_encoding_is_taken_off_once() -> None:
    """A folder whose name has a % in it is another folder; in a plain path it stands for itself."""
    assert normal("file:///data/a%2520b") == normal("/data/a%20b") != normal("file:///data/a%20b")


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    """What cannot be decoded, or not be stored, names itself."""
    assert normal("file:///data/%ff") == "file:///data/%ff"
    assert normal("file:///data/%00") == "file:///data/%00"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("file:///data/a", "file:///data/ab"),
        ("file:///data/a", "file:///data/A"),
        ("file:///data/a", "s3://data/a"),
        ("s3://bucket/a", "s3://bucket2/a"),
        ("s3://bucket/a", "gs://bucket/a"),
        ("file:///data/a", "file://host/data/a"),
        ("file:///data/a", "file:///data/b/../c"),
    ],
)
def test_different_places(one: str, other: str) -> None:
    """Neighbours, other buckets and other stores are apart."""
    assert not same(one, other)
    assert not nested(one, other)
    assert not nested(other, one)


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("file:///data/a/b", "file:/data/a/"),
        ("s3a://bucket/a//b", "s3://bucket/a"),
        ("s3://bucket/a", "s3n://bucket"),
        ("file:///data/%61/b", "/data/a"),
        ("file:///data", "file:///"),
        ("file:///data/x/../a/b", "file:///data/a"),
    ],
)
def test_one_place_in_another(inner: str, outer: str) -> None:
    """Nesting is seen through every spelling, from both sides, and told apart from being the same."""
    assert within(inner, outer)
    assert not within(outer, inner)
    assert nested(inner, outer)
    assert nested(outer, inner)
    assert not same(inner, outer)
