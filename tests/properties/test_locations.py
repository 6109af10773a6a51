"""Locations: however a place is spelled, it is one place, and every opener of ours goes there."""

from __future__ import annotations

import os
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from deltalakedb.locations import nested, normal, same, within
from deltalakedb.objectstore import open_object_store

names = st.text("aB1 %?#+=:@.-_é~", min_size=1, max_size=6).filter(lambda name: name.strip(".") != "")
places = st.lists(names, max_size=4)


@st.composite
def spelled(draw: st.DrawFn, place: list[str]) -> str:
    """A URI of a folder on disk, in one of many ways."""
    begin = draw(st.sampled_from(["file:/", "file:///", "file:////", "FILE:///", "file://localhost/"]))
    parts: list[str] = []
    for name in place:
        parts += draw(st.sampled_from([[], [], ["."], [""], ["x", ".."], ["x y", "%2e%2E"]]))
        # Decoding takes no more off than encoding put on: what could be a % is always encoded, the rest may be.
        parts.append(
            "".join(
                draw(st.sampled_from([letter, _every(letter)])) if letter.isalnum() else _every(letter)
                for letter in name
            )
        )
    path = "/".join(quote(part, safe="%") for part in parts) + draw(st.sampled_from(["", "/", "//", "/."]))
    # After one slash a second one would begin an authority.
    return begin + (path.lstrip("/") if begin == "file:/" else path)


def _every(letter: str) -> str:
    return "".join(f"%{byte:02x}" for byte in letter.encode())


@given(st.data(), places)
def test_every_spelling_is_one_place(data: st.DataObject, place: list[str]) -> None:
    """Two spellings of a folder are the same, and the plain path is a third."""
    one, other = data.draw(spelled(place)), data.draw(spelled(place))

    assert same(one, other)
    assert same(one, "/" + "/".join(place))


@given(st.data(), places, places)
def test_places_are_told_apart_by_their_segments(data: st.DataObject, one: list[str], other: list[str]) -> None:
    """A place lies in another exactly if its names begin with all of the other's; nesting is the same from both sides."""
    first, second = data.draw(spelled(one)), data.draw(spelled(other))

    assert same(first, second) == (one == other)
    assert within(first, second) == (one[: len(other)] == other)
    assert nested(first, second) == nested(second, first) == (within(first, second) or within(second, first))


@given(st.data(), places)
def test_what_is_opened_is_the_place(data: st.DataObject, place: list[str]) -> None:
    """An object store that is opened by any spelling that it takes lies where the normal form says."""
    uri = data.draw(spelled(place).filter(lambda uri: uri.startswith(("file:///", "file://l"))))
    root = open_object_store(uri).root

    assert same(root, uri)
    assert normal(root) == "file://" + os.path.normpath("/" + "/".join(place)).rstrip("/")
