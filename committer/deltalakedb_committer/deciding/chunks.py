"""Chunks of a transaction that is not decided yet, as they are staged, and what they come to together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from .parts import ChunkPart

_CHUNK_BYTES: Final = 500
"""About what a chunk takes in memory, beside its head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedChunk:
    """A chunk of an incomplete transaction, as staged in SQL."""

    index: int
    count: int
    digest: bytes
    chunk_digest: bytes
    size: int
    """Of the content."""
    position: int
    """Of its record, as are the next two."""
    client_id: str
    outcome_partition: int
    content: bytes | None
    """None where it is not needed: it lies in SQL."""
    head: bytes | None = None
    """Of a big transaction: the content without adds and removes, encoded."""
    parts: tuple[ChunkPart, ...] | None = None
    """Of a big transaction: its adds and removes, which lie in SQL. None where they are not needed."""

    @property
    def bare(self) -> StagedChunk:
        """Without what lies in SQL."""
        return replace(self, content=None, parts=None)


class StagedChunks(Mapping[int, StagedChunk]):
    """All staged chunks of one transaction, by index. What one more of them needs to know takes no look at every one."""

    __slots__ = ("_chunks", "_heads", "head_bytes", "is_filled", "size")

    def __init__(self, chunks: Iterable[StagedChunk] = ()) -> None:
        self._chunks: dict[int, StagedChunk] = {}
        self._heads: dict[bytes, int] = {}
        self.size = 0
        """Bytes of the contents."""
        self.head_bytes = 0
        """Bytes of the heads, of equal ones too."""
        self.is_filled = False
        """Whether some of them have been given more of what lies in SQL than they were put with."""
        for chunk in chunks:
            self.put(chunk)

    def __getitem__(self, index: int) -> StagedChunk:
        return self._chunks[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._chunks)

    def __len__(self) -> int:
        return len(self._chunks)

    def put(self, chunk: StagedChunk) -> None:
        """Add one that is not there yet."""
        self._chunks[chunk.index] = chunk
        self.size += chunk.size
        if chunk.head is not None:
            self.head_bytes += len(chunk.head)
            self._heads[chunk.head] = min(chunk.index, self._heads.get(chunk.head, chunk.index))

    def fill(self, index: int, **fields: Any) -> None:
        """Give one of them its `content`, or `parts`."""
        self._chunks[index] = replace(self._chunks[index], **fields)
        self.is_filled = True

    @property
    def is_complete(self) -> bool:
        """Whether these are all chunks of their transaction."""
        return bool(self._chunks) and len(self._chunks) == self.one.count

    @property
    def one(self) -> StagedChunk:
        """One of them: all have the same count and digest. There has to be one."""
        return next(iter(self._chunks.values()))

    @property
    def heads(self) -> list[bytes]:
        """What the chunks of a big transaction say besides adds and removes, in their order; equal ones once."""
        return sorted(self._heads, key=self._heads.__getitem__)

    @property
    def kept_bytes(self) -> int:
        """About what they take in memory without what lies in SQL."""
        return _CHUNK_BYTES * len(self._chunks) + self.head_bytes
