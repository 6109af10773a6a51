"""URI routing: every accepted form gives its value, every mistake its own message, and no credential is ever shown."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalakedb.database.address import StoreAddress
from deltalakedb.errors import TxnLogUriError
from deltalakedb.uri import ACCEPTED_FORMS, DeltaTableUri, LakeDirectory, StoreUri, parse_uri, store_uri

CANARY = "canary7f3a"


def postgres(schema: str, **parameters: str) -> StoreAddress:
    return StoreAddress(engine="postgres", schema=schema, parameters=tuple(sorted(parameters.items())))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deltasql://postgres/shop/lake", StoreUri(address=postgres("lake", dbname="shop"))),
        ("deltasql://postgres/shop/lake/", StoreUri(address=postgres("lake", dbname="shop"))),
        ("deltasql://postgres/shop/lake/sales.orders", StoreUri(address=postgres("lake", dbname="shop"), table="sales.orders")),
        (
            "deltasql://postgres/u:p@h:5433/shop/lake/orders?sslmode=require",
            StoreUri(
                address=postgres("lake", dbname="shop", user="u", password="p", host="h", port="5433", sslmode="require"),
                table="orders",
            ),
        ),
        ("deltasql://postgres/h:5433/shop/lake", StoreUri(address=postgres("lake", dbname="shop", host="h", port="5433"))),
        ("deltasql://postgres/u@/shop/lake", StoreUri(address=postgres("lake", dbname="shop", user="u"))),
        (
            "postgresql://u:p@h:5432/shop?schema=lake&table=orders",
            StoreUri(
                address=postgres("lake", dbname="shop", user="u", password="p", host="h", port="5432"), table="orders"
            ),
        ),
        (
            "postgres://u@/shop?schema=lake&host=%2Ftmp%2Fsocket",
            StoreUri(address=postgres("lake", dbname="shop", user="u", host="/tmp/socket")),
        ),
        (
            "postgresql://a:1,[::1]:2/shop?schema=lake&target_session_attrs=read-write",
            StoreUri(
                address=postgres("lake", dbname="shop", host="a,::1", port="1,2", target_session_attrs="read-write")
            ),
        ),
        ("deltasql://sqlite//data/my%20lake.db?table=t", StoreUri(address=StoreAddress(engine="sqlite", path="/data/my lake.db"), table="t")),
        ("deltasql://duckdb//data/lake.duckdb", StoreUri(address=StoreAddress(engine="duckdb", path="/data/lake.duckdb"))),
        ("deltasql://duckdb/:memory:?table=t", StoreUri(address=StoreAddress(engine="duckdb", path=":memory:"), table="t")),
        ("s3://bucket/a/b/", DeltaTableUri("s3://bucket/a/b")),
        ("s3a://bucket/a", DeltaTableUri("s3://bucket/a")),
        ("s3n://bucket/a", DeltaTableUri("s3://bucket/a")),
        ("file:/data/a%20b", DeltaTableUri("file:///data/a%20b")),
        ("s3://bucket", DeltaTableUri("s3://bucket")),
        ("file:///data/a%20b", DeltaTableUri("file:///data/a%20b")),
    ],
)  # fmt: skip
def test_accepted_forms(text: str, expected: object) -> None:
    """Every form of the table in the documentation gives exactly its value."""
    assert parse_uri(text, {}) == expected


def test_relative_file_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path names the same store after the process has changed its directory."""
    monkeypatch.chdir(tmp_path)

    assert parse_uri("deltasql://sqlite/sub/lake.db?table=t") == StoreUri(
        address=StoreAddress(engine="sqlite", path=str(tmp_path / "sub" / "lake.db")), table="t"
    )


