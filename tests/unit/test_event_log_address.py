"""Addresses of event logs: what is understood, what is refused and how, and what opening one needs."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import pytest

from deltalakedb.errors import TxnLogConfigError, TxnLogMissingExtraError, TxnLogUriError
from deltalakedb.eventlog import open_event_log


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("sqlite:///data/lake/log.db", "sqlite:///data/lake/log.db"),
        ("sqlite:////data/log.db", "sqlite:///data/log.db"),
        ("sqlite:///a%20b/50%25/gr%C3%B6%C3%9Fe%3F.db", "sqlite:///a%20b/50%25/gr%C3%B6%C3%9Fe%3F.db"),
        ("kafka://127.0.0.1:9/lake", "kafka://127.0.0.1:9/lake"),
        ("kafka://127.0.0.1/lake", "kafka://127.0.0.1:9092/lake"),
        ("kafka://127.0.0.1:9,[::1]:9093/a.b-c_d", "kafka://127.0.0.1:9,[::1]:9093/a.b-c_d"),
    ],
)
def test_address_is_kept(given: str, understood: str) -> None:
    """A log says its address in one form, which opens it again."""
    with closing(open_event_log(given)) as log:
        assert log.address == understood
        assert understood in repr(log)
    with closing(open_event_log(understood)) as again:
        assert again.address == understood


@pytest.mark.parametrize(
    "address",
    [
        "",
        "log.db",
        "/data/log.db",
        "sqlite:relative.db",
        "sqlite://relative/log.db",
        "sqlite:///",
        "sqlite:///folder/",
        "sqlite:///log.db?mode=ro",
        "sqlite:///log.db#part",
        "sqlite:///log%00.db",
        "kafka://127.0.0.1:9",
        "kafka://127.0.0.1:9/",
        "kafka:///lake",
        "kafka://127.0.0.1:nine/lake",
        "kafka://127.0.0.1:9,/lake",
        "kafka://127.0.0.1:9/lake/other",
        "kafka://127.0.0.1:9/lake?x=1",
        "kafka://127.0.0.1:9/..",
        "kafka://127.0.0.1:9/" + "x" * 231,
        "redpanda://127.0.0.1:9/lake",
    ],
)
def test_address_of_another_form(address: str) -> None:
    """What is no address of a log is refused, and the message says how one looks."""
    with pytest.raises(TxnLogUriError, match=r"kafka://host:9092,host2:9092/<prefix>|sqlite:///absolute/path/log\.db"):
        open_event_log(address)


@pytest.mark.parametrize("address", ["kafka://alice:secret@127.0.0.1:9/lake", "kafka://127.0.0.1:9/alice:secret@lake"])
def test_credentials_in_an_address(address: str) -> None:
    """Credentials in an address are refused, and the message does not repeat them."""
    with pytest.raises(TxnLogUriError, match="credentials") as raised:
        open_event_log(address)

    assert "secret" not in str(raised.value)


def test_options_for_a_file() -> None:
    """Options that would have no effect are refused."""
    with pytest.raises(TxnLogConfigError, match="no options"):
        open_event_log("sqlite:///log.db", options={"sasl.username": "alice"})


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the Kafka client, the error names the extra that brings it."""
    for module in [name for name in sys.modules if name.startswith("deltalakedb.eventlog.kafka")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)

    with pytest.raises(TxnLogMissingExtraError, match=r"pip install 'deltalakedb\[kafka\]'"):
        open_event_log("kafka://127.0.0.1:9/lake")


def test_import_is_light() -> None:
    """Neither adapter is imported before a log of its kind is opened."""
    code = "import sys, deltalakedb.eventlog; print({'confluent_kafka', 'sqlite3'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "set()"
