"""Events to Avro bytes and back: single-object encoding, an allow-list of schemas, strict decoding with limits.

The one module that imports fastavro. A value starts with C3 01 and the 8-byte fingerprint (CRC-64-AVRO, little endian)
of its writer schema; the fingerprint selects one of the schemas this release knows, never one that came with the data.

What a transaction does is JSON within its event, and so is what comes of it. It was Avro in the first versions of the
schemas, which are read as ever.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, Final, TypeVar

import fastavro
import msgspec
from fastavro.schema import fingerprint, to_parsing_canonical_form

from deltalakedb_schemas import NAMES, load_schema

from . import events
from .errors import TxnLogDecodeError, TxnLogValidationError
from .eventlog.port import MAX_RECORD_BYTES, Headers
from .events import Commit, Completion, Control, Event, ImportedVersion, Outcome, StagedTransaction, Told
from .ids import digest

MARKER: Final = b"\xc3\x01"
DIGEST_BYTES: Final = 32
HEADER_TXN: Final = "dl-txn"
HEADER_OUTCOME: Final = "dl-outcome"
HEADER_CHUNK: Final = "dl-chunk"
HEADER_CLIENT: Final = "dl-client"
HEADER_COMPLETES: Final = "dl-completes"
HEADER_POSITION: Final = "dl-position"
HEADER_ERROR: Final = "dl-error"
HEADER_ISOLATED: Final = "dl-isolated"

_PREFIX = len(MARKER) + 8
_NAMESPACE = "deltalakedb.v1"
_JSON = b"{"
"""How content in JSON begins; content in Avro begins with a byte of 0 or 2."""
_ONE_ID, _ONE_CHUNK = b"\x48", b"\x00\x02"
"""The length of an id, and that a chunk is number 0 of 1, in Avro."""
_ONE_CHUNK_AT = _PREFIX + 37
_TEXTS_AT = _ONE_CHUNK_AT + len(_ONE_CHUNK) + DIGEST_BYTES
_CONTENT = msgspec.json.Decoder(events.Content)
_TOLD: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "commit": msgspec.json.Decoder(tuple[Commit, ...]),
    "outcome": msgspec.json.Decoder(tuple[Outcome, ...]),
}
_TOLD_BYTES = 256 * 1024
"""Of events that one record tells, unless it is one."""
_UNWRITABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError)
"""What a value that does not fit its schema raises."""
_T = TypeVar("_T")


class _Schema:
    """A released schema, parsed once; envelope and content apart where the content's bytes matter by themselves."""

    def __init__(self, name: str) -> None:
        schema = load_schema(name)
        canonical = to_parsing_canonical_form(schema)
        self.name = name
        self.event = name.split(".")[0]
        self.marker = MARKER + bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))
        self.whole = fastavro.parse_schema(schema)
        parsed: Any = self.whole
        fields = {field["name"]: field["type"] for field in parsed["fields"]}
        self.envelope = fastavro.parse_schema(fields["envelope"]) if "envelope" in fields else None
        self.content = fastavro.parse_schema(fields["content"]) if "envelope" in fields else None


@cache
def _by_name(name: str) -> _Schema:
    return _Schema(name)


@cache
def _by_marker() -> dict[bytes, _Schema]:
    return {schema.marker: schema for schema in map(_by_name, NAMES)}


def encode_content(content: events.Content) -> bytes:
    """The bytes of a transaction's content: what its digest is taken over and what is staged.

    Raises `TxnLogValidationError` where a value is none of its field's type.
    """
    try:
        data = msgspec.json.encode(content)
        # Nobody has looked at these values yet, and whoever reads them will not take them otherwise.
        _CONTENT.decode(data)
    except (msgspec.MsgspecError, *_UNWRITABLE) as error:
        raise TxnLogValidationError(f"cannot be written as an event: {error}") from error
    return data


def encode_chunk(envelope: events.Envelope, content: bytes) -> bytes:
    """One staged-transaction event from its envelope and its content as `encode_content` gave it.

    Raises `TxnLogValidationError` if the event would be larger than a log record may be.
    """
    try:
        value = b"".join((_by_name("staged_transaction.v2").marker, _envelope(envelope), _long(len(content)), content))
    except _UNWRITABLE as error:
        raise TxnLogValidationError(f"cannot be written as an event: {error}") from error
    if len(value) > MAX_RECORD_BYTES:
        raise TxnLogValidationError(
            f"a staged event has {len(value)} bytes; a log record has {MAX_RECORD_BYTES} at most"
        )
    return value


def decode_content(data: bytes) -> events.Content:
    """A staged transaction's content from its bytes alone (as staged in SQL). Raises `TxnLogDecodeError`."""
    if data.startswith(_JSON):
        try:
            return _CONTENT.decode(data)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise TxnLogDecodeError(f"not a valid Content: {error}") from error
    schema = _by_name("staged_transaction.v1")
    return _content(_decode(schema.content, io.BytesIO(data), len(data)))


