from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from deltalakedb import codec
from deltalakedb.codec import (
    MARKER,
    content_digest,
    decode,
    decode_content,
    decode_told,
    encode,
    encode_chunk,
    encode_content,
    encode_told,
    headers,
)
from deltalakedb.errors import TxnLogDecodeError, TxnLogValidationError
from deltalakedb.eventlog.port import MAX_RECORD_BYTES
from deltalakedb.events import Commit, Content, Envelope, Event, ImportedVersion, StagedTransaction, TableWork, Told
from deltalakedb_schemas import NAMES, load_schema
from tests.events import EARLIER, SAMPLES

GOLDEN = Path(__file__).parent.parent / "golden" / "events"
STAGED = SAMPLES["staged_transaction.v2"]
READ_ONLY = ("staged_transaction.v1", *EARLIER)
"""What this release reads and does not write any more."""


def written(event: Event | Told) -> bytes:
    if isinstance(event, tuple):
        (record,) = encode_told(event)
        return record
    if isinstance(event, StagedTransaction):
        return encode_chunk(event.envelope, event.content_bytes)
    return encode(event)


def read(name: str, data: bytes) -> Event | Told:
    return decode_told(data) if name.startswith(("commit.", "outcome.")) else decode(data)


def golden(name: str) -> bytes:
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text(encoding="ascii"))


class TestGoldenBytes:
    @pytest.mark.parametrize("name", SAMPLES)
    def test_events_are_written_as_they_always_were(self, name: str) -> None:
        """Released bytes never change: other releases read them."""
        assert written(SAMPLES[name]).hex() == golden(name).hex()

    @pytest.mark.parametrize("name", SAMPLES)
    def test_events_are_read_as_they_always_were(self, name: str) -> None:
        """What lies in a log stays readable for ever."""
        assert read(name, golden(name)) == SAMPLES[name]

    @pytest.mark.parametrize("name", SAMPLES)
    def test_events_are_read_by_whichever_thread_comes_first(self, name: str) -> None:
        """Two threads that read their first events at once may each parse the schemas; neither takes the other's amiss."""
        read(name, golden(name))
        codec._by_name.cache_clear()

        assert read(name, golden(name)) == SAMPLES[name]

    @pytest.mark.parametrize("name", EARLIER)
    def test_what_the_first_schemas_tell_is_read(self, name: str) -> None:
        """A record of theirs tells one event."""
        assert decode_told(golden(name)) == EARLIER[name]

    def test_transactions_of_the_first_schema_are_read(self) -> None:
        """With all that is in them, and with the bytes that their digest is taken over."""
        data = golden("staged_transaction.v1")
        event = decode(data)
        assert isinstance(event, StagedTransaction)
        assert isinstance(STAGED, StagedTransaction)

        assert (event.envelope, event.content) == (STAGED.envelope, STAGED.content)
        assert data.endswith(event.content_bytes)
        assert decode_content(event.content_bytes) == STAGED.content

    def test_every_schema_and_every_branch_has_golden_bytes(self) -> None:
        """A new schema, or a branch of one, comes with its own."""
        assert {".".join(name.split(".")[:2]) for name in {*SAMPLES, *READ_ONLY}} == set(NAMES)
        assert {path.stem for path in GOLDEN.iterdir()} == {*SAMPLES, *READ_ONLY}
        (commands,) = [field["type"] for field in load_schema("control.v1")["fields"] if field["name"] == "command"]
        assert len(commands) == len([name for name in SAMPLES if name.startswith("control.")])

    def test_samples_fill_every_field(self) -> None:
        """A field that is at its default in all of them is not shown to be written."""
        filled: dict[type[msgspec.Struct], set[str]] = {}
        for sample in SAMPLES.values():
            _note_filled(sample, filled)

        for kind, names in filled.items():
            assert names == set(kind.__struct_fields__), kind


