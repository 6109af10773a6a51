"""A checker of histories in which transactions append unique elements to tables and read whole tables: is there one order?

The order of each table's elements is known, because it has versions, so every dependency is: who wrote what came next
(ww), who read what somebody wrote (wr), who read before somebody wrote (rw), who had ended before somebody began (rt).
A history is strictly serialisable if nothing is lost, torn, repeated or made up, and no dependencies make a circle.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Seen:
    """What of a table has been seen: that many elements, in this order."""

    count: int = 0
    digest: bytes = b""

    def then(self, element: str) -> Seen:
        """With one more element."""
        return Seen(self.count + 1, hashlib.blake2b(self.digest + element.encode(), digest_size=8).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Txn:
    """One transaction, as its client knows it. What it appends to each of `writes` is its id."""

    txn_id: str
    began: float
    ended: float = math.inf
    """When its client knew the outcome."""
    reads: Mapping[str, Seen] = field(default_factory=dict)
    """By table."""
    writes: Sequence[str] = ()
    committed: bool | None = True
    """None: its client was never told."""


def violations(order: Mapping[str, Sequence[str]], txns: Sequence[Txn]) -> list[str]:
    """What is wrong with a history; `order` has the elements of each table in the order of its versions."""
    return [*_content(order, txns), *_reads(order, txns), *_circles(order, txns)]


def _content(order: Mapping[str, Sequence[str]], txns: Sequence[Txn]) -> Iterator[str]:
    by_id = {txn.txn_id: txn for txn in txns}
    there: dict[str, set[str]] = {}
    for table, elements in order.items():
        if len(set(elements)) < len(elements):
            yield f"duplicate: {table} has an element twice"
        for element in elements:
            there.setdefault(element, set()).add(table)
            if element not in by_id or table not in by_id[element].writes:
                yield f"made up: nobody appended {element} to {table}"
            elif by_id[element].committed is False:
                yield f"aborted: {element} was rejected and is in {table}"
    for txn in txns:
        found = there.get(txn.txn_id, set())
        if txn.committed and txn.writes and not found:
            yield f"lost: {txn.txn_id} is committed and in no table"
        elif found and found != set(txn.writes):
            yield f"torn: {txn.txn_id} is in {sorted(found)} of {sorted(txn.writes)}"


def _reads(order: Mapping[str, Sequence[str]], txns: Sequence[Txn]) -> Iterator[str]:
    seen: dict[str, list[Seen]] = {}
    for table, elements in order.items():
        states = seen.setdefault(table, [Seen()])
        for element in elements:
            states.append(states[-1].then(element))
    for txn in txns:
        for table, read in txn.reads.items():
            if read.count >= len(seen[table]) or seen[table][read.count] != read:
                yield f"misread: {txn.txn_id} saw {read.count} elements of {table} that are not its first ones"


def _circles(order: Mapping[str, Sequence[str]], txns: Sequence[Txn]) -> Iterator[str]:
    there = {element for elements in order.values() for element in elements}
    happened = [txn for txn in txns if txn.committed or (txn.committed is None and txn.txn_id in there)]
    number = {txn.txn_id: n for n, txn in enumerate(happened)}
    # Between the transactions that ended before a moment and those that began after it lies a node for the moment.
    ends = sorted(txn.ended for txn in happened if txn.ended < math.inf)
    edges: list[list[int]] = [[] for _ in range(len(happened) + len(ends))]
    for moment in range(len(ends) - 1):
        edges[len(happened) + moment].append(len(happened) + moment + 1)
    for n, txn in enumerate(happened):
        if txn.ended < math.inf:
            edges[n].append(len(happened) + bisect_left(ends, txn.ended))
        if before := bisect_left(ends, txn.began):
            edges[len(happened) + before - 1].append(n)
    for table, elements in order.items():
        writers = [number[element] for element in elements if element in number]
        for one, two in pairwise(writers):
            edges[one].append(two)
        for n, txn in enumerate(happened):
            if table in txn.reads:
                count = min(txn.reads[table].count, len(writers))
                if count and writers[count - 1] != n:
                    edges[writers[count - 1]].append(n)
                if count < len(writers) and writers[count] != n:
                    edges[n].append(writers[count])
    for circle in _components(edges):
        names = [happened[n].txn_id for n in circle if n < len(happened)]
        yield f"circle: {len(names)} transactions have no order among them: {', '.join(names[:6])}"


def _components(edges: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The strongly connected components of more than one node, by Tarjan, without recursion."""
    index = [-1] * len(edges)
    low = [0] * len(edges)
    on_stack = [False] * len(edges)
    stack: list[int] = []
    count = 0
    for root in range(len(edges)):
        if index[root] >= 0:
            continue
        work = [(root, 0)]
        while work:
            node, at = work.pop()
            if at == 0:
                index[node] = low[node] = count
                count += 1
                stack.append(node)
                on_stack[node] = True
            elif on_stack[child := edges[node][at - 1]]:
                low[node] = min(low[node], low[child])
            for position in range(at, len(edges[node])):
                child = edges[node][position]
                if index[child] < 0:
                    work += [(node, position + 1), (child, 0)]
                    break
                if on_stack[child]:
                    low[node] = min(low[node], index[child])
            else:
                if low[node] == index[node]:
                    found = stack[stack.index(node) :] if stack[-1] != node else [node]
                    del stack[len(stack) - len(found) :]
                    for each in found:
                        on_stack[each] = False
                    if len(found) > 1:
                        yield found
