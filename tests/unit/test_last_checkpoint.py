"""`_last_checkpoint`: its bytes and its checksum."""

from __future__ import annotations

import json

import pytest

from deltalakedb.deltalog.last_checkpoint import checksum, named_version, render
from tests.fix_golden import GOLDEN


def test_a_hint_is_compact_and_begins_with_version_and_size() -> None:
    """The bytes are fixed: readers that scan for the first fields find them, and the checksum covers the rest."""
    hint = render(version=20, actions=105, size=4711, adds=100)

    assert hint == (
        b'{"version":20,"size":105,"sizeInBytes":4711,"numOfAddFiles":100,"checksum":"f86f9c242fcf0abb995141d214090adf"}'
    )
    assert named_version(hint) == 20


def test_the_checksum_is_the_protocols() -> None:
    """The protocol's own example, with nesting, arrays, spaces and quotes, has the checksum given there."""
    example = {
        "k0": "'v 0'",
        "checksum": "adsaskfljadfkjadfkj",
        "k1": {"k2": 2, "k3": ["v3", [1, 2], {"k4": "v4", "k5": ["v5", "v6", "v7"]}]},
    }

    assert checksum(example) == "6a92d155a59bf2eecbd4b4ec7fd1f875"


def test_checksums_of_other_writers_are_reproduced() -> None:
    """Every hint with a checksum that Spark or a kernel wrote has the one that we compute."""
    hints = [json.loads(text) for path in GOLDEN.glob("**/_last_checkpoint") if (text := path.read_text()).strip()]
    signed = [hint for hint in hints if "checksum" in hint]

    assert bool(signed) == GOLDEN.is_dir()
    assert [checksum(hint) for hint in signed] == [hint["checksum"] for hint in signed]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"version":"x"}', b"\xff"])
def test_what_is_no_hint_names_no_version(data: bytes) -> None:
    """Garbage is no version, and no error."""
    assert named_version(data) is None
