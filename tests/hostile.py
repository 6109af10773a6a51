"""A client that wants the lake for itself: floods its log with big records, garbage and transactions that never end.

Usage: `python -m tests.hostile LOG LAKE ROOT CLIENT_ID`. It says each second, as a JSON line, how many records and bytes the
broker has taken, and goes on until it is ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import NamedTuple, Self

from confluent_kafka import KafkaError, Message, Producer

from deltalakedb.actions import AddFile
from deltalakedb.codec import content_digest, encode_chunk, encode_content, transaction_headers
from deltalakedb.eventlog.port import MAX_RECORD_BYTES, Stream
from deltalakedb.events import Content, Envelope, TableWork

OPENED, GARBAGE = 100, 200
"""Records of either kind that it sends with each big one."""


class Taken(NamedTuple):
    """What the broker has taken of it."""

    seconds: float
    records: int
    bytes: int


class Hostile:
    """The client, in a process of its own while the block lasts."""

    def __init__(self, log: str, lake_id: str, root: str, client_id: str, output: Path) -> None:
        self._command = [sys.executable, "-m", "tests.hostile", log, lake_id, root, client_id]
        self._output = output

    def taken(self) -> Taken:
        """So far."""
        lines = self._output.read_text().split("\n")[:-1]
        return Taken(**json.loads(lines[-1])) if lines else Taken(0, 0, 0)

    def __enter__(self) -> Self:
        with self._output.open("wb") as out:
            self._process = subprocess.Popen(self._command, stdout=out)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def main(log: str, lake_id: str, root: str, client_id: str) -> None:
    servers, _, prefix = log.removeprefix("kafka://").partition("/")
    producer = Producer(
        {"bootstrap.servers": servers, "client.id": client_id, "queue.buffering.max.messages": 2 * (OPENED + GARBAGE)}
    )
    topic = f"{prefix.removesuffix('.')}.{Stream.STAGED}"
    began = told = time.monotonic()
    records = size = 0

    def taken(error: KafkaError | None, message: Message) -> None:
        nonlocal records, size
        if error is None:
            records, size = records + 1, size + len(message.value() or b"")

    def send(value: bytes, headers: list[tuple[str, str | bytes | None]]) -> None:
        nonlocal told
        while True:
            if time.monotonic() - told >= 1:
                told = time.monotonic()
                sys.stdout.write(json.dumps(Taken(told - began, records, size)._asdict()) + "\n")
                sys.stdout.flush()
            try:
                producer.produce(topic, value, partition=0, headers=headers, on_delivery=taken)
            except BufferError:
                producer.poll(0.1)
            else:
                producer.poll(0)
                return

    file = AddFile(path="f.parquet", partition_values={}, size=1, modification_time=1)
    content = encode_content(Content(tables=(TableWork(name="nothing", adds=(file,)),)))
    while True:
        send(os.urandom(MAX_RECORD_BYTES - 1_000), [])
        for _ in range(OPENED):
            envelope = Envelope(
                txn_id=str(uuid.uuid4()),
                chunk_count=2,
                digest=content_digest([content, content]),
                lake_id=lake_id,
                root=root,
                client_id=client_id,
            )
            send(encode_chunk(envelope, content), [*transaction_headers(envelope)])
        for _ in range(GARBAGE):
            send(os.urandom(100), [])


if __name__ == "__main__":
    main(*sys.argv[1:])