def encode(event: ImportedVersion | Control | Completion) -> bytes:
    """A whole event to bytes. Staged transactions are made of chunks: `encode_content`, `encode_chunk`."""
    if isinstance(event, ImportedVersion):
        return encode_imported_chunk(event.envelope, event.content_bytes)
    plain = msgspec.to_builtins(event)
    if isinstance(event, Completion):
        schema = _by_name("completion.v1")
    else:
        schema = _by_name("control.v1")
        plain["command"] = _branch(plain["command"])
    return schema.marker + _encode(schema.whole, plain)


def encode_told(told: Sequence[Commit] | Sequence[Outcome]) -> list[bytes]:
    """The records that tell `told`, all of one kind and in order. For each of many events one record would cost more to
    send, to store and to read than what it says.

    Raises `TxnLogValidationError` where a value is none of its field's type.
    """
    records: list[bytes] = []
    items: list[bytes] = []
    size = 0
    for event in told:
        item = _json(event)
        if items and size + len(item) > _TOLD_BYTES:
            records.append(_told(told, items))
            items, size = [], 0
        items.append(item)
        size += len(item) + 1
    if items:
        records.append(_told(told, items))
    return records


def encode_imported_content(content: events.ImportedContent) -> bytes:
    """The bytes of an imported version's content, as `encode_content` for transactions."""
    return _encode(_by_name("imported_version.v1").content, msgspec.to_builtins(content))


def encode_imported_chunk(envelope: events.Envelope, content: bytes) -> bytes:
    """One imported-version event from its envelope and its content as `encode_imported_content` gave it."""
    schema = _by_name("imported_version.v1")
    return schema.marker + _encode(schema.envelope, msgspec.structs.asdict(envelope)) + content


def decode(value: bytes) -> Event:
    """The event to be decided that `value` is. Raises `TxnLogDecodeError` for anything else: another event, unknown
    schema, truncated, trailing bytes."""
    schema, stream = _opened(value)
    if schema.event in _TOLD:
        raise TxnLogDecodeError(f"a record of schema {schema.event} tells what was decided: there is nothing to decide")
    if schema.name == "staged_transaction.v2":
        usual = _usual(value)
        if usual is not None:
            envelope, data = usual
            return StagedTransaction(envelope=envelope, content=decode_content(data), content_bytes=data)
        plain = _decode(schema.whole, stream, len(value))
        data = plain["content"]
        if not data.startswith(_JSON):
            raise TxnLogDecodeError("its content is no JSON object")
        envelope = _convert(plain["envelope"], events.Envelope)
        return StagedTransaction(envelope=envelope, content=decode_content(data), content_bytes=data)
    if schema.envelope is not None:
        envelope = _convert(_decode(schema.envelope, stream, None), events.Envelope)
        content_bytes = value[stream.tell() :]
        content = _decode(schema.content, stream, len(value))
        if schema.event == "staged_transaction":
            return StagedTransaction(envelope=envelope, content=_content(content), content_bytes=content_bytes)
        imported = _convert(content, events.ImportedContent)
        return ImportedVersion(envelope=envelope, content=imported, content_bytes=content_bytes)
    plain = _decode(schema.whole, stream, len(value))
    if schema.event == "completion":
        return _convert(plain, Completion)
    plain["command"] = _tagged(*plain["command"])
    return _convert(plain, Control)


def decode_told(value: bytes) -> Told:
    """The events that a record tells, in order. Raises `TxnLogDecodeError` as `decode`."""
    schema, stream = _opened(value)
    if schema.event not in _TOLD:
        raise TxnLogDecodeError(f"a record of schema {schema.event} tells nothing: it is to be decided")
    plain = _decode(schema.whole, stream, len(value))
    if schema.name == "commit.v1":
        return (_convert(plain, Commit),)
    if schema.name == "outcome.v1":
        return (_convert(plain, Outcome),)
    try:
        told: Told = _TOLD[schema.event].decode(plain["content"])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise TxnLogDecodeError(f"not valid {schema.event}s: {error}") from error
    return told


def headers(envelope: events.Envelope) -> Headers:
    """Headers that let even an event that cannot be decoded be answered: transaction, outcome partition, chunk."""
    return (
        (HEADER_TXN, envelope.txn_id.encode()),
        (HEADER_OUTCOME, str(envelope.outcome_partition).encode()),
        (HEADER_CHUNK, f"{envelope.chunk_index}/{envelope.chunk_count}".encode()),
    )


def transaction_headers(envelope: events.Envelope) -> Headers:
    """Headers of a staged transaction; of one in several chunks they say whose quota it counts against."""
    whose = ((HEADER_CLIENT, envelope.client_id.encode()),) if envelope.chunk_count != 1 else ()
    return (*headers(envelope), *whose)


def content_digest(chunks: list[bytes]) -> bytes:
    """The digest that every chunk's envelope carries, from all chunks' contents in order."""
    return digest(chunks)


