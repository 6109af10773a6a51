"""Any valid sequence of actions goes through SQL and comes out as what it was, version by version."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import deltalakedb
from deltalakedb.catalog import Catalog
from deltalakedb.database import open_database
from deltalakedb.deltalog import meaning
from deltalakedb.deltalog.commits import parse_actions
from deltalakedb.lake import Lake
from deltalakedb.log_names import log_path
from deltalakedb_mirror_worker.render import render

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
_LONGS = st.integers(-(2**63), 2**63 - 1)
_JSON = st.recursive(
    st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXTS, inner, min_size=1, max_size=2),
    max_leaves=4,
)
_UNKNOWN = st.dictionaries(_TEXTS.map("x{}".format), _JSON, max_size=2)
_TAGS = st.dictionaries(_TEXTS, _TEXTS, min_size=1, max_size=2)
_VECTORS = st.fixed_dictionaries(
    {
        "storageType": st.just("u"),
        "pathOrInlineDv": st.just("ab^-aqEH.-t@S}K{vb[*k^"),
        "sizeInBytes": st.integers(1, 99),
        "cardinality": st.integers(1, 99),
    },
    optional={"offset": st.integers(0, 99), "maxRowIndex": st.integers(0, 99)},
)
_PATHS = st.sampled_from(["a", "p=%C3%BC/b%20c.parquet", "p=1/d", "e%25f", "g/h/i.parquet"])
_STATS = st.sampled_from(
    ['{"numRecords":3}', '{ "numRecords" : 3.0,"minValues":{"id":1e0}}', "{}", "", "garbage", "[1"]
)


def _file(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    required = {"path": _PATHS, "dataChange": st.booleans()}
    optional = {
        "deletionVector": _VECTORS,
        "tags": _TAGS,
        "stats": _STATS,
        "baseRowId": st.integers(0, 2**62),
        "defaultRowCommitVersion": st.integers(0, 2**62),
        **more,
    }
    return _with_unknown(st.fixed_dictionaries(required, optional=optional))


def _with_unknown(bodies: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda body, unknown: {**unknown, **body}, bodies, _UNKNOWN)


_VALUES = st.fixed_dictionaries({"p": st.none() | _TEXTS.filter(bool)})
_SIZES = {"size": st.integers(0, 2**62)}
_ADDS = st.builds(
    lambda body, sure: {**body, **sure},
    _file(clusteringProvider=_TEXTS),
    st.fixed_dictionaries({"partitionValues": _VALUES, "modificationTime": _LONGS, **_SIZES}),
)
_REMOVES = _file(
    deletionTimestamp=_LONGS, extendedFileMetadata=st.booleans(), partitionValues=_VALUES, size=st.integers(0, 2**62)
)
_CDC = _with_unknown(
    st.fixed_dictionaries(
        {"path": st.just("_change_data/c"), "partitionValues": _VALUES, "dataChange": st.just(False), **_SIZES},
        optional={"tags": _TAGS},
    )
)
_TXNS = _with_unknown(st.fixed_dictionaries({"appId": _TEXTS, "version": _LONGS}, optional={"lastUpdated": _LONGS}))
_DOMAINS = _with_unknown(st.fixed_dictionaries({"domain": _TEXTS, "configuration": _TEXTS, "removed": st.booleans()}))
_SCHEMA = {
    "type": "struct",
    "fields": [{"name": n, "type": t, "nullable": True, "metadata": {}} for n, t in (("id", "long"), ("p", "string"))],
}
_METADATA = _with_unknown(
    st.fixed_dictionaries(
        {
            "id": _TEXTS,
            "schemaString": st.sampled_from([json.dumps(_SCHEMA), json.dumps(_SCHEMA, indent=1)]),
            "partitionColumns": st.just(["p"]),
            "format": st.fixed_dictionaries(
                {"provider": st.just("parquet"), "options": st.dictionaries(_TEXTS, _TEXTS, max_size=1)}
            ),
            "configuration": st.dictionaries(_TEXTS.map("my.{}".format), _TEXTS, max_size=2),
        },
        optional={"name": _TEXTS, "description": _TEXTS, "createdTime": _LONGS},
    )
)
_PROTOCOLS = _with_unknown(
    st.just({"minReaderVersion": 1, "minWriterVersion": 2})
    | st.just({"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["rowTracking", "a feature of tomorrow"]})
    | st.just({"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]})
)  # fmt: skip
_INFOS = _with_unknown(
    st.fixed_dictionaries(
        {"timestamp": st.integers(0, 2**40)}, optional={"operation": _TEXTS, "txnId": _TEXTS, "tags": _TAGS}
    )
)
_ANY = _with_unknown(st.fixed_dictionaries({"a": _JSON}))


def _of(kind: str, bodies: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return bodies.map(lambda body: (kind, body))


def _identity(action: tuple[str, dict[str, Any]]) -> Any:
    """Of what a version has one of each."""
    kind, body = action
    if kind in ("add", "remove", "cdc"):
        return kind, body["path"]
    return kind, body.get("appId"), body.get("domain")


def _file_of(action: tuple[str, dict[str, Any]]) -> Any:
    """What a version does one thing to: there is no order within it in which a file would come and go."""
    kind, body = action
    if kind in ("add", "remove"):
        vector = body.get("deletionVector")
        return "file", body["path"], vector and (vector["pathOrInlineDv"], vector.get("offset"))
    return _identity(action)


_ACTIONS = st.one_of(
    _of("add", _ADDS), _of("add", _ADDS), _of("remove", _REMOVES), _of("cdc", _CDC), _of("txn", _TXNS),
    _of("domainMetadata", _DOMAINS), _of("metaData", _METADATA), _of("protocol", _PROTOCOLS),
    _of("commitInfo", _INFOS), _of("novelty", _ANY),
)  # fmt: skip
_HISTORIES = st.builds(
    lambda protocol, metadata, first, later: [[("protocol", protocol), ("metaData", metadata), *first], *later],
    _PROTOCOLS,
    _METADATA,
    st.lists(st.one_of(_of("add", _ADDS), _of("commitInfo", _INFOS)), max_size=4, unique_by=_identity),
    st.lists(st.lists(_ACTIONS, max_size=5, unique_by=(_identity, _file_of)), max_size=3),
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """An embedded lake that takes the tables of all examples."""
    with deltalakedb.connect(str(tmp_path_factory.mktemp("round") / "lake")) as lake:
        yield lake


_names = itertools.count()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(_HISTORIES)
def test_actions_to_sql_and_back_are_the_same(
    lake: Lake, tmp_path_factory: pytest.TempPathFactory, history: list[list[tuple[str, dict[str, Any]]]]
) -> None:
    """Every action of every version, with every field, known or not: what SQL gives is parsed to what was imported."""
    folder = tmp_path_factory.mktemp("table")
    name = f"t{next(_names)}"
    (folder / "_delta_log").mkdir()
    for version, actions in enumerate(history):
        text = "".join(json.dumps({kind: body}) + "\n" for kind, body in actions)
        (folder / log_path("", version)).write_text(text)
    lake.import_table(name, str(folder), cutover=False)

    assert rendered(lake, name, folder) == [spelled(actions) for actions in history]


def rendered(lake: Lake, name: str, folder: Path) -> list[list[bytes]]:
    """The versions of a table as SQL gives them."""
    database = open_database(lake.settings.address)
    try:
        with database.snapshot():
            catalog = Catalog(database)
            table = catalog.table(name)
            versions = catalog.versions([(table.table_no, 0, table.version)])
        parsed = [
            parse_actions(io.BytesIO(render(version)), path=str(folder), version=version.row.version)
            for version in versions
        ]
        return [spelled([(action.kind, json.loads(action.json)) for action in actions]) for actions in parsed]
    finally:
        database.close()


def spelled(actions: list[tuple[str, dict[str, Any]]]) -> list[bytes]:
    """Actions without regard to their order and to the order of fields."""
    return sorted(meaning.encoded([kind, meaning.normal(body)]) for kind, body in actions)
