"""From a transaction's content to the records that are published: encoded once, cut into chunks where it is large."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from .codec import encode_chunk, encode_content, transaction_headers
from .errors import TxnLogValidationError
from .eventlog import Message
from .events import Content, Envelope, ReadSet, TableWork

MAX_CHUNK_BYTES: Final = 900_000
"""Encoded content of one chunk: what the rules allow, and with its envelope below what a record may have."""
AT_ONCE: Final = 8
"""Chunks of a transaction that are sent all at once; of more than that the committer takes each by itself."""
MANY_FILES: Final = 50_000
"""Of more than that nobody waits to see how large all of them together are."""
PIECE_FILES: Final = 1_500
"""Of those in a piece: as a rule half a chunk, which the committer has taken in a tenth of a second."""
_LISTS = ("adds", "removes", "cdc", "others")


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """Who publishes to which lake, and where the answer goes."""

    lake_id: str
    root: str
    client_id: str
    outcome_partition: int


class Publication(msgspec.Struct, frozen=True):
    """The records of one transaction, always the same for the same content."""

    txn_id: str
    digest: bytes
    count: int
    _content: Content
    _sender: Sender
    _chunks: tuple[bytes, ...] | None
    """None if they are too many to be kept: then they are encoded again."""

    @property
    def is_big(self) -> bool:
        """Whether it is too large to be sent all at once."""
        return self._chunks is None

    def messages(self) -> Iterator[Message]:
        """All of them in order, each made when it is asked for."""
        for index, chunk in enumerate(_chunks(self._content) if self._chunks is None else self._chunks):
            envelope = Envelope(
                txn_id=self.txn_id,
                chunk_index=index,
                chunk_count=self.count,
                digest=self.digest,
                lake_id=self._sender.lake_id,
                root=self._sender.root,
                client_id=self._sender.client_id,
                outcome_partition=self._sender.outcome_partition,
            )
            yield Message(encode_chunk(envelope, chunk), transaction_headers(envelope))


def publication(txn_id: str, content: Content, sender: Sender) -> Publication:
    """The records of the transaction `txn_id`.

    Raises `TxnLogValidationError` if a single action is larger than a chunk, or a value cannot be written.
    """
    kept: list[bytes] = []
    hashes: list[bytes] = []
    for chunk in _chunks(content):
        hashes.append(hashlib.sha256(chunk).digest())
        if len(hashes) <= AT_ONCE:
            kept.append(chunk)
    few = tuple(kept) if len(hashes) <= AT_ONCE else None
    return Publication(txn_id, hashlib.sha256(b"".join(hashes)).digest(), len(hashes), content, sender, few)


def messages(txn_id: str, content: Content, sender: Sender) -> list[Message]:
    """All records of a transaction at once, as `publication`."""
    return list(publication(txn_id, content, sender).messages())


def _chunks(content: Content) -> Iterator[bytes]:
    """The encoded contents of the chunks, one after the other, and the same each time."""
    files = sum(map(_length, content.tables))
    if files > MANY_FILES:
        yield from _encoded(_pieces(content, -(-files // PIECE_FILES)))
        return
    whole = encode_content(content)
    if len(whole) <= MAX_CHUNK_BYTES:
        yield whole
        return
    # Pieces of half a chunk: files differ in size.
    yield from _encoded(_pieces(content, -(-len(whole) * 2 // MAX_CHUNK_BYTES)))


def _pieces(content: Content, ways: int) -> list[Content]:
    """The content cut in about so many pieces: the first says everything but files and actions, if there is anything."""
    firsts: list[TableWork] = []
    pieces: list[TableWork] = []
    step = max(1, -(-sum(map(_length, content.tables)) // ways))
    for work in content.tables:
        files: tuple[str, ...] = () if work.read_set is None else work.read_set.files
        read_set = None if work.read_set is None else msgspec.structs.replace(work.read_set, files=())
        firsts.append(msgspec.structs.replace(work, **dict.fromkeys(_LISTS, ()), read_set=read_set))
        bare = TableWork(name=work.name, id=work.id)
        for name in _LISTS:
            cuts = _cuts(getattr(work, name), step)
            pieces += [msgspec.structs.replace(bare, **{name: cut}) for cut in cuts]
        pieces += [msgspec.structs.replace(bare, read_set=ReadSet(files=cut)) for cut in _cuts(files, step)]
    found = [Content(tables=(piece,)) for piece in pieces]
    first = msgspec.structs.replace(content, tables=tuple(firsts))
    nothing = Content(tables=tuple(TableWork(name=work.name, id=work.id) for work in firsts))
    return found if first == nothing else [first, *found]


def _encoded(parts: Sequence[Content]) -> Iterator[bytes]:
    """Each part encoded; one that is still too large is cut again."""
    todo = list(reversed(parts))
    while todo:
        part = todo.pop()
        data = encode_content(part)
        if len(data) <= MAX_CHUNK_BYTES:
            yield data
            continue
        cut = _pieces(part, 2)
        if len(cut) == 1:
            raise TxnLogValidationError(
                f"something in the transaction that cannot be cut has {len(data):,} bytes; {MAX_CHUNK_BYTES:,} fit "
                "into one record"
            )
        todo += reversed(cut)


def _cuts(items: tuple[Any, ...], step: int) -> list[tuple[Any, ...]]:
    return [items[start : start + step] for start in range(0, len(items), step)]


def _length(work: TableWork) -> int:
    files = 0 if work.read_set is None else len(work.read_set.files)
    return files + len(work.adds) + len(work.removes) + len(work.cdc) + len(work.others)
