"""Everything that a running stack tells, keeps or shows, to be searched for its secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import boto3
import psycopg
from psycopg import sql

from deltalakedb.eventlog import EventLog, Stream, open_event_log
from deltalakedb.settings import load_settings
from tests.containers import engine
from tests.containers.stack import Stack
from tests.http import get

PASSWORDS = ("postgres-", "s3-", "kafka-")
UNAVOIDABLE = ("processes of s3", "s3-root")
"""The gateway takes its root key from its environment only, where root and its own user can see it."""


def secrets(stack: Stack) -> dict[str, bytes]:
    """Every secret of the stack by its file: passwords, and of keys a line that no other has."""
    found = {}
    for file in stack.secrets.iterdir():
        if file.name.startswith(PASSWORDS) and file.suffix != ".pem":
            found[file.name] = file.read_bytes().strip()
        elif b"PRIVATE KEY" in (text := file.read_bytes()):
            found[file.name] = text.partition(b"PRIVATE KEY-----")[2].split()[0]
    return found


def shown(stack: Stack) -> dict[str, bytes]:
    """What the engine, the containers' processes, their logs and their HTTP tell, by where."""
    services = stack.compose("ps", "--all", "--services").split()
    told = {f"inspect {service}": json.dumps(stack.inspect(service)).encode() for service in services}
    told["logs"] = stack.compose("logs", "--no-color").encode()
    for service in stack.compose("ps", "--services").split():
        told[f"processes of {service}"] = b"".join(_processes(stack.container(service)))
    for variable in ("COMMITTER_PORT", "STANDBY_PORT", "MIRROR_PORT"):
        for path in ("/metrics", "/health", "/ready"):
            told[f"{variable} {path}"] = get(stack.port(variable), path)[1].encode()
    return told


def kept(stack: Stack, log: EventLog) -> dict[str, bytes]:
    """What the lake keeps: rows of every SQL table, every record of the log, every object at S3; by where.

    With the settings of a client in the environment, as the stack prints them.
    """
    with psycopg.connect(stack.store("owner")) as owner:
        names = [name for (name,) in owner.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'lake'")]
        rows = {
            name: owner.execute(
                sql.SQL("SELECT * FROM {}").format(sql.Identifier("lake", name)), binary=True
            ).fetchall()
            for name in names
        }
    found = {f"SQL {name}": b"\n".join(map(_bytes, (v for row in of for v in row))) for name, of in rows.items()}
    for stream in Stream:
        found[f"log {stream}"] = b"\n".join(_records(log, stream))
    storage = load_settings().storage.boto3() | {
        "aws_access_key_id": "reader",
        "aws_secret_access_key": stack.secret("s3-reader"),
    }
    client = boto3.client("s3", **storage)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="lake")
    for key in (item["Key"] for page in pages for item in page.get("Contents", ())):
        found[f"s3 {key}"] = key.encode() + client.get_object(Bucket="lake", Key=key)["Body"].read()
    return found


def open_log(stack: Stack, user: str, settings: dict[str, str]) -> EventLog:
    """The stack's log, with a client's settings and the password of another of its users."""
    options = json.loads(settings["DELTALAKEDB_LOG_OPTIONS"])
    if "sasl.username" in options:
        options |= {"sasl.username": user, "sasl.password": stack.secret(f"kafka-{user}")}
    return open_event_log("kafka://kafka:9092/lake", options=options, reads_only=True)


def _processes(container: str) -> Iterator[bytes]:
    for pid in engine.docker("top", container, "-eo", "pid").split()[1:]:
        for file in ("cmdline", "environ"):
            # Health checks come and go.
            with suppress(FileNotFoundError, ProcessLookupError):
                yield Path("/proc", pid, file).read_bytes() + b"\n"


def _records(log: EventLog, stream: Stream) -> Iterator[bytes]:
    for partition in range(log.partitions(stream)):
        end = log.end(stream, partition=partition)
        position = log.beginning(stream, partition=partition)
        with closing(log.reader(stream, position, partition=partition)) as reader:
            while position < end:
                for record in reader.read(1_000, 60.0):
                    yield record.value
                    yield from (value for _, value in record.headers)
                    position = record.next_position


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
