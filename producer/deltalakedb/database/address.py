"""Where a store is, as a value: which engine, which file or server, which schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

Engine = Literal["postgres", "sqlite", "duckdb"]

IN_MEMORY = ":memory:"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """The address of one store. Equal addresses name the same store; the password shows up nowhere but in
    `parameters`, which is in no `repr`."""

    engine: Engine
    path: str | None = None
    """Absolute path of an embedded store's file, or `:memory:`; None for a server."""
    schema: str | None = None
    """The Postgres schema that holds the store."""
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """libpq connection parameters by their own names (host, port, dbname, user, password, sslmode, ...)."""

    @property
    def one_process(self) -> bool:
        """Whether the store can be open in one process only, so that nothing but its clients can serve the lake."""
        return self.engine == "duckdb"

    @property
    def password(self) -> str | None:
        """The password that the address itself carries; libpq may know another source."""
        return dict(self.parameters).get("password")

    def __str__(self) -> str:
        """The address as messages and the store itself show it: without credentials."""
        if self.path is not None:
            return f"deltasql://{self.engine}/{quote(self.path)}"
        known = dict(self.parameters)
        server = known.get("host", "")
        if "port" in known:
            server += f":{known['port']}"
        if "user" in known:
            server = f"{known['user']}@{server}"
        return f"postgresql://{server}/{known.get('dbname', '')}?schema={self.schema}"
