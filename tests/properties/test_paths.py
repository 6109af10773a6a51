"""Path confinement against a second reading of the same rules, and against what readers make of paths."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote, urljoin, urlsplit

from hypothesis import example, given, settings
from hypothesis import strategies as st

from deltalakedb.paths import path_problem

ROOT = "/lake/orders/"
COLUMNS = ("p", "_p")

_PIECES = (
    *("a", "b.parquet", "p=1", "_p=1", "_x", "..", ".", "...", "/", "//", "\\", "~", "+", " ", ":", "?", "#", "é"),
    *("%2e", "%2E%2e", "%252e", "%252E%252e", "%25252e", "%2f", "%252F", "%5c", "%255c", "%00", "%0a", "%20", "%5f"),
    *(
        "%",
        "%z",
        "%c3%a9",
        "%ff",
        "\0",
        "\n",
        "\x7f",
        "\x85",
        "_delta_log",
        "_Delta_Log",
        "_change_data",
        "%5fdelta_log",
    ),
    *("file:", "s3://", "C:", "c%3A", "http%3a//x", "=", "@", "-evil", "&", "%3f", "\u2028", "x" * 1020),
)
paths = st.one_of(
    st.lists(st.sampled_from(_PIECES), max_size=7).map("".join),
    st.lists(st.sampled_from(_PIECES), max_size=5).map("/".join),
    st.text(max_size=20),
)


def allowed(path: str, columns: tuple[str, ...], change_data: bool) -> bool:
    """The rules once more, letter by letter and slowly."""
    if not 0 < len(path.encode("utf-8", "surrogatepass")) <= 1024:
        return False
    decoded = _decoded(path)
    if decoded is None:
        return False
    for text in (path, decoded):
        if any(ord(c) < 32 or 127 <= ord(c) < 160 or c == "\\" for c in text) or _has_scheme(text):
            return False
        if text[:1].isspace() or text[-1:].isspace():
            return False
        if any(not segment or _is_dots(segment) or segment.lower() == "_delta_log" for segment in text.split("/")):
            return False
    twice = unquote(decoded, errors="replace").replace("\\", "/")
    if any(_is_dots(segment) for segment in twice.split("/")):
        return False
    first, slash, _ = decoded.partition("/")
    if not first.startswith(("_", ".")):
        return True
    if change_data and first == "_change_data" and slash:
        return True
    return any(first.startswith(column + "=") for column in columns)


def _is_dots(segment: str) -> bool:
    return bool(segment) and all(c in " ." for c in segment)


def _decoded(path: str) -> str | None:
    out = bytearray()
    at = 0
    while at < len(path):
        if path[at] == "%":
            digits = path[at + 1 : at + 3]
            if len(digits) != 2 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
                return None
            out.append(int(digits, 16))
            at += 3
        else:
            out += path[at].encode("utf-8", "surrogatepass")
            at += 1
    try:
        return out.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _has_scheme(text: str) -> bool:
    name, colon, _ = text.partition(":")
    if not colon or not name or not (name[0].isascii() and name[0].isalpha()):
        return False
    return all(c.isascii() and (c.isalnum() or c in "+.-") for c in name)


@given(paths, st.sampled_from([(), COLUMNS]), st.booleans())
@example("_change_data/x", (), True)
@example("_change_data", (), True)
@example("a/../../x", (), False)
@settings(max_examples=2_000, deadline=None)
def test_it_is_what_the_rules_say(path: str, columns: tuple[str, ...], change_data: bool) -> None:
    """Exactly: neither more is allowed nor less."""
    assert (path_problem(path, columns, change_data=change_data) is None) == allowed(path, columns, change_data)


@given(paths, st.booleans())
@settings(max_examples=2_000, deadline=None)
def test_no_reader_is_led_out(path: str, change_data: bool) -> None:
    """Decoded never, once or twice, joined as a file or resolved as a URI: it stays in the table, and out of its log."""
    if path_problem(path, COLUMNS, change_data=change_data) is not None:
        return

    for text in (path, unquote(path), unquote(unquote(path))):
        for slashes in (text, text.replace("\\", "/")):
            joined = posixpath.normpath(posixpath.join(ROOT, slashes)) if not slashes.startswith("/") else slashes
            if slashes.startswith("/"):
                assert text not in (path, unquote(path))
                continue
            assert joined.startswith(ROOT)
            assert not joined.startswith(ROOT + "_delta_log")
    for text in (path, unquote(path)):
        resolved = urlsplit(urljoin("http://bucket" + ROOT, text))
        assert (resolved.scheme, resolved.netloc) == ("http", "bucket")
        assert resolved.path.startswith(ROOT)


@given(
    st.lists(
        st.text(st.sampled_from("abcXYZ019-_.=~+@,"), min_size=1, max_size=8).filter(lambda s: s[0] not in "._"),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=300, deadline=None)
def test_ordinary_paths_pass(segments: list[str]) -> None:
    """What writers of Delta tables call their files."""
    assert path_problem("/".join(segments)) is None


@given(st.text(min_size=1, max_size=12).filter(lambda s: "\0" not in s))
@settings(max_examples=300, deadline=None)
def test_partition_folders_pass_as_writers_escape_them(value: str) -> None:
    """Twice: once as a folder's name, once as a URI."""
    from urllib.parse import quote

    folder = "day=" + quote(value.encode("utf-8", "surrogatepass"), safe="")

    assert path_problem(quote(folder, safe="=") + "/f.parquet", ("day",)) is None
