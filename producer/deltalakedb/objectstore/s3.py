"""Object store on S3 and what speaks its protocol (boto3). The only module that imports it.

Conditional puts go through a client that sends a request once: if a library repeats a put whose answer was lost, the
second attempt reports that the object is there, although it is our own. Everything else may be repeated and is.
"""

from __future__ import annotations

import functools
import logging
import os
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import stamina
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ProxyConnectionError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from deltalakedb.errors import TxnLogObjectStoreError, redacted
from deltalakedb.storage_options import StorageOptions

from .port import NewObject, Object, ObjectInfo, Put, probe_conditional_puts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

logger = logging.getLogger(__name__)

_PART_BYTES = 32 * 1024 * 1024
"""Larger files go up in parts of this size; only the call that completes them is conditional."""
_DELETE_AT_ONCE = 1_000
_CONNECT_SECONDS = 4
_ANSWER_SECONDS = 20
_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class _Clients:
    """One client that repeats requests, and one that never does."""

    patient: S3Client
    once: S3Client


class S3Store:
    """Objects under one prefix of one bucket."""

    def __init__(self, bucket: str, prefix: str, options: StorageOptions) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._secrets = options.secrets
        self._connection = tuple(sorted(options.boto3().items()))
        self._virtual_hosted = options.virtual_hosted

    @property
    def root(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def probe(self) -> None:
        probe_conditional_puts(self)

    def get(self, path: str) -> Object | None:
        try:
            # The client repeats requests, but not the reading of a body that breaks off.
            for attempt in stamina.retry_context(on=HTTPClientError, attempts=3, timeout=60):
                with attempt:
                    answer = self._clients.patient.get_object(Bucket=self._bucket, Key=self._prefix + path)
                    data = answer["Body"].read()
        except ClientError as error:
            if _code(error) == "NoSuchKey":
                return None
            raise self._failed("read", path, error) from error
        except BotoCoreError as error:
            raise self._failed("read", path, error) from error
        return Object(data, answer["ETag"], int(answer["LastModified"].timestamp() * 1000))

    def info(self, path: str) -> ObjectInfo | None:
        try:
            answer = self._clients.patient.head_object(Bucket=self._bucket, Key=self._prefix + path)
        except ClientError as error:
            # An answer to HEAD has no body, so that a missing bucket cannot be told from a missing object.
            if _code(error) == "404":
                return None
            raise self._failed("look at", path, error) from error
        except BotoCoreError as error:
            raise self._failed("look at", path, error) from error
        return ObjectInfo(path, answer["ContentLength"], int(answer["LastModified"].timestamp() * 1000))

    def put_if_absent(self, objects: Sequence[NewObject]) -> list[Put]:
        results: list[Put] = []
        for new in objects:
            results.append(self._put(new.path, new.data, {"IfNoneMatch": "*"}))
            if results[-1] is not Put.CREATED:
                break
        return results

    def put_if_match(self, path: str, data: bytes, tag: str | None) -> Put:
        return self._put(path, data, {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag})

    def put_file_if_absent(self, path: str, source: Path) -> Put:
        if source.stat().st_size <= _PART_BYTES:
            return self._put(path, source.read_bytes(), {"IfNoneMatch": "*"})
        place: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + path}
        client = self._clients.patient
        try:
            place["UploadId"] = client.create_multipart_upload(**place, ChecksumAlgorithm="CRC32")["UploadId"]
            parts = _upload_parts(client, source, place)
        except (ClientError, BotoCoreError) as error:
            self._abort(place)
            raise self._failed("put", path, error) from error
        answer = self._conditionally(
            path,
            lambda: self._clients.once.complete_multipart_upload(
                **place, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
            ),
        )
        if answer is Put.EXISTS:
            self._abort(place)
        return answer

    def download(self, path: str, target: Path) -> None:
        try:
            for attempt in stamina.retry_context(on=HTTPClientError, attempts=3, timeout=300):
                with attempt, open(target, "wb") as file:
                    answer = self._clients.patient.get_object(Bucket=self._bucket, Key=self._prefix + path)
                    for chunk in answer["Body"].iter_chunks(1 << 20):
                        file.write(chunk)
        except (ClientError, BotoCoreError) as error:
            raise self._failed("download", path, error) from error

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        pages = self._clients.patient.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket,
            Prefix=self._prefix + prefix,
            StartAfter=self._prefix + start_after if start_after else "",
        )
        try:
            for page in pages:
                for item in page.get("Contents", ()):
                    time_ms = int(item["LastModified"].timestamp() * 1000)
                    yield ObjectInfo(item["Key"][len(self._prefix) :], item["Size"], time_ms)
        except (ClientError, BotoCoreError) as error:
            raise self._failed("list", prefix, error) from error

    def delete(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), _DELETE_AT_ONCE):
            some = paths[start : start + _DELETE_AT_ONCE]
            try:
                answer = self._clients.patient.delete_objects(
                    Bucket=self._bucket,
                    Delete={"Objects": [{"Key": self._prefix + path} for path in some], "Quiet": True},
                )
            except (ClientError, BotoCoreError) as error:
                raise self._failed("delete", some[0], error) from error
            for failure in answer.get("Errors", ()):
                if failure.get("Code") != "NoSuchKey":
                    raise TxnLogObjectStoreError(
                        f"cannot delete {failure.get('Key')!r} in s3://{self._bucket}: "
                        f"{failure.get('Code')} {failure.get('Message', '')}"
                    )

    @property
    def _clients(self) -> _Clients:
        return _clients(self._connection, self._virtual_hosted, os.getpid())

    def _put(self, path: str, data: bytes, condition: Mapping[str, str]) -> Put:
        return self._conditionally(
            path,
            lambda: self._clients.once.put_object(
                Bucket=self._bucket,
                Key=self._prefix + path,
                Body=data,
                # Over TLS the library would have it follow the body, in pieces and after asking whether to go on: a round
                # trip more, and gateways that refuse the condition meanwhile and hang up are not heard.
                ChecksumCRC32=b64encode(zlib.crc32(data).to_bytes(4, "big")).decode(),
                **condition,  # type: ignore[arg-type]
            ),
        )

    def _conditionally(self, path: str, request: Any) -> Put:
        try:
            request()
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status == 412:
                return Put.EXISTS
            # 409: another conditional write is under way. 404: with If-Match, the object is gone. 200: an error that
            # came after the headers of a success.
            if _code(error) == "NoSuchKey":
                return Put.EXISTS
            if status in (409, 429) or status < 400 or (status >= 500 and status != 501):
                logger.info("no trustworthy answer to a put of %s: HTTP %s %s", path, status, _code(error))
                return Put.UNKNOWN
            raise self._failed("put", path, error) from error
        except (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError) as error:
            raise self._failed("put", path, error) from error
        except (HTTPClientError, SSLError, ResponseParserError) as error:
            # Of TLS itself only a certificate that is refused says that nothing was sent; any other end may come later.
            if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise self._failed("put", path, error) from error
            logger.info("no answer to a put of %s: %s", path, type(error).__name__)
            return Put.UNKNOWN
        except BotoCoreError as error:
            raise self._failed("put", path, error) from error
        return Put.CREATED

    def _abort(self, place: Mapping[str, Any]) -> None:
        """Free the parts of an upload that will not be completed; what fails here costs space, nothing else."""
        if "UploadId" not in place:
            return
        try:
            self._clients.patient.abort_multipart_upload(**place)
        except (ClientError, BotoCoreError) as error:
            logger.warning("an unfinished upload of %s stays behind: %s", place["Key"], type(error).__name__)

    def _failed(self, what: str, path: str, error: ClientError | BotoCoreError) -> TxnLogObjectStoreError:
        hint = ""
        if isinstance(error, ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status in (401, 403):
                hint = ": check the credentials, their rights on the bucket, and the clock"
            elif _code(error) == "NoSuchBucket":
                hint = ": create the bucket, or correct the root"
            elif status == 501:
                hint = ": the store does not know conditional puts, which commits rest on; use one that does"
        return TxnLogObjectStoreError(
            f"cannot {what} {path!r} in {self.root}: {redacted(str(error), self._secrets).removesuffix('.')}{hint}"
        )


def _upload_parts(client: S3Client, source: Path, place: Mapping[str, Any]) -> list[CompletedPartTypeDef]:
    parts: list[CompletedPartTypeDef] = []
    with open(source, "rb") as file:
        while data := file.read(_PART_BYTES):
            number = len(parts) + 1
            answer = client.upload_part(**place, PartNumber=number, Body=data, ChecksumAlgorithm="CRC32")
            part: CompletedPartTypeDef = {"PartNumber": number, "ETag": answer["ETag"]}
            if "ChecksumCRC32" in answer:
                part["ChecksumCRC32"] = answer["ChecksumCRC32"]
            parts.append(part)
    return parts


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@functools.lru_cache(maxsize=16)
def _clients(connection: tuple[tuple[str, Any], ...], virtual_hosted: bool, pid: int) -> _Clients:
    """Clients are thread-safe and dear to make; a forked process must not share their connections (hence `pid`)."""

    def client(attempts: int) -> S3Client:
        config = Config(
            retries={"total_max_attempts": attempts, "mode": "standard"},
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_ANSWER_SECONDS,
            max_pool_connections=_CONNECTIONS,
            s3={"addressing_style": "virtual" if virtual_hosted else "path"},
        )
        # A session of its own: the default one is not thread-safe while it makes clients.
        return boto3.session.Session().client("s3", config=config, **dict(connection))

    return _Clients(client(4), client(1))
