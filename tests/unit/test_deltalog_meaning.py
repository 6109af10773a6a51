"""Whether two ways of writing an action mean the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deltalakedb.deltalog import meaning
from deltalakedb.deltalog.meaning import Statistics


def field(name: str, kind: Any, physical: str | None = None) -> dict[str, Any]:
    """A field of a Delta schema."""
    metadata = {} if physical is None else {"delta.columnMapping.physicalName": physical}
    return {"name": name, "type": kind, "nullable": True, "metadata": metadata}


def struct(*fields: Any) -> dict[str, Any]:
    """A struct of a Delta schema."""
    return {"type": "struct", "fields": list(fields)}


_STATISTICS = Statistics(
    json.dumps(
        struct(
            field("i", "long"),
            field("f", "float"),
            field("d", "double"),
            field("dec", "decimal(20,5)"),
            field("renamed", "timestamp", "at"),
            field("wall", "timestamp_ntz"),
            field("s", "string"),
            field("n", struct(field("x", "double"))),
        )
    )
)


def bounds(text: str) -> str:
    """Statistics with these lower bounds."""
    return f'{{"numRecords":3,"minValues":{text}}}'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"numRecords":3}', '{ "numRecords" : 3.0, "tightBounds":true, "minValues":{}, "maxValues":{"i":null} }'),
        ('{"numRecords":1,"nullCount":{"a":0,"b":{"c":1}}}', '{"nullCount":{"b":{"c":1},"a":0},"numRecords":1}'),
        (bounds('{"i":10,"s":"x"}'), bounds('{"s":"\\u0078","i":1e1}')),
        (bounds('{"dec":123.45}'), bounds('{"dec":123.45000}')),
        (bounds('{"d":0.1}'), bounds('{"d":0.1000000000000000055}')),
        (bounds('{"f":0.1}'), bounds('{"f":0.10000000149011612}')),
        (bounds('{"n":{"x":-0.5}}'), bounds('{"n":{"x":-5E-1}}')),
        (bounds('{"at":"2024-01-01T01:00:00.000+01:00"}'), bounds('{"at":"2024-01-01T00:00:00.000000Z"}')),
        (bounds('{"wall":"2024-01-01T00:00:00.000"}'), bounds('{"wall":"2024-01-01 00:00:00"}')),
        (None, "{}"),
        ("garbage", "garbage"),
    ],
)
def test_statistics_that_mean_the_same(one: str | None, other: str | None) -> None:
    """Spelling, order, defaults and the precision that a column's type cannot hold do not count."""
    assert meaning.encoded(_STATISTICS.normal(one)) == meaning.encoded(_STATISTICS.normal(other))
    assert _STATISTICS.normal(one) == _STATISTICS.normal(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"numRecords":3}', '{"numRecords":4}'),
        ('{"numRecords":3}', '{"numRecords":3,"tightBounds":false}'),
        (bounds('{"i":9007199254740993}'), bounds('{"i":9007199254740992}')),
        (bounds('{"dec":0.10000000000000000000000000001}'), bounds('{"dec":0.1}')),
        (bounds('{"d":0.1}'), bounds('{"d":0.10000000149011612}')),
        (bounds('{"at":"2024-01-01T00:00:00.001Z"}'), bounds('{"at":"2024-01-01T00:00:00.000Z"}')),
        (bounds('{"wall":"2024-01-01T00:00:00Z"}'), bounds('{"wall":"2024-01-01T00:00:00"}')),
        (bounds('{"s":"2024-01-01T00:00:00.000Z"}'), bounds('{"s":"2024-01-01T00:00:00Z"}')),
        (bounds('{"s":"1"}'), bounds('{"s":1}')),
        (bounds('{"i":true}'), bounds('{"i":1}')),
        (bounds('{"i":1E999999}'), bounds('{"i":1E999998}')),
        ("{}", "garbage"),
        ("[" * 100_000, "{}"),
    ],
)
def test_statistics_that_do_not(one: str, other: str) -> None:
    """A difference that a reader could notice is one, whatever the numbers' size."""
    assert meaning.encoded(_STATISTICS.normal(one)) != meaning.encoded(_STATISTICS.normal(other))


def test_statistics_without_a_schema_are_compared_as_json() -> None:
    """A schema that cannot be understood is no reason to fail."""
    for schema in ("", "{}", "[]", '{"fields":[{}]}', '{"fields":[{"name":"a","type":{"type":"map"}}]}'):
        assert Statistics(schema).normal('{"minValues":{"a":1.0}}') == {"minValues": {"a": 1}}


def test_protocol_metadata_and_domains() -> None:
    """Features are sets, absent means the default, configurations and schemas are what they say."""
    assert meaning.protocol({"minReaderVersion": 1, "writerFeatures": ["b", "a"], "readerFeatures": None}) == (
        meaning.protocol({"minReaderVersion": 1.0, "writerFeatures": ["a", "b", "a"]})
    )
    assert meaning.protocol({"writerFeatures": ["a"]}) != meaning.protocol({"writerFeatures": ["b"]})
    assert meaning.metadata({"id": "x", "schemaString": '{"a":1}', "format": {"provider": "parquet"}}) == (
        meaning.metadata({"id": "x", "schemaString": '{ "a": 1 }', "name": None, "configuration": {}})
    )
    assert meaning.metadata({"id": "x"}) != meaning.metadata({"id": "x", "name": ""})
    assert meaning.metadata({}) == meaning.metadata({"id": "", "schemaString": '{"fields":[],"type":"struct"}'})
    assert meaning.domain({"configuration": '{"a":1,"b":2}'}) == meaning.domain({"configuration": '{"b":2, "a":1}'})
    assert meaning.domain({"configuration": "a"}) != meaning.domain({"configuration": "b"})


def test_fields_of_a_file() -> None:
    """The empty partition value is NULL; what only a checkpoint has, or only a commit, does not count."""
    add = {"path": "p", "size": 1, "dataChange": True, "tags": {}, "baseRowId": 0, "novelty": [1.0], "x": None}

    assert meaning.partition_values({"a": "", "b": "1"}) == meaning.partition_values({"b": "1", "a": None})
    assert meaning.partition_values(None) == {}
    assert meaning.other_fields(add) == {"size": 1, "baseRowId": 0, "novelty": [1]}
    assert meaning.deletion_vector({"storageType": "u", "offset": None, "maxRowIndex": 9}) == {"storageType": "u"}
    assert meaning.deletion_vector(None) == {}
