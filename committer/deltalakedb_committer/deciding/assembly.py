"""From chunks to one whole transaction, and whether the chunks are what their digest says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from deltalakedb.codec import decode_content
from deltalakedb.errors import Reason
from deltalakedb.events import Content, ReadSet, StagedTransaction, TableWork
from deltalakedb.ids import digest

from .chunks import StagedChunk, StagedChunks
from .quotas import too_many_chunks
from .refusal import Refused
from .rules import Rules
from .staged_files import encoded_head


def assemble(
    event: StagedTransaction, staged: StagedChunks, rules: Rules, *, position: int
) -> Content | StagedChunk | None:
    """The whole transaction if `event` completes it, else the chunk to keep, or None if it is kept already.

    Of a big one every chunk is kept, the last one too. `position` is the record's, `staged` are the chunks of the
    transaction that came before. Raises `Refused`: `LIMIT_EXCEEDED`, or
    `CONTENT_MISMATCH` where two chunks cannot be of one transaction or their digest is not that of their bytes.
    """
    envelope = event.envelope
    if not 1 <= envelope.chunk_count <= rules.max_chunks:
        raise too_many_chunks(envelope.chunk_count, rules)
    if not 0 <= envelope.chunk_index < envelope.chunk_count:
        raise Refused(
            Reason.CONTENT_MISMATCH,
            f"a chunk says that it is number {envelope.chunk_index} of {envelope.chunk_count}, counted from 0",
        )
    if len(event.content_bytes) > rules.max_chunk_bytes:
        raise Refused(
            Reason.LIMIT_EXCEEDED,
            f"a chunk has {len(event.content_bytes)} bytes; {rules.max_chunk_bytes} are allowed",
        )
    if envelope.chunk_count == 1:
        if digest([event.content_bytes]) != envelope.digest:
            raise _not_the_digest()
        return merged([event.content])
    chunk = StagedChunk(
        index=envelope.chunk_index,
        count=envelope.chunk_count,
        digest=envelope.digest,
        chunk_digest=hashlib.sha256(event.content_bytes).digest(),
        size=len(event.content_bytes),
        position=position,
        client_id=envelope.client_id,
        outcome_partition=envelope.outcome_partition,
        content=event.content_bytes,
        head=encoded_head(event.content) if rules.is_big(envelope.chunk_count) else None,
    )
    if staged and (staged.one.count, staged.one.digest) != (chunk.count, chunk.digest):
        raise Refused(
            Reason.CONTENT_MISMATCH,
            f"chunk {chunk.index} belongs to another content than chunk {min(staged)}, which came before under the same "
            "transaction id; send every transaction under an id of its own",
        )
    if chunk.index in staged:
        if staged[chunk.index].chunk_digest != chunk.chunk_digest:
            raise Refused(
                Reason.CONTENT_MISMATCH, f"chunk {chunk.index} came before under the same id, with other bytes"
            )
        return None
    if staged.size + chunk.size > rules.max_transaction_bytes:
        raise Refused(
            Reason.LIMIT_EXCEEDED,
            f"the transaction has more than {rules.max_transaction_bytes} bytes; split it into several",
        )
    if chunk.head is not None and staged.head_bytes + len(chunk.head) > rules.max_head_bytes:
        raise Refused(
            Reason.LIMIT_EXCEEDED,
            f"the transaction has more than {rules.max_head_bytes} bytes besides the files that it adds and removes; "
            "split it into several",
        )
    if len(staged) + 1 < chunk.count:
        return chunk
    together = {**staged, chunk.index: chunk}
    _check_digest(together)
    if chunk.head is not None:
        return chunk
    return merged(
        event.content if index == chunk.index else decode_content(together[index].content or b"")
        for index in sorted(together)
    )


def assembled(chunks: StagedChunks) -> Content:
    """The big transaction that these are all chunks of: without adds and removes, unless the contents of all of them
    are at hand. Raises `Refused` as `merged`."""
    ordered = [chunks[index] for index in sorted(chunks)]
    if all(chunk.content is not None for chunk in ordered):
        return merged(decode_content(chunk.content or b"") for chunk in ordered)
    return merged(decode_content(chunk.head or b"") for chunk in ordered)


def merged(contents: Iterable[Content]) -> Content:
    """One content out of several in order: what is said of one table in several places is put together.

    The first place says everything but files and actions, and every later one says the same or nothing.
    """
    first, *others = contents
    if not others and len({work.key for work in first.tables}) == len(first.tables):
        return first
    tables: dict[tuple[str | None, str | None], list[TableWork]] = {}
    for content in (first, *others):
        for work in content.tables:
            tables.setdefault(work.key, []).append(work)
        if content is not first and not _says_nothing_else(content, first, _CONTENT_FIELDS):
            raise Refused(
                Reason.CONTENT_MISMATCH,
                "a later chunk names another isolation, application, user metadata or engine than the first",
            )
    return msgspec.structs.replace(first, tables=tuple(_merged_work(works) for works in tables.values()))


_CONTENT_FIELDS = ("isolation", "apps", "user_metadata", "engine_info")
_WORK_FIELDS = (
    "read_version",
    "written_against",
    "operation",
    "operation_parameters",
    "operation_metrics",
    "intents",
)
_LISTS = ("adds", "removes", "cdc", "others")
_NO_CONTENT = Content(tables=())
_NO_WORK = TableWork()


def _check_digest(chunks: Mapping[int, StagedChunk]) -> None:
    ordered = [chunks[index] for index in sorted(chunks)]
    if hashlib.sha256(b"".join(chunk.chunk_digest for chunk in ordered)).digest() != ordered[0].digest:
        raise _not_the_digest()


def _merged_work(works: list[TableWork]) -> TableWork:
    first = works[0]
    if len(works) == 1:
        return first
    for later in works[1:]:
        if not _says_nothing_else(later, first, _WORK_FIELDS):
            raise Refused(
                Reason.CONTENT_MISMATCH,
                "a later part about the same table says more than further files, actions and files read",
                table=first.name or first.id,
            )
    lists = {name: tuple([item for work in works for item in getattr(work, name)]) for name in _LISTS}
    return msgspec.structs.replace(first, read_set=_merged_reads([work.read_set for work in works]), **lists)


def _merged_reads(parts: list[ReadSet | None]) -> ReadSet | None:
    given = [part for part in parts if part is not None]
    if len(given) <= 1:
        return given[0] if given else None
    return ReadSet(
        whole_table=any(part.whole_table for part in given),
        files=tuple([path for part in given for path in part.files]),
        predicates=tuple([predicate for part in given for predicate in part.predicates]),
        app_ids=tuple([app_id for part in given for app_id in part.app_ids]),
    )


def _says_nothing_else(later: msgspec.Struct, first: msgspec.Struct, fields: tuple[str, ...]) -> bool:
    nothing = _NO_CONTENT if isinstance(later, Content) else _NO_WORK
    return all(getattr(later, name) in (getattr(first, name), getattr(nothing, name)) for name in fields)


def _not_the_digest() -> Refused:
    return Refused(Reason.CONTENT_MISMATCH, "the bytes of the transaction are not those that its digest was taken over")
