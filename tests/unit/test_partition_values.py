from __future__ import annotations

import pytest

from deltalakedb_committer.deciding.partition_values import value_problem


@pytest.mark.parametrize(
    ("data_type", "texts"),
    [
        ("string", ["a", "ä/b=c", " ", "__HIVE_DEFAULT_PARTITION__"]),
        ("byte", ["0", "-128", "127"]),
        ("short", ["-32768"]),
        ("integer", ["2147483647"]),
        ("long", ["-9223372036854775808", "9223372036854775807", "007"]),
        ("float", ["1", "1.5", "-0.0", "1E10", "1e-5", "NaN", "Infinity", "-Infinity", ".5", "5."]),
        ("double", ["1.7976931348623157E308"]),
        ("decimal(5,2)", ["1.00", "-999.99", "0.00", "000.10"]),
        ("decimal(5,0)", ["12345", "-1"]),
        ("boolean", ["true", "false"]),
        ("date", ["1970-01-01", "9999-12-31", "0001-01-01"]),
        (
            "timestamp",
            ["2024-01-02T03:04:05Z", "2024-01-02T03:04:05.123456Z", "2024-01-02 03:04:05", "2024-01-02 03:04:05.1"],
        ),
        ("timestamp_ntz", ["2024-01-02 03:04:05", "2024-01-02 03:04:05.123456"]),
        ("binary", ["\u0001"]),
    ],
)
def test_texts_that_every_reader_takes(data_type: str, texts: list[str]) -> None:
    """Delta's own serialisation of each type."""
    assert {text: value_problem(data_type, text) for text in texts} == dict.fromkeys(texts)


@pytest.mark.parametrize(
    ("data_type", "texts"),
    [
        ("string", [""]),
        ("byte", ["128", "-129", "1.0", "a", "", "+1", "1 ", "٣"]),
        ("long", ["9223372036854775808", "99999999999999999999", "0x1"]),
        ("double", ["", "nan", "inf", "1,5", "e5", "."]),
        ("decimal(5,2)", ["1", "1.0", "1.000", "1000.00", "1.2E1", ".10", "-"]),
        ("decimal(5,0)", ["1.", "1.0", "123456"]),
        ("boolean", ["TRUE", "1", ""]),
        ("date", ["2024-1-1", "20240101", "2024-02-30", "2024-01-01T00:00:00", "2024-W01-1"]),
        (
            "timestamp",
            [
                "2024-01-02",
                "2024-01-02T03:04:05+02:00",
                "2024-01-02T03:04:05",
                "2024-01-02T25:00:00Z",
                "2024-01-02T03:04:05.1234567Z",
            ],
        ),
        ("timestamp_ntz", ["2024-01-02T03:04:05", "2024-01-02 03:04:05Z", "2024-13-02 03:04:05"]),
        ("variant", ["1"]),
    ],
)
def test_texts_that_some_reader_does_not_take(data_type: str, texts: list[str]) -> None:
    """Every problem says what to write."""
    for text in texts:
        assert value_problem(data_type, text), text
