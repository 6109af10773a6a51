"""Actions from the text of a log file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from deltalakedb.deltalog import commits
from deltalakedb.deltalog.commits import parse_actions, read_commit
from deltalakedb.errors import LogProblem, TxnLogDeltaLogError
from deltalakedb.events import ImportedAction
from deltalakedb.objectstore import NewObject, ObjectInfo, open_object_store

_A = '{"path":"a","size":1}'
_B = '{"path":"b", "x" : [1.0, 1e2,\t"\\u00fc"]}'
_TWO = [ImportedAction("add", _A), ImportedAction("remove", _B)]


def parsed(data: bytes | str) -> list[ImportedAction]:
    """The actions of a log file with these contents."""
    text = data.encode() if isinstance(data, str) else data
    return list(parse_actions(io.BytesIO(text), path="t/_delta_log/7.json", version=7))


@pytest.mark.parametrize(
    "text",
    [
        f'{{"add":{_A}}}\n{{"remove":{_B}}}\n',
        f'{{"add":{_A}}}\n{{"remove":{_B}}}',
        f'{{"add":{_A}}}\r\n\r\n{{"remove":{_B}}}\r\n',
        f'\n \n{{ "add" : {_A} }}\n\n\t{{"remove":{_B}}}  \n\n',
        f'\ufeff{{"add":{_A}}}\n{{"remove":{_B}}}\n',
        f'{{"add":{_A}}}{{"remove":{_B}}}',
        f'{{"add":{_A},"remove":{_B}}}\n',
        f'{{"txn":null,"add":{_A},"novelty":null}}\n{{}}\n{{"add":null,"remove":{_B}}}\n',
        f'{{\n  "add" :\n{_A}\n}}\n{{\r\n"remove":\r\n {_B}}}',
        f'{{"add":{_A}}}\n{{\n"remove":{_B}}}',
    ],
)
def test_every_form_that_a_reader_accepts(text: str) -> None:
    """Line ends, blank lines, a byte order mark, objects over several lines or together: the actions are the same."""
    assert parsed(text) == _TWO


def test_an_action_stays_byte_for_byte() -> None:
    """Spaces, order, escapes, repeated keys and numbers of any length are as they were, also where it spans lines."""
    body = '{ "b":1.10, "a":\n  "\\u00FC\\/ ü", "a":12345678901234567890123, "c":1E400}'

    assert parsed('{"add":' + body + "}") == [ImportedAction("add", body)]
    assert parsed('{"novelty":[1, 2]}') == [ImportedAction("novelty", "[1, 2]")]


@pytest.mark.parametrize("text", ["", "\n", " \n\r\n", "{}\n", "\ufeff"])
def test_an_empty_commit_is_one(text: str) -> None:
    """A commit may do nothing."""
    assert parsed(text) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f'{{"add":{_A}}}\n{{"remove":{_B[:9]}', 2),
        (b'{"add":{"path":"\xff"}}\n', 1),
        (b"\xff\xfe{\x00}\x00", 1),
        ('{"add":7}\n', 1),
        ('\n\n{"add":"a"}', 3),
        ('{"add":{}}\n[]\n', 2),
        ("null\n", 1),
        ('{"add":{}}\n\n{"add":{"x":NaN}}\n{"add":{}}\n', 3),
        ('{"add":{"x":01}}\n', 1),
        ("\0" * 64, 1),
        ('{"add":{}}\n{"add":' + "[" * 100_000, 2),
        ('{\n"add":{}\n}\n{"add":{},}\n', 4),
        ('{"add":{}}\n\ufeff{"add":{}}', 2),
    ],
)
def test_corruption_is_named_with_file_and_line(text: str | bytes, line: int) -> None:
    """Torn lines, other encodings, what is no object, and numbers that are none: never a silent skip."""
    with pytest.raises(TxnLogDeltaLogError, match=rf"7\.json: line {line} is") as caught:
        parsed(text)
    assert (caught.value.problem, caught.value.version) == (LogProblem.CORRUPT, 7)
    assert caught.value.path == "t/_delta_log/7.json"


@pytest.mark.parametrize("held", [commits.HELD_BYTES, 0])
def test_a_file_is_read_whole_or_by_line_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    """A file that is too large to be held gives the same actions, and the copy it is read from goes again."""
    monkeypatch.setattr(commits, "HELD_BYTES", held)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    store = open_object_store(str(tmp_path / "table"))
    actions = [ImportedAction("add", json.dumps({"path": f"part-{n}", "size": n})) for n in range(100)]
    data = "".join(f'{{"{action.kind}":{action.json}}}\n' for action in actions).encode()
    store.put_if_absent([NewObject("_delta_log/0.json", data)])
    (file,) = store.list("_delta_log/")

    assert list(read_commit(store, file, 0)) == actions
    assert next(read_commit(store, file, 0)) == actions[0]
    assert not list((tmp_path / "temporary").iterdir())


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    """Between listing and reading a log may be cleaned up."""
    store = open_object_store(str(tmp_path))

    with pytest.raises(TxnLogDeltaLogError, match=r"_delta_log/3\.json is not there") as caught:
        list(read_commit(store, ObjectInfo("_delta_log/3.json", 5, 0), 3))
    assert caught.value.problem is LogProblem.VANISHED
