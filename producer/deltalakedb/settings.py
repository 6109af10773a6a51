"""All settings of clients and services, as one frozen object: arguments before environment before a file.

Every field is an environment variable with the prefix `DELTALAKEDB_` (`DELTALAKEDB_STORE`, ...), and with `_FILE`
after it the name of a file that holds the value, for secrets. What is given nowhere is what the store remembers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from .database.address import StoreAddress
from .errors import TxnLogConfigError
from .storage_options import StorageOptions, read_secret
from .uri import LakeDirectory, StoreUri, store_uri

PREFIX = "DELTALAKEDB_"
DEFAULT_LAKE = "./lake"


class _SecretFiles(PydanticBaseSettingsSource):
    """Values from the files that `DELTALAKEDB_<FIELD>_FILE` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{PREFIX}{field_name.upper()}_FILE"
        name = os.environ.get(variable)
        if not name:
            return None, field_name, False
        if f"{PREFIX}{field_name.upper()}" in os.environ:
            raise TxnLogConfigError(f"{variable} and {PREFIX}{field_name.upper()} are both set: one of them is enough")
        text = read_secret(Path(name), variable)
        if field_name not in ("log_options", "storage_options"):
            return text, field_name, False
        try:
            return json.loads(text), field_name, False
        except json.JSONDecodeError:
            raise TxnLogConfigError(f"{variable}: {name} does not hold a JSON object") from None

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class Settings(BaseSettings):
    """What a client or a service runs with. Made by `load_settings`; equal settings name the same lake."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, env_ignore_empty=True
    )

    config: ClassVar[Path | None] = None
    """The TOML file to read, on the class that `load_settings` makes for it."""

    store: SecretStr = SecretStr(DEFAULT_LAKE)
    """A URI of the store, or the directory of an embedded lake; see `deltalakedb.uri`."""
    log: str | None = None
    """The event log: `kafka://host:9092,host2:9092/<prefix>` or `sqlite:///abs/log.db`."""
    root: str | None = None
    """Root URI for new tables: `s3://bucket/prefix` or `file:///abs`."""
    log_options: dict[str, SecretStr] = {}
    """librdkafka's own settings (`security.protocol`, `sasl.password`, ...); JSON in the environment."""
    storage_options: dict[str, SecretStr] = {}
    """As deltalake's; what is not given comes from AWS_*. JSON in the environment."""
    fence: bool = True
    """Whether a lake that is made here fences its tables against other writers."""

    client_id: str | None = None
    """Who this is, in events, logs and at the broker; None: host name, process and a random part."""
    mirror: Literal["on_commit", "off"] = "on_commit"
    """On an embedded lake: whether a commit also publishes `_delta_log` before it returns."""
    wait: Literal["committed", "mirrored"] = "committed"
    """How far `commit` waits unless told otherwise."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds that `commit` waits unless told otherwise; afterwards the outcome is unknown, not failed."""
    window: int = Field(default=128, ge=1)
    """Most transactions of one lake object that are published and not answered yet."""
    max_tables: int = Field(default=10, ge=1, le=100)
    """Most tables in one transaction."""
    max_files_per_table: int = Field(default=1_000_000, ge=1)
    """Most file actions for one table in one transaction."""
    target_file_bytes: int = Field(default=128 * 1024 * 1024, ge=1)
    """Size at which a data file is closed and the next one begun."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings, _SecretFiles(settings_cls))
        return sources if cls.config is None else (*sources, TomlConfigSettingsSource(settings_cls, cls.config))

    @property
    def location(self) -> StoreUri | LakeDirectory:
        """`store`, parsed. Raises `TxnLogUriError`."""
        return store_uri(self.store.get_secret_value())

    @property
    def directory(self) -> Path | None:
        """The directory of an embedded lake; None where the store is named by a URI."""
        location = self.location
        return location.path if isinstance(location, LakeDirectory) else None

    @property
    def address(self) -> StoreAddress:
        """Where the store is."""
        return self.location.address

    def require_services(self, verb: str) -> None:
        """Raise `TxnLogConfigError` if services cannot serve this lake; `verb` is the one that was asked for."""
        if self.address.one_process:
            raise TxnLogConfigError(
                f"{verb} cannot serve {self.address}: a store in DuckDB is one process's at a time, and its clients decide "
                "and publish by themselves. Keep the lake in SQLite or Postgres if services are to do it"
            )

    @property
    def log_address(self) -> str | None:
        """The event log as given, or as it follows from the lake's directory; None: the store knows."""
        location = self.location
        return location.log if self.log is None and isinstance(location, LakeDirectory) else self.log

    @property
    def root_uri(self) -> str | None:
        """The root as given, or as it follows from the lake's directory; None: the store knows."""
        location = self.location
        if self.root is None:
            return location.root if isinstance(location, LakeDirectory) else None
        return parse_root(self.root)

    @property
    def storage(self) -> StorageOptions:
        """Object-store options, completed from the environment and ready to be rendered."""
        return StorageOptions.resolve(_revealed(self.storage_options))

    @property
    def log_settings(self) -> dict[str, str]:
        """`log_options` in clear."""
        return _revealed(self.log_options)

    @property
    def secrets(self) -> dict[str, str]:
        """Every value that no message may show, for `errors.redacted`."""
        secrets = self.storage.secrets
        secrets |= {name: value for name, value in self.log_settings.items() if "password" in name or "secret" in name}
        password = self.address.password
        return secrets | ({"password": password} if password else {})


def load_settings(*, config: Path | str | None = None, **arguments: Any) -> Settings:
    """Settings from arguments (None: not given), then the environment, then a TOML file (`config`, or the one that
    `DELTALAKEDB_CONFIG` names) whose keys are the fields.

    Raises `TxnLogConfigError` for what is wrong, never showing a value.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    file = config if config is not None else os.environ.get(f"{PREFIX}CONFIG")
    if file is not None and not Path(file).is_file():
        raise TxnLogConfigError(f"the settings file {str(file)!r} is not there")
    try:
        settings = type("Settings", (Settings,), {"config": Path(file)})(**given) if file else Settings(**given)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        # Not chained: what pydantic keeps of the input may be a secret.
        raise TxnLogConfigError(f"the settings are wrong: {problems}") from None
    except ValueError as error:  # of a source: JSON in a variable, TOML in a file
        raise TxnLogConfigError(f"the settings cannot be read: {type(error).__name__}: {error}") from None
    # Of the class itself, so that it can be pickled; with absolute paths, so that it stays the same lake elsewhere.
    values = dict(settings) | {"store": SecretStr(_absolute(settings.location, settings.store.get_secret_value()))}
    return Settings.model_construct(_fields_set=settings.model_fields_set, **values)


def parse_root(text: str) -> str:
    """A root as a URI without a trailing slash: a plain path becomes `file:///...`."""
    if text.startswith(("s3://", "s3a://")):
        return "s3://" + text.split("://", 1)[1].rstrip("/")
    if text.startswith("file://"):
        return "file:///" + text.removeprefix("file://").strip("/")
    if "://" in text:
        raise TxnLogConfigError(f"the root must be s3://..., file:///... or a directory, not {text.split('://')[0]}://")
    return Path(text).expanduser().absolute().as_uri()


def _absolute(location: StoreUri | LakeDirectory, text: str) -> str:
    if isinstance(location, LakeDirectory):
        return str(location.path)
    return text if location.address.path is None else str(location.address)


def _revealed(options: Mapping[str, SecretStr]) -> dict[str, str]:
    return {name: value.get_secret_value() for name, value in options.items()}
