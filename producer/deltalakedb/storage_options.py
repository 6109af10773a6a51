"""Object-store options, given once as deltalake's `storage_options` and rendered for every library that opens a store.

Names are those of deltalake and the AWS tools: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
AWS_ENDPOINT_URL, AWS_CA_BUNDLE, AWS_ALLOW_HTTP, AWS_VIRTUAL_HOSTED_STYLE_REQUEST. They are taken in any case and without
`AWS_` too, first from what is given, then from the environment, where NAME_FILE names a file that holds the value. Without a
key every library looks in its own usual places (profiles, instance roles).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import TxnLogConfigError

_ALIASES = {
    "AWS_DEFAULT_REGION": "AWS_REGION",
    "AWS_ENDPOINT": "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3": "AWS_ENDPOINT_URL",
    "AWS_TOKEN": "AWS_SESSION_TOKEN",
}
_KNOWN = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_CA_BUNDLE",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
)
_SECRET = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """One set of options. Nothing of it is in the `repr`."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By the names above; names unknown here are kept for deltalake."""

    @classmethod
    def resolve(cls, given: Mapping[str, str], environment: Mapping[str, str] | None = None) -> StorageOptions:
        """Options from what is given, completed from the environment.

        Raises `TxnLogConfigError` for an option given under two names with two values, half a key, or an unreadable file.
        """
        values: dict[str, str] = {}
        for name, value in given.items():
            canonical = _canonical(name)
            if values.setdefault(canonical, value) != value:
                raise TxnLogConfigError(f"the storage option {canonical} is given twice with different values")
        own_key = "AWS_ACCESS_KEY_ID" in values
        variables = os.environ if environment is None else environment
        for name in _KNOWN:
            # A session token from the environment belongs to the environment's key, never to another one.
            if name not in values and not (own_key and name in _SECRET):
                found = _from_environment(name, variables)
                if found is not None:
                    values[name] = found
        if ("AWS_ACCESS_KEY_ID" in values) != ("AWS_SECRET_ACCESS_KEY" in values):
            raise TxnLogConfigError(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY come together: only one of them is set"
            )
        return cls(values)

    @property
    def secrets(self) -> dict[str, str]:
        """The values that no message may show."""
        return {name: self.values[name] for name in _SECRET if name in self.values}

    @property
    def endpoint(self) -> str | None:
        """URL of the endpoint, where it is not AWS itself."""
        return self.values.get("AWS_ENDPOINT_URL")

    @property
    def authorities(self) -> str | None:
        """A PEM file with who signs the endpoint's certificate, where that is not one whom everybody trusts."""
        return self.values.get("AWS_CA_BUNDLE")

    @property
    def region(self) -> str | None:
        """Region; behind an endpoint of its own a store needs one for its signatures, whatever it is called."""
        return self.values.get("AWS_REGION") or (_DEFAULT_REGION if self.endpoint else None)

    @property
    def virtual_hosted(self) -> bool:
        """Whether the bucket is part of the host name (AWS) rather than of the path (most others)."""
        return _flag(self.values.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "" if self.endpoint else "true"))

    def deltalake(self) -> dict[str, str]:
        """`storage_options` for deltalake and polars. Whom they trust is not one of them: they look at SSL_CERT_FILE."""
        options = {name: value for name, value in self.values.items() if name != "AWS_CA_BUNDLE"}
        if self.endpoint:
            options.setdefault("AWS_REGION", _DEFAULT_REGION)
            if urlsplit(self.endpoint).scheme == "http":
                options.setdefault("AWS_ALLOW_HTTP", "true")
        return options

    def pyarrow(self) -> dict[str, Any]:
        """Keyword arguments of `pyarrow.fs.S3FileSystem`."""
        arguments: dict[str, Any] = {}
        if "AWS_ACCESS_KEY_ID" in self.values:
            arguments["access_key"] = self.values["AWS_ACCESS_KEY_ID"]
            arguments["secret_key"] = self.values["AWS_SECRET_ACCESS_KEY"]
            arguments["session_token"] = self.values.get("AWS_SESSION_TOKEN")
        if self.region:
            arguments["region"] = self.region
        if self.endpoint:
            parts = urlsplit(self.endpoint)
            arguments["scheme"] = parts.scheme
            arguments["endpoint_override"] = parts.netloc
            arguments["force_virtual_addressing"] = self.virtual_hosted
        if self.authorities:
            arguments["tls_ca_file_path"] = self.authorities
        return arguments

    def boto3(self) -> dict[str, Any]:
        """Keyword arguments of `boto3.client("s3", ...)`."""
        arguments: dict[str, Any] = {}
        if "AWS_ACCESS_KEY_ID" in self.values:
            arguments["aws_access_key_id"] = self.values["AWS_ACCESS_KEY_ID"]
            arguments["aws_secret_access_key"] = self.values["AWS_SECRET_ACCESS_KEY"]
            arguments["aws_session_token"] = self.values.get("AWS_SESSION_TOKEN")
        if self.region:
            arguments["region_name"] = self.region
        if self.endpoint:
            arguments["endpoint_url"] = self.endpoint
        if self.authorities:
            arguments["verify"] = self.authorities
        return arguments

    def duckdb(self, name: str = "deltalakedb") -> str:
        """A `CREATE SECRET` statement for DuckDB, after one that says whom to trust. It holds the credentials: never log it."""
        parts = ["TYPE s3"]
        if "AWS_ACCESS_KEY_ID" in self.values:
            parts.append(f"KEY_ID {_quoted(self.values['AWS_ACCESS_KEY_ID'])}")
            parts.append(f"SECRET {_quoted(self.values['AWS_SECRET_ACCESS_KEY'])}")
            if "AWS_SESSION_TOKEN" in self.values:
                parts.append(f"SESSION_TOKEN {_quoted(self.values['AWS_SESSION_TOKEN'])}")
        else:
            parts.append("PROVIDER credential_chain")
        if self.region:
            parts.append(f"REGION {_quoted(self.region)}")
        if self.endpoint:
            url = urlsplit(self.endpoint)
            parts.append(f"ENDPOINT {_quoted(url.netloc)}")
            parts.append(f"USE_SSL {str(url.scheme == 'https').lower()}")
            parts.append(f"URL_STYLE {_quoted('vhost' if self.virtual_hosted else 'path')}")
        trusted = f"SET ca_cert_file = {_quoted(self.authorities)}; " if self.authorities else ""
        return f"{trusted}CREATE OR REPLACE SECRET {name} ({', '.join(parts)})"

    def spark(self) -> dict[str, str]:
        """Spark configuration for `s3a://` paths. Whom it trusts its Java says: `javax.net.ssl.trustStore`."""
        prefix = "spark.hadoop.fs.s3a"
        conf: dict[str, str] = {}
        if "AWS_ACCESS_KEY_ID" in self.values:
            conf[f"{prefix}.access.key"] = self.values["AWS_ACCESS_KEY_ID"]
            conf[f"{prefix}.secret.key"] = self.values["AWS_SECRET_ACCESS_KEY"]
            if "AWS_SESSION_TOKEN" in self.values:
                conf[f"{prefix}.session.token"] = self.values["AWS_SESSION_TOKEN"]
                provider = "org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider"
                conf[f"{prefix}.aws.credentials.provider"] = provider
        if self.region:
            conf[f"{prefix}.endpoint.region"] = self.region
        if self.endpoint:
            conf[f"{prefix}.endpoint"] = self.endpoint
            conf[f"{prefix}.connection.ssl.enabled"] = str(urlsplit(self.endpoint).scheme == "https").lower()
            conf[f"{prefix}.path.style.access"] = str(not self.virtual_hosted).lower()
        return conf


def _canonical(name: str) -> str:
    upper = name.upper()
    if upper.startswith("AWS_"):
        return _ALIASES.get(upper, upper)
    prefixed = f"AWS_{upper}"
    prefixed = _ALIASES.get(prefixed, prefixed)
    return prefixed if prefixed in _KNOWN else name


def _from_environment(name: str, variables: Mapping[str, str]) -> str | None:
    for spelling in (name, *(alias for alias, meant in _ALIASES.items() if meant == name)):
        if variables.get(spelling):
            return variables[spelling]
        file = variables.get(f"{spelling}_FILE")
        if file:
            return read_secret(Path(file), f"{spelling}_FILE")
    return None


def read_secret(path: Path, variable: str) -> str:
    """What a file named by an environment variable holds, without the line end. Raises `TxnLogConfigError`."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TxnLogConfigError(f"{variable} names a file that cannot be read: {path}: {error}") from error


def _flag(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes", "on")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