def test_directory_is_a_lake_or_a_delta_table(tmp_path: Path) -> None:
    """A directory is a Delta table if it holds a `_delta_log`, otherwise a lake, there or not."""
    (tmp_path / "orders" / "_delta_log").mkdir(parents=True)

    assert parse_uri(str(tmp_path / "orders")) == DeltaTableUri((tmp_path / "orders").as_uri())
    lake = parse_uri(str(tmp_path / "new lake" / "."))
    assert lake == LakeDirectory(tmp_path / "new lake")
    assert isinstance(lake, LakeDirectory)
    assert lake.address.path == str(tmp_path / "new lake" / "lake.db")
    assert lake.log.endswith("/new%20lake/log.db")
    assert lake.root == (tmp_path / "new lake" / "tables").as_uri()


def test_variables_are_values_not_syntax() -> None:
    """A variable's value is taken as it is: characters in it neither split the URI nor are they decoded."""
    variables = {"PW": "p@ss/w:rd%41?x=1#", "SCHEMA": "lake", "T": "orders"}

    parsed = parse_uri("deltasql://postgres/u:$PW@h:1/shop/${SCHEMA}/$T", variables)

    assert parsed == StoreUri(
        address=postgres("lake", dbname="shop", user="u", password="p@ss/w:rd%41?x=1#", host="h", port="1"),
        table="orders",
    )


def test_variable_may_be_the_server_or_the_whole() -> None:
    """`$VAR` may stand for the server segment, and for the whole URI."""
    variables = {"SERVER": "u:p@h:1", "STORE": "deltasql://postgres/$SERVER/shop/lake", "DB": "shop"}
    expected = StoreUri(address=postgres("lake", dbname="shop", user="u", password="p", host="h", port="1"))

    assert parse_uri("${STORE}", variables) == expected
    assert parse_uri("deltasql://postgres/$SERVER/$DB/lake", variables) == expected
    assert parse_uri("deltasql://postgres/$DB/lake", variables) == StoreUri(address=postgres("lake", dbname="shop"))


WRONG = {
    "": "empty",
    "http://x/y": "unknown scheme 'http'",
    "deltasql:/postgres/a/b": "must be followed by //",
    "deltasql://": "engine is missing",
    "deltasql://mysql/a/b": "unknown engine 'mysql'",
    "deltasql://u:p@h/a/b": "engine is missing before the server",
    "deltasql://postgres": "database is missing",
    "deltasql://postgres/shop": "schema is missing",
    "deltasql://postgres/shop/": "schema is missing",
    "deltasql://postgres/h:1/shop": "schema is missing",
    "deltasql://postgres/a/b/c/d": "too many parts",
    "deltasql://postgres/a/b?table=t": "stands in its path",
    "deltasql://postgres/a/b?shema=t": "unknown parameter 'shema'",
    "deltasql://postgres/a/b?sslmode": "name=value",
    "deltasql://postgres/a/b?sslmode=a&sslmode=b": "given twice",
    "deltasql://postgres/a/no-schema": "schema is not a name",
    "deltasql://postgres/a/b/no%20table": "table is not a name",
    "deltasql://postgres/h:x/a/b": "port",
    "deltasql://postgres/h:99999/a/b": "port",
    "deltasql://postgres/[::1:5/a/b": "IPv6",
    "deltasql://postgres/a%zz/b": "hexadecimal",
    "deltasql://postgres/a%ff/b": "UTF-8",
    "deltasql://postgres/$NOPE/b": "environment variable NOPE is not set",
    "postgresql://h/": "database is missing",
    "postgresql://h/shop": "schema is missing",
    "postgresql://h/shop/lake?schema=x": "stand in its query",
    "deltasql://sqlite": "path is missing",
    "deltasql://sqlite/": "path is missing",
    "deltasql://sqlite/:memory:": ":memory: is for duckdb",
    "deltasql://sqlite//tmp/": "is a directory",
    "deltasql://sqlite//a.db?x=1": "unknown parameter 'x'",
    "deltasql://sqlite//a%00.db": "%00",
    "s3:///a": "bucket is missing",
    "s3://k:s@b/a": "no credentials",
    "s3://b/a?x=1": "no parameters",
    "file://host/a": "three slashes",
    "file:///a#b": "fragment",
    "kafka://h:1/p": "event log",
    "sqlite:///a.db": "event log",
    "deltasql//postgres": "",
}


