"""Object stores behind one small port: where `_delta_log`, identity and watermark live. `open_object_store` picks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from deltalakedb.errors import TxnLogMissingExtraError, TxnLogUriError
from deltalakedb.storage_options import StorageOptions

from .port import NewObject, Object, ObjectInfo, ObjectStore, Put

__all__ = ["NewObject", "Object", "ObjectInfo", "ObjectStore", "Put", "open_object_store"]

_FORMS = "s3://<bucket>/<prefix>, file:///<absolute path>, or a path"


def open_object_store(uri: str, options: Mapping[str, str] | None = None) -> ObjectStore:
    """The store under `uri`: `s3://bucket/prefix`, `file:///path` or a plain path.

    `options` are deltalake's storage options (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, ...); what is
    not given comes from the environment variables of the same names and, for credentials, from AWS's usual chain.
    Stores with equal options share their connections. Nothing is read or written here, except that nothing else than
    S3 takes options.

    Raises `TxnLogUriError` for other forms, `TxnLogConfigError` for options that are wrong, `TxnLogMissingExtraError`
    if boto3 is not installed.
    """
    scheme, separator, _ = uri.partition("://")
    if not separator:
        if not uri:
            raise TxnLogUriError(f"an empty string names no object store: the forms are {_FORMS}")
        from .local import LocalStore

        return LocalStore(os.path.abspath(uri))
    parts = urlsplit(uri)
    if parts.username is not None or parts.password is not None:
        raise TxnLogUriError(f"credentials do not belong in an object store's URI: give them as options ({_FORMS})")
    if scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise TxnLogUriError(f"{uri!r} does not name a local path: the form is file:///absolute/path")
        from .local import LocalStore

        return LocalStore(os.path.abspath(unquote(parts.path)))
    if scheme == "s3":
        if not parts.netloc:
            raise TxnLogUriError(f"{uri!r} names no bucket: the form is s3://<bucket>/<prefix>")
        try:
            from .s3 import S3Store
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("boto3", "botocore"):
                raise
            raise TxnLogMissingExtraError("an object store on S3", "s3") from error
        return S3Store(parts.netloc, unquote(parts.path).strip("/"), StorageOptions.resolve(options or {}))
    raise TxnLogUriError(f"no object store is known for {scheme!r}: the forms are {_FORMS}")
