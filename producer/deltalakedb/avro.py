"""Avro's binary form of numbers, texts and what is made of them, for events of which there is one per transaction.

fastavro looks at every value of a record to see which branch of its schema it is; whoever knows that beforehand writes
it in a third of the time. Reading is fastavro's, and so shows that what is written here is what the schema says.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

NULL: Final = b"\x00"
"""The first branch of a union, which is null in all of ours."""
VALUE: Final = b"\x02"
"""The second one; its value follows."""
END: Final = b"\x00"
"""Of an array."""
_SHORT: Final = [bytes((number,)) for number in range(0x80)]


def long(value: int) -> bytes:
    """A number: zigzag, then seven bits to a byte. Raises `OverflowError` if it has more than 64 bits."""
    left = value << 1 if value >= 0 else ~(value << 1)
    if left < 0x80:
        return _SHORT[left]
    if left >> 64:
        raise OverflowError(f"{value} has more than 64 bits")
    out = bytearray()
    while left >= 0x80:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def boolean(value: bool) -> bytes:
    """True or false."""
    return b"\x01" if value else b"\x00"


def text(value: str) -> bytes:
    """A text: its length in bytes of UTF-8, and these."""
    data = value.encode()
    return long(len(data)) + data


known_text = lru_cache(maxsize=4096)(text)
"""The same for a text that comes again and again."""


def optional_text(value: str | None) -> bytes:
    """A union of null and text."""
    return NULL if value is None else VALUE + text(value)