@pytest.mark.parametrize(("text", "part"), [(text, part) for text, part in WRONG.items() if part])
def test_mistakes(text: str, part: str) -> None:
    """Every mistake has a message of its own, followed by the accepted forms."""
    with pytest.raises(TxnLogUriError) as caught:
        parse_uri(text, {})

    first, _, forms = str(caught.value).partition("\n")
    assert part in first
    assert forms == ACCEPTED_FORMS


def test_messages_differ() -> None:
    """Two different kinds of mistake are never told in the same words."""
    parts = [part for part in WRONG.values() if part]
    same = {"schema is missing", "port", "database is missing", "engine is missing", "event log", "path is missing"}

    assert len([p for p in parts if p not in same]) == len({p for p in parts if p not in same})


def test_a_file_is_not_a_lake(tmp_path: Path) -> None:
    """A plain path that is a file is refused with the form that would name it."""
    file = tmp_path / "lake.db"
    file.touch()

    with pytest.raises(TxnLogUriError, match="deltasql://sqlite/"):
        parse_uri(str(file))


def test_lake_only(tmp_path: Path) -> None:
    """Where a lake is asked for, a table and a Delta path are refused by name."""
    with pytest.raises(TxnLogUriError, match="names the table 'orders'"):
        store_uri("deltasql://sqlite//a.db?table=orders")
    with pytest.raises(TxnLogUriError, match="single Delta table"):
        store_uri("s3://bucket/orders")
    assert store_uri(str(tmp_path)) == LakeDirectory(tmp_path)


def test_address_reads_back(tmp_path: Path) -> None:
    """The text of a file store's address is a URI that names the same store."""
    address = StoreAddress(engine="sqlite", path=str(tmp_path / "a b%$x?.db"))

    assert parse_uri(str(address)) == StoreUri(address=address)


@pytest.mark.parametrize(
    "text",
    [
        f"deltasql://postgres/u:{CANARY}@h:5432/shop/lake/orders?sslmode=require",
        f"postgresql://u:{CANARY}@h:5432/shop?schema=lake&sslpassword={CANARY}",
        f"postgresql://h:5432/shop?schema=lake&password={CANARY}",
    ],
)
def test_values_hide_credentials(text: str) -> None:
    """No `repr`, text of a parsed URI shows the password; the parameters still have it."""
    parsed = parse_uri(text)

    assert isinstance(parsed, StoreUri)
    assert parsed.address.password == CANARY or dict(parsed.address.parameters)["sslpassword"] == CANARY
    assert CANARY not in f"{parsed!r} {parsed} {parsed.address} {parsed.address!r}"
    assert pickle.loads(pickle.dumps(parsed)) == parsed


_hostile = st.text(alphabet=st.sampled_from("@:/?#%&=[]$ x1"), max_size=4)


@given(before=_hostile, after=_hostile, form=st.sampled_from(range(5)))
def test_canary_in_malformed_uris(before: str, after: str, form: int) -> None:
    """However a password breaks a URI's syntax, the message never shows it."""
    password = before + CANARY + after
    text = [
        f"deltasql://postgres/u:{password}@h:5432/shop/lake",
        f"postgresql://u:{password}@h:5432/shop?schema=lake",
        f"deltasql:/postgres/u:{password}@h/shop/lake",
        f"postgresql//u:{password}@h/shop?schema=lake",
        f"deltasql://u:{password}@h/shop/lake",
    ][form]
    try:
        shown = repr(parse_uri(text, {}))
    except TxnLogUriError as error:
        shown = "".join(traceback.format_exception(error))

    assert CANARY not in shown
    assert "LakeDirectory" not in shown