def _opened(value: bytes) -> tuple[_Schema, io.BytesIO]:
    """The schema that a record is of, and its bytes from behind the marker on."""
    schema = _by_marker().get(value[:_PREFIX])
    if schema is None:
        raise TxnLogDecodeError("not an event of a schema that this release knows: wrong marker or fingerprint")
    if len(value) > MAX_RECORD_BYTES:
        raise TxnLogDecodeError(f"{len(value)} bytes; an event has {MAX_RECORD_BYTES} at most")
    stream = io.BytesIO(value)
    stream.seek(_PREFIX)
    return schema, stream


def _json(event: Commit | Outcome) -> bytes:
    try:
        return msgspec.json.encode(event)
    except _UNWRITABLE as error:
        raise TxnLogValidationError(f"cannot be written as an event: {error}") from error


def _told(told: Sequence[Commit] | Sequence[Outcome], items: Sequence[bytes]) -> bytes:
    schema = _by_name("commit.v2" if isinstance(told[0], Commit) else "outcome.v2")
    return schema.marker + _encode(schema.whole, {"content": b"[%b]" % b",".join(items)})


def _encode(schema: Any, plain: Any) -> bytes:
    out = io.BytesIO()
    try:
        fastavro.schemaless_writer(out, schema, plain)
    except _UNWRITABLE as error:
        raise TxnLogValidationError(f"cannot be written as an event: {error}") from error
    return out.getvalue()


def _envelope(envelope: events.Envelope) -> bytes:
    """An envelope in Avro, of which there is one per transaction: fastavro takes four times as long."""
    if len(envelope.digest) != DIGEST_BYTES:
        raise ValueError(f"a digest has {DIGEST_BYTES} bytes, not {len(envelope.digest)}")
    parts = (
        *(_text(envelope.txn_id), _long(envelope.chunk_index), _long(envelope.chunk_count), envelope.digest),
        *(_known_text(envelope.lake_id), _known_text(envelope.root), _known_text(envelope.client_id)),
        _long(envelope.outcome_partition),
    )
    return b"".join(parts)


def _usual(value: bytes) -> tuple[events.Envelope, bytes] | None:
    """Envelope and content of a staged transaction as nearly all are: one chunk, an id of 36 characters, other texts
    of less than 64 bytes. fastavro takes three times as long. None: ask that, which also says what is wrong."""
    try:
        if not value.startswith(_ONE_ID, _PREFIX) or not value.startswith(_ONE_CHUNK, _ONE_CHUNK_AT):
            return None
        texts: list[str] = []
        at = _TEXTS_AT
        for _ in range(3):
            size = value[at]
            if size & 0x81:
                return None
            end = at + 1 + (size >> 1)
            texts.append(value[at + 1 : end].decode())
            at = end
        partition = value[at]
        at += 1
        size = shift = 0
        while True:
            byte = value[at]
            at += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if partition & 0x80 or size != 2 * (len(value) - at) or not value.startswith(_JSON, at):
            return None
        envelope = events.Envelope(
            txn_id=value[_PREFIX + 1 : _ONE_CHUNK_AT].decode(),
            digest=value[_TEXTS_AT - DIGEST_BYTES : _TEXTS_AT],
            lake_id=texts[0],
            root=texts[1],
            client_id=texts[2],
            outcome_partition=(partition >> 1) ^ -(partition & 1),
        )
    except (IndexError, UnicodeError):
        return None
    return envelope, value[at:]


@lru_cache(maxsize=4096)
def _long(value: int) -> bytes:
    """A number in Avro: zigzag, then seven bits to a byte."""
    left = value << 1 if value >= 0 else ~(value << 1)
    out = bytearray()
    while left >= 0x80:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _text(value: str) -> bytes:
    """A text in Avro: its length in bytes of UTF-8, and these."""
    data = value.encode()
    return _long(len(data)) + data


_known_text = lru_cache(maxsize=4096)(_text)
"""The same for a text that comes again and again."""


def _decode(schema: Any, stream: io.BytesIO, size: int | None) -> Any:
    """Read one value; with `size`, the stream must end with it. fastavro answers bad bytes with many exceptions."""
    try:
        plain = fastavro.schemaless_reader(
            stream, schema, None, return_record_name=True, return_record_name_override=True
        )
    except Exception as error:
        raise TxnLogDecodeError(f"cannot be decoded: {type(error).__name__}: {error}") from error
    if size is not None and stream.tell() != size:
        raise TxnLogDecodeError(f"{size - stream.tell()} bytes follow the event")
    return plain


def _convert(plain: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise TxnLogDecodeError(f"not a valid {kind.__name__}: {error}") from error


def _content(plain: dict[str, Any]) -> events.Content:
    for table in plain["tables"]:
        table["intents"] = [_tagged(*intent) for intent in table["intents"]]
    return _convert(plain, events.Content)


def _branch(plain: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A tagged value as fastavro names a union's branch."""
    return f"{_NAMESPACE}.{plain.pop('type')}", plain


def _tagged(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `_branch`."""
    return {"type": name.removeprefix(f"{_NAMESPACE}."), **fields}
