"""URI routing: every form that names a lake or a table, parsed into values; every mistake with its own message.

No message and no `repr` shows what may be a credential: messages name the part that is wrong, never its text, unless
that part cannot hold a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from .database.address import IN_MEMORY, Engine, StoreAddress
from .errors import TxnLogUriError
from .ids import is_table_name

ACCEPTED_FORMS = """\
accepted forms:
  deltasql://postgres/<db>/<schema>[/<table>]                               server from libpq's environment
  deltasql://postgres/<user>:<password>@<host>:<port>/<db>/<schema>[/<table>][?sslmode=...]
  postgresql://<user>:<password>@<host>:<port>/<db>?schema=<schema>[&table=<table>]
  deltasql://sqlite//<absolute path>.db[?table=<table>]
  deltasql://sqlite/<relative path>.db[?table=<table>]
  deltasql://duckdb//<absolute path>.duckdb[?table=<table>], deltasql://duckdb/:memory:[?table=<table>]
  s3://<bucket>/<path>, file:///<path>, a directory with a _delta_log       a Delta table by its path
  any other directory                                                       an embedded lake
$VAR and ${VAR} stand for environment variables; reserved characters are percent-encoded"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUri:
    """A lake by its store, or one table of it."""

    address: StoreAddress
    table: str | None = None


@dataclass(frozen=True, slots=True)
class LakeDirectory:
    """An embedded lake: a directory with `lake.db`, `log.db` and `tables/`, or one that becomes one."""

    path: Path
    """Absolute."""

    @property
    def address(self) -> StoreAddress:
        return StoreAddress(engine="sqlite", path=str(self.path / "lake.db"))

    @property
    def log(self) -> str:
        return f"sqlite://{quote(str(self.path / 'log.db'))}"

    @property
    def root(self) -> str:
        return (self.path / "tables").as_uri()


@dataclass(frozen=True, slots=True)
class DeltaTableUri:
    """A Delta table by its path, read from its `_delta_log`."""

    uri: str


LakeUri = StoreUri | LakeDirectory | DeltaTableUri

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(?!\\)")
_SCHEMA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
# libpq's own connection parameters: a mistyped one is told here, before a server is asked.
_LIBPQ = frozenset(
    """host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout client_encoding
    options application_name fallback_application_name keepalives keepalives_idle keepalives_interval keepalives_count
    tcp_user_timeout replication gssencmode sslmode requiressl sslnegotiation sslcompression sslcert sslkey sslpassword
    sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer ssl_min_protocol_version ssl_max_protocol_version
    krbsrvname gsslib gssdelegation service servicefile target_session_attrs load_balance_hosts""".split()  # noqa: SIM905 - one quoted name per line would take half a page
)


def parse_uri(text: str, environment: Mapping[str, str] | None = None) -> LakeUri:
    """What `text` names. Raises `TxnLogUriError`, each mistake with its own message.

    Looks at the file system only to tell a directory that is a Delta table from one that is (or becomes) a lake.
    """
    variables = os.environ if environment is None else environment
    if not text.strip():
        raise _wrong("an empty text names nothing")
    whole = _VARIABLE.fullmatch(text)
    if whole is not None:
        text = _value(whole, variables)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _directory(text, variables)
    name = scheme.group(1).lower()
    rest = text[scheme.end() :]
    if name == "file" and rest.startswith("/") and not rest.startswith("//"):
        rest = f"//{rest}"  # as Hadoop writes it
    if name == "deltasql" or name in ("postgresql", "postgres") or name in ("s3", "s3a", "s3n", "file"):
        if not rest.startswith("//"):
            raise _wrong(f"{name}: must be followed by //")
        if "#" in rest:
            raise _wrong("a fragment (#...) means nothing here; a # that belongs to a part is written %23")
    if name == "deltasql":
        return _deltasql(rest[2:], variables)
    if name in ("postgresql", "postgres"):
        return _postgresql(rest[2:], variables)
    if name in ("s3", "s3a", "s3n", "file"):
        return _delta_path(name, rest[2:], variables)
    if name in ("kafka", "sqlite"):
        raise _wrong(f"{name}:// is the address of an event log, not of a lake or a table")
    raise _wrong(f"unknown scheme {name!r}")


def store_uri(text: str, environment: Mapping[str, str] | None = None) -> StoreUri | LakeDirectory:
    """As `parse_uri` for what must be a lake: a Delta path, a table within the lake and `:memory:` are refused."""
    parsed = parse_uri(text, environment)
    if isinstance(parsed, DeltaTableUri):
        raise _wrong("this is the path of a single Delta table; a lake is named by its store or its directory")
    if isinstance(parsed, StoreUri) and parsed.table is not None:
        raise _wrong(f"this names the table {parsed.table!r}; leave the table out to name the lake")
    if parsed.address.path == IN_MEMORY:
        raise _wrong("a lake cannot live in :memory:, because its event log and tables outlive it: name a file")
    return parsed