class TestStrictDecoding:
    @pytest.mark.parametrize("name", [*SAMPLES, *READ_ONLY])
    def test_truncated_events_are_refused(self, name: str) -> None:
        """At every byte."""
        data = golden(name)

        for end in range(len(data)):
            with pytest.raises(TxnLogDecodeError):
                read(name, data[:end])

    @pytest.mark.parametrize("name", [*SAMPLES, *READ_ONLY])
    def test_trailing_bytes_are_refused(self, name: str) -> None:
        """An event is its whole record."""
        with pytest.raises(TxnLogDecodeError, match="1 bytes follow"):
            read(name, golden(name) + b"\0")

    @pytest.mark.parametrize("data", [b"", b"junk", MARKER, MARKER + b"\0" * 8, b"\xc3\x02" + golden("commit.v1")[2:]])
    def test_only_known_schemas_are_read(self, data: bytes) -> None:
        """The fingerprint selects one of ours; nothing that comes with the data is a schema."""
        for reads in (decode, decode_told):
            with pytest.raises(TxnLogDecodeError, match="schema"):
                reads(data)

    @pytest.mark.parametrize("name", [*SAMPLES, *READ_ONLY])
    def test_what_is_decided_and_what_is_told_are_kept_apart(self, name: str) -> None:
        """An event in the wrong stream is none."""
        other = decode if isinstance(read(name, golden(name)), tuple) else decode_told

        with pytest.raises(TxnLogDecodeError, match="decide"):
            other(golden(name))

    @pytest.mark.parametrize(
        "content", [b"", b"{}", b"null", b"[1]", b"[]]", b"[{}]", b'[{"lake_id":"\xff"}]', b"[" * 100_000]
    )
    def test_json_that_tells_nothing_is_refused(self, content: bytes) -> None:
        """Of the wrong shape or type."""
        for name in ("commit.v2", "outcome.v2"):
            with pytest.raises(TxnLogDecodeError):
                decode_told(golden(name)[:10] + _avro_bytes(content))

    def test_a_record_over_the_limit_is_not_looked_at(self) -> None:
        """Whatever it holds."""
        with pytest.raises(TxnLogDecodeError, match="at most"):
            decode_told(golden("commit.v1")[:10] + b"\0" * MAX_RECORD_BYTES)

    @pytest.mark.parametrize(
        "tail",
        [
            b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"x" * 100,
            b"\x80" * 100,
            b"\xc8\x01" + b"\xff" * 100,
        ],
    )
    @pytest.mark.parametrize("name", ["staged_transaction.v1", "staged_transaction.v2"])
    def test_lengths_that_lie_are_refused_at_once(self, name: str, tail: bytes) -> None:
        """A text of 2^62 bytes takes neither memory nor time; a text is UTF-8."""
        with pytest.raises(TxnLogDecodeError):
            decode(golden(name)[:10] + tail)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"[]",
            b"null",
            b' {"tables":[]}',
            b'{"tables":[]}{}',
            b'\xef\xbb\xbf{"tables":[]}',
            b'{"tables":[{"unknown":1}]}',
            b'{"tables":[{"name":"\xff"}]}',
            b'{"tables":[{"name":"\\ud800"}]}',
            b'{"tables":[{"name":1}]}',
            b'{"tables":[{"read_version":9223372036854775808}]}',
            b'{"tables":[{"read_version":1.0}]}',
            b'{"tables":[{"adds":[{"path":"a","partition_values":{},"size":true,"modification_time":0}]}]}',
            b'{"tables":[{"intents":[{"type":"Unknown"}]}]}',
            b'{"tables":' + b"[" * 100_000,
        ],
    )
    def test_json_that_is_no_content_is_refused(self, content: bytes) -> None:
        """Of the wrong shape or type, with fields nobody knows, out of range, or not what it is from its first byte on:
        the same bytes are read again from SQL, where they are all there is."""
        assert isinstance(STAGED, StagedTransaction)

        with pytest.raises(TxnLogDecodeError):
            decode(encode_chunk(STAGED.envelope, content))

    def test_the_content_of_a_chunk_is_read_by_itself(self) -> None:
        """As staged in SQL; just as strictly."""
        assert isinstance(STAGED, StagedTransaction)

        assert decode_content(STAGED.content_bytes) == STAGED.content
        with pytest.raises(TxnLogDecodeError):
            decode_content(STAGED.content_bytes + b"\0")
        with pytest.raises(TxnLogDecodeError):
            decode_content(STAGED.content_bytes[:-1])

    def test_content_bytes_are_those_that_were_sent(self) -> None:
        """Digests are taken over them."""
        for name in ("staged_transaction.v2", "imported_version.v1"):
            event = decode(golden(name))
            assert isinstance(event, StagedTransaction | ImportedVersion)
            assert golden(name).endswith(event.content_bytes)


