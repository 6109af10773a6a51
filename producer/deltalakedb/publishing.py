"""From a transaction's content to the records that are published: encoded once, cut into chunks where it is large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from .codec import content_digest, encode_chunk, encode_content, headers
from .errors import TxnLogValidationError
from .eventlog import Message
from .events import Content, Envelope, ReadSet, TableWork

MAX_CHUNK_BYTES: Final = 900_000
"""Encoded content of one chunk: what the rules allow, and with its envelope below what a record may have."""
_LISTS = ("adds", "removes", "cdc", "others")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who publishes to which lake, and where the answer goes."""

    lake_id: str
    root: str
    client_id: str
    outcome_partition: int


def messages(txn_id: str, content: Content, sender: Sender) -> list[Message]:
    """The records of one transaction, always the same for the same content.

    Raises `TxnLogValidationError` if a single action is larger than a chunk, or a value cannot be written.
    """
    chunks = [encode_content(content)]
    if len(chunks[0]) > MAX_CHUNK_BYTES:
        # Pieces of half a chunk: files differ in size.
        chunks = _encoded(_pieces(content, -(-len(chunks[0]) * 2 // MAX_CHUNK_BYTES)))
    digest = content_digest(chunks)
    found = []
    for index, chunk in enumerate(chunks):
        envelope = Envelope(
            txn_id=txn_id,
            chunk_index=index,
            chunk_count=len(chunks),
            digest=digest,
            lake_id=sender.lake_id,
            root=sender.root,
            client_id=sender.client_id,
            outcome_partition=sender.outcome_partition,
        )
        found.append(Message(encode_chunk(envelope, chunk), headers(envelope)))
    return found


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


def _encoded(parts: Sequence[Content]) -> list[bytes]:
    """Each part encoded; one that is still too large is cut again."""
    chunks: list[bytes] = []
    todo = list(reversed(parts))
    while todo:
        part = todo.pop()
        data = encode_content(part)
        if len(data) <= MAX_CHUNK_BYTES:
            chunks.append(data)
            continue
        cut = _pieces(part, 2)
        if len(cut) == 1:
            raise TxnLogValidationError(
                f"something in the transaction that cannot be cut has {len(data):,} bytes; {MAX_CHUNK_BYTES:,} fit "
                "into one record"
            )
        todo += reversed(cut)
    return chunks


def _cuts(items: tuple[Any, ...], step: int) -> list[tuple[Any, ...]]:
    return [items[start : start + step] for start in range(0, len(items), step)]


def _length(work: TableWork) -> int:
    files = 0 if work.read_set is None else len(work.read_set.files)
    return files + sum(len(getattr(work, name)) for name in _LISTS)