def lake_uri(address: StoreAddress) -> str:
    """A URI that parses to `address`. It holds the password: never show it."""
    if address.path is not None:
        return str(address)
    parameters = dict(address.parameters)
    database = parameters.pop("dbname", "")
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    return f"postgresql:///{quote(database, safe='')}?schema={address.schema}" + (f"&{query}" if query else "")


def _deltasql(rest: str, variables: Mapping[str, str]) -> StoreUri:
    path, query = _query(rest, variables)
    engine, _, path = path.partition("/")
    match engine:
        case "postgres":
            return _deltasql_postgres(path, query, variables)
        case "sqlite" | "duckdb":
            return _file_store(engine, path, query, variables)
        case "":
            raise _wrong(
                "the engine is missing: deltasql://postgres/..., deltasql://sqlite/... or deltasql://duckdb/..."
            )
        case _ if "@" in engine or ":" in engine:
            raise _wrong("the engine is missing before the server: deltasql://postgres/<user>@<host>/...")
        case _:
            raise _wrong(f"unknown engine {engine!r}: postgres, sqlite or duckdb")


def _deltasql_postgres(path: str, query: dict[str, str], variables: Mapping[str, str]) -> StoreUri:
    segments = path.split("/")
    first = _VARIABLE.fullmatch(segments[0])
    if first is not None and re.search("[@:]", server := _value(first, variables)):
        segments[0] = server
    parameters: dict[str, str] = {}
    if "@" in segments[0] or ":" in segments[0]:
        parameters = _server(segments.pop(0), variables)
    if any("@" in segment for segment in segments):
        raise _wrong("an @ stands after the server: in a password a / is written %2F, in a name an @ is written %40")
    names = [_text(segment, variables) for segment in segments]
    if len(names) > 1 and names[-1] == "":
        names.pop()
    if not names or not names[0]:
        raise _wrong("the database is missing: deltasql://postgres/<db>/<schema>")
    if len(names) < 2 or not names[1]:
        raise _wrong("the schema is missing: deltasql://postgres/<db>/<schema>")
    if len(names) > 3:
        raise _wrong(
            "too many parts after deltasql://postgres/: <db>/<schema>/<table> is all there may be "
            "(a server is told by its @ or :)"
        )
    for key in ("schema", "table"):
        if key in query:
            raise _wrong(f"the {key} of a deltasql://postgres URI stands in its path, not in ?{key}=")
    parameters["dbname"] = names[0]
    table = names[2] if len(names) == 3 else None
    return _postgres_store(parameters, query, schema=names[1], table=table)


def _postgresql(rest: str, variables: Mapping[str, str]) -> StoreUri:
    path, query = _query(rest, variables)
    server, _, database = path.partition("/")
    parameters = _server(server, variables) if server else {}
    if "@" in database:
        raise _wrong("an @ stands after the server: in a password a / is written %2F, in a name an @ is written %40")
    database = _text(database.rstrip("/"), variables)
    if "/" in database:
        raise _wrong("schema and table of a postgresql:// URI stand in its query: ?schema=<schema>&table=<table>")
    if database:
        parameters["dbname"] = database
    elif "dbname" not in query:
        raise _wrong("the database is missing: postgresql://<host>/<db>?schema=<schema>")
    schema = query.pop("schema", None)
    if schema is None:
        raise _wrong("the schema is missing: postgresql://<host>/<db>?schema=<schema>")
    table = query.pop("table", None)
    return _postgres_store(parameters, query, schema=schema, table=table)


def _postgres_store(parameters: dict[str, str], query: dict[str, str], *, schema: str, table: str | None) -> StoreUri:
    if _SCHEMA_NAME.fullmatch(schema) is None:
        raise _wrong("the schema is not a name of letters, digits and _ (63 at most, not beginning with a digit)")
    for key, value in query.items():
        if key not in _LIBPQ:
            raise _wrong(f"unknown parameter {key!r}: only libpq's connection parameters may follow the ?")
        parameters[key] = value
    address = StoreAddress(engine="postgres", schema=schema, parameters=tuple(sorted(parameters.items())))
    return StoreUri(address=address, table=_table(table))


def _file_store(engine: Engine, path: str, query: dict[str, str], variables: Mapping[str, str]) -> StoreUri:
    table = query.pop("table", None)
    if query:
        raise _wrong(f"unknown parameter {min(query)!r}: a {engine} store takes ?table=<table> only")
    name = _text(path, variables)
    if name == IN_MEMORY:
        if engine == "sqlite":
            raise _wrong("a lake in SQLite is a file: :memory: is for duckdb")
        return StoreUri(address=StoreAddress(engine=engine, path=IN_MEMORY), table=_table(table))
    if not name:
        raise _wrong(
            f"the path is missing: deltasql://{engine}//<absolute path> or deltasql://{engine}/<relative path>"
        )
    if name.endswith("/") or Path(name).is_dir():
        raise _wrong(f"a {engine} store is a file, and {name!r} is a directory")
    return StoreUri(address=StoreAddress(engine=engine, path=str(Path(name).absolute())), table=_table(table))