class TestEncoding:
    def test_an_event_over_the_limit_is_refused(self) -> None:
        """Before anything is sent."""
        assert isinstance(STAGED, StagedTransaction)

        with pytest.raises(TxnLogValidationError, match="at most"):
            encode_chunk(STAGED.envelope, b"x" * MAX_RECORD_BYTES)

    @pytest.mark.parametrize("wrong", [{"read_version": 2**63}, {"operation": 1}, {"operation": "\ud800"}])
    def test_values_that_do_not_fit_are_refused(self, wrong: dict[str, Any]) -> None:
        """In words of ours."""
        with pytest.raises(TxnLogValidationError):
            encode_content(Content(tables=(TableWork(name="a", **wrong),)))

    def test_what_is_at_its_default_is_not_written(self) -> None:
        """An append of one file says no more than it has to."""
        assert encode_content(Content(tables=(TableWork(id="i"),))) == b'{"tables":[{"id":"i"}]}'

    def test_many_events_are_told_by_few_records(self) -> None:
        """In order, and with room for more in a record of the log; one that is large is told by itself."""
        (commit,) = EARLIER["commit.v1"]
        assert isinstance(commit, Commit)
        commits = [msgspec.structs.replace(commit, commit_seq=seq) for seq in range(3_000)]
        large = msgspec.structs.replace(commit, txn_ids=("x" * 300_000,))

        records = encode_told([*commits, large, commit])

        told = [decode_told(record) for record in records]
        assert [event for events in told for event in events] == [*commits, large, commit]
        assert 5 < len(records) < 10
        assert told[-2:] == [(large,), (commit,)]
        assert max(map(len, records[:-2])) < 270_000
        assert encode_told([]) == []

    def test_headers_say_whose_an_event_is(self) -> None:
        """Without decoding it: transaction, outcome partition, chunk."""
        envelope = Envelope(
            txn_id="t",
            chunk_index=1,
            chunk_count=3,
            digest=b"",
            lake_id="l",
            root="r",
            client_id="c",
            outcome_partition=5,
        )

        assert headers(envelope) == (("dl-txn", b"t"), ("dl-outcome", b"5"), ("dl-chunk", b"1/3"))

    def test_the_digest_is_of_chunks_in_order(self) -> None:
        """Bytes moved from one chunk to the next make another transaction."""
        assert len(content_digest([b"ab", b"c"])) == 32
        assert content_digest([b"ab", b"c"]) != content_digest([b"a", b"bc"])


class TestSchemas:
    """What keeps a small event from costing much: lint of our own schemas."""

    @pytest.mark.parametrize("name", NAMES)
    def test_no_schema_contains_itself(self, name: str) -> None:
        """Depth is bounded by the schema, not by the data."""
        for path in _walk(load_schema(name), ()):
            assert len(set(path)) == len(path), path

    @pytest.mark.parametrize("name", NAMES)
    def test_no_item_takes_no_bytes(self, name: str) -> None:
        """Else a few bytes could claim a list of a million million items."""
        for items in _items(load_schema(name)):
            assert _least_bytes(items, load_schema(name)) > 0

    def test_an_unknown_name_is_no_schema(self) -> None:
        """The loader reads no other files."""
        with pytest.raises(KeyError):
            load_schema("../../etc/passwd")


def _note_filled(value: Any, filled: dict[type[msgspec.Struct], set[str]]) -> None:
    if isinstance(value, msgspec.Struct):
        names = filled.setdefault(type(value), set())
        for field in msgspec.structs.fields(value):
            inner = getattr(value, field.name)
            if inner not in (field.default, None, (), {}):
                names.add(field.name)
            _note_filled(inner, filled)
    elif isinstance(value, tuple):
        for item in value:
            _note_filled(item, filled)


def _avro_bytes(data: bytes) -> bytes:
    """`data` behind its length, which Avro writes doubled, seven bits to a byte and the lowest first."""
    length, left = bytearray(), 2 * len(data)
    while left >= 0x80:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*length, left]) + data


def _walk(schema: Any, above: tuple[str, ...]) -> Any:
    """The names of nested records, one path per record."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _walk(branch, above)
    elif isinstance(schema, str):
        if schema in above:
            yield (*above, schema)
    elif schema["type"] == "record":
        yield (*above, schema["name"])
        for field in schema["fields"]:
            yield from _walk(field["type"], (*above, schema["name"]))
    elif schema["type"] in ("array", "map"):
        yield from _walk(schema.get("items", schema.get("values")), above)


def _items(schema: Any) -> Any:
    """The item schemas of every array."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _items(branch)
    elif isinstance(schema, dict):
        if schema["type"] == "array":
            yield schema["items"]
        for inner in (schema.get("items"), schema.get("values"), *[f["type"] for f in schema.get("fields", ())]):
            yield from _items(inner)


def _least_bytes(schema: Any, whole: Any) -> int:
    if isinstance(schema, list):
        return 1
    if isinstance(schema, dict):
        if schema["type"] == "record":
            return sum(_least_bytes(field["type"], whole) for field in schema["fields"])
        if schema["type"] == "fixed":
            return int(schema["size"])
        return _least_bytes(schema["type"], whole)
    return 0 if schema == "null" else 1
