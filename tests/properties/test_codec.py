from __future__ import annotations

import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltalakedb import codec
from deltalakedb.codec import decode, decode_content, decode_told, encode, encode_chunk, encode_content, encode_told
from deltalakedb.errors import TxnLogDecodeError
from deltalakedb.events import Content, Envelope, Event, StagedTransaction, Told
from tests.events import SAMPLES
from tests.properties.strategies import CONTENTS, EVENTS, TOLD


def _written(event: Event | Told) -> bytes:
    if isinstance(event, tuple):
        (record,) = encode_told(event)
        return record
    if isinstance(event, StagedTransaction):
        return encode_chunk(event.envelope, event.content_bytes)
    return encode(event)


_SHORT = st.text(max_size=15)
_USUAL = st.builds(
    Envelope,
    txn_id=st.uuids().map(str),
    digest=st.binary(min_size=32, max_size=32),
    lake_id=_SHORT,
    root=_SHORT,
    client_id=_SHORT,
    outcome_partition=st.integers(-64, 63),
)
_WRITTEN = [_written(event) for event in SAMPLES.values()]


@given(EVENTS)
@settings(max_examples=300, deadline=None)
def test_every_event_comes_back_as_it_was(event: Event) -> None:
    """Encoding and strict decoding lose and change nothing."""
    assert decode(_written(event)) == event


@given(TOLD)
@settings(max_examples=100, deadline=None)
def test_what_is_told_comes_back_as_it_was(told: Told) -> None:
    """Commits and outcomes, many to a record."""
    assert decode_told(_written(told)) == told


@given(CONTENTS)
@settings(max_examples=100, deadline=None)
def test_contents_come_back_from_their_bytes(content: Content) -> None:
    """As staged chunks are read."""
    assert decode_content(encode_content(content)) == content


@given(st.binary(max_size=400), st.sampled_from([data[:10] for data in _WRITTEN]))
@settings(max_examples=500, deadline=None)
def test_random_bytes_are_events_or_refused(data: bytes, marker: bytes) -> None:
    """Behind a marker of ours, whatever follows: an event, or the one error."""
    for value in (data, marker + data):
        _decoded_or_refused(value)


@given(st.data(), st.sampled_from(_WRITTEN))
@settings(max_examples=500, deadline=None)
def test_mutated_events_are_events_or_refused(data: st.DataObject, value: bytes) -> None:
    """Bytes changed, cut, doubled or filled in, in a real event."""
    changed = bytearray(value)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(10, len(changed) - 1))
        end = data.draw(st.integers(at, min(len(changed), at + 12)))
        changed[at:end] = data.draw(st.binary(max_size=12))
        if len(changed) <= 10:
            return

    _decoded_or_refused(bytes(changed))


@given(_USUAL, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.binary(max_size=3)), max_size=2))
@settings(max_examples=500, deadline=None)
def test_usual_transactions_are_what_avro_says(envelope: Envelope, changes: list[tuple[int, int, bytes]]) -> None:
    """Those that are read without fastavro, and whatever nearly looks like one: the same event, or the same error."""
    content = encode_content(Content(tables=()))
    value = encode_chunk(envelope, content)
    for at, cut, data in changes:
        value = value[: 10 + at] + data + value[10 + at + cut :]

    found = _event_or_error(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_usual", lambda _: None)
        assert found == _event_or_error(value)
    if not changes:
        assert codec._usual(value) == (envelope, content)


def _event_or_error(value: bytes) -> Event | str:
    try:
        return decode(value)
    except TxnLogDecodeError as error:
        return str(error)


def test_decoding_takes_memory_in_proportion() -> None:
    """A length that lies makes no room for what is not there."""
    huge = b"\xfe\xff\xff\xff\xff\xff\xff\x7f"  # 2^54 or so
    tracemalloc.start()
    try:
        for value in _WRITTEN:
            for at in range(10, len(value)):
                _decoded_or_refused(value[:at] + huge + value[at:])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8 * 1024 * 1024


def _decoded_or_refused(value: bytes) -> None:
    for reads in (decode, decode_told):
        with suppress(TxnLogDecodeError):
            reads(value)