def _delta_path(scheme: str, rest: str, variables: Mapping[str, str]) -> DeltaTableUri:
    if "?" in rest:
        raise _wrong(f"a {scheme}:// path takes no parameters; a ? that belongs to it is written %3F")
    authority, slash, path = rest.partition("/")
    authority = _expanded(authority, variables)
    path = _expanded(path, variables).rstrip("/")
    if scheme == "file":
        if authority not in ("", "localhost"):
            raise _wrong("file:// takes an absolute path with three slashes: file:///data/orders")
        return DeltaTableUri(f"file:///{path}")
    if not authority:
        raise _wrong("the bucket is missing: s3://<bucket>/<path>")
    if "@" in authority or ":" in authority:
        raise _wrong(
            "an s3:// path carries no credentials and no port: they are storage options (AWS_ENDPOINT_URL, ...)"
        )
    return DeltaTableUri(f"s3://{authority}{slash}{path}".rstrip("/"))


def _directory(text: str, variables: Mapping[str, str]) -> LakeDirectory | DeltaTableUri:
    if "://" in text or ("@" in text and ":" in text):
        raise _wrong("the scheme is missing or damaged")
    path = Path(_expanded(text, variables)).expanduser().absolute()
    try:
        is_file, is_table = path.is_file(), (path / "_delta_log").is_dir()
    except OSError as error:
        raise _wrong(f"{str(path)!r} cannot be looked at: {error.strerror}") from error
    if is_file:
        raise _wrong(f"{str(path)!r} is a file: a SQLite store is written deltasql://sqlite/{path}")
    if is_table:
        return DeltaTableUri(path.as_uri())
    return LakeDirectory(Path(os.path.normpath(path)))


def _server(text: str, variables: Mapping[str, str]) -> dict[str, str]:
    """libpq parameters of `[user[:password]@][host[:port][,host[:port]...]]`."""
    parameters: dict[str, str] = {}
    credentials, at, hosts = text.rpartition("@")
    if at:
        user, colon, password = credentials.partition(":")
        if user:
            parameters["user"] = _text(user, variables)
        if colon:
            parameters["password"] = _text(password, variables)
    names, ports = [], []
    for host in hosts.split(","):
        name, port = _host(host)
        names.append(_text(name, variables))
        ports.append(_text(port, variables))
    if any(names):
        parameters["host"] = ",".join(names)
    if any(ports):
        if not all(port == "" or (port.isdecimal() and 0 < int(port) < 65536) for port in ports):
            raise _wrong("the port after the host is not a number from 1 to 65535 (is an @ or a %-encoding missing?)")
        parameters["port"] = ",".join(ports)
    return parameters


def _host(text: str) -> tuple[str, str]:
    """Host and port; an IPv6 address stands in brackets."""
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise _wrong("an IPv6 address stands in brackets, a port after them: [::1]:5432")
        return name, port[1:]
    name, _, port = text.partition(":")
    return name, port


def _query(text: str, variables: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """What stands before the `?`, and the parameters after it."""
    path, _, query = text.partition("?")
    if "@" in query:
        raise _wrong("an @ stands after the ?: in a password a ? is written %3F, in a parameter an @ is written %40")
    parameters: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise _wrong("a parameter after the ? is not of the form name=value")
        if key in parameters:
            raise _wrong(f"the parameter {key!r} is given twice" if key in _LIBPQ else "a parameter is given twice")
        parameters[key] = _text(value, variables)
    return path, parameters


def _table(name: str | None) -> str | None:
    if name is not None and not is_table_name(name):
        raise _wrong("the table is not a name: [namespace.]name of ASCII letters, digits, _ and -")
    return name


def _text(part: str, variables: Mapping[str, str]) -> str:
    """One part of a URI: percent-decoded, variables replaced. A variable's value is taken as it is, never decoded."""
    out, end = [], 0
    for match in _VARIABLE.finditer(part):
        out += [_decoded(part[end : match.start()]), _value(match, variables)]
        end = match.end()
    return "".join([*out, _decoded(part[end:])])


def _decoded(text: str) -> str:
    if re.search("%(?![0-9A-Fa-f]{2})", text):
        raise _wrong("a % is not followed by two hexadecimal digits; a literal % is written %25")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _wrong("percent-encoded bytes are not UTF-8") from None
    if "\0" in decoded:
        raise _wrong("%00 cannot be part of a name")
    return decoded


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """Variables replaced, nothing decoded: for paths that are kept as they are written."""
    return _VARIABLE.sub(lambda match: _value(match, variables), text)


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    name = match.group(1) or match.group(2)
    value = variables.get(name)
    if value is None:
        # Shown only if it looks like a variable: a password with a $ in it must not be.
        shown = f"{name} " if name.isupper() else ""
        raise _wrong(f"the environment variable {shown}is not set; a $ that stands for itself is written %24")
    return value


def _wrong(what: str) -> TxnLogUriError:
    return TxnLogUriError(f"{what}\n{ACCEPTED_FORMS}")
