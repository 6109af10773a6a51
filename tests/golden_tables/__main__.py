"""`make golden`: every golden table through every store and back, and read by every reader; a table of what came of it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from tests.fix_golden import GOLDEN
from tests.golden_tables.readers import differing, in_process
from tests.golden_tables.roundtrip import Verdict, entries, name_of, refusal_of, round_trip
from tests.golden_tables.stores import STORES, lake_on
from tests.services.readers import ReaderLost, ReaderProcess
from tests.services.run import ServerSet


def main() -> int:
    """Exit code 0 if every table came back equal, or was refused for the right reason."""
    arguments = _arguments()
    folder: Path = arguments.folder
    if not (folder / "index.json").is_file():
        sys.stderr.write(f"no golden tables: {folder} has no index.json; name a folder that does (GOLDEN=...)\n")
        return 2
    found = [entry for entry in entries(folder) if arguments.only in entry["table"]]
    verdicts: dict[str, list[tuple[str, Verdict]]] = defaultdict(list)
    began = time.monotonic()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deltalakedb-golden-")))
        readers = stack.enter_context(_readers(scratch, with_spark=arguments.spark))
        servers = stack.enter_context(ServerSet())
        for store in arguments.stores:
            place = scratch / store
            place.mkdir()
            with lake_on(store, place, servers) as lake:
                for entry in found:
                    table = folder / entry["table"]
                    wanted = refusal_of(entry, table)
                    try:
                        verdict = round_trip(
                            lake, table, name_of(entry), place / name_of(entry), expected_refusal=wanted
                        )
                    except Exception as error:
                        verdict = Verdict(
                            table=entry["table"], outcome="failed", detail=f"{type(error).__name__}: {error}"
                        )
                    # What readers find is what the log says, and that is compared on every store.
                    if verdict.copy is not None and verdict.ok and store == arguments.stores[0]:
                        # Spark takes seconds to find out that a file is missing.
                        able = {name: read for name, read in readers.items() if name != "spark" or _is_whole(entry)}
                        try:
                            different = differing(table, verdict.copy, able)
                        except ReaderLost as lost:
                            different = [str(lost)]
                        if different:
                            verdict = Verdict(table=entry["table"], outcome="failed", detail="; ".join(different))
                    verdicts[entry["suite"]].append((store, verdict))
                    if not verdict.ok:
                        _say(f"{store}: {entry['table']}: {verdict.detail[:1_000]}")
    _say(_table(verdicts, arguments.stores))
    _say(f"read by {', '.join(readers)} where they read the original; {time.monotonic() - began:.0f} s")
    return int(any(not verdict.ok for some in verdicts.values() for _, verdict in some))


def _arguments() -> Any:
    parser = argparse.ArgumentParser(prog="make golden", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=GOLDEN, help="with an index.json (GOLDEN=)")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--no-spark", dest="spark", action="store_false", help="without Spark, which takes minutes")
    parser.add_argument("--only", default="", help="tables with this in their name")
    return parser.parse_args()


@contextmanager
def _readers(scratch: Path, *, with_spark: bool) -> Iterator[dict[str, Callable[[Path], str]]]:
    """Every reader there is."""
    with ExitStack() as stack:
        names: tuple[Literal["sail", "spark"], ...] = ("sail", "spark") if with_spark else ("sail",)
        apart = {name: stack.enter_context(ReaderProcess(name, scratch / f"{name}.log")) for name in names}
        yield {**in_process(), **{name: reader.digest for name, reader in apart.items()}}


def _is_whole(entry: dict[str, Any]) -> bool:
    """Whether every data file of a table is there."""
    return not entry.get("data_files_missing")


def _table(verdicts: dict[str, list[tuple[str, Verdict]]], stores: list[str]) -> str:
    """Per suite and store: imported / equal / refused / failed."""
    header = ("suite", "tables", *(f"{store}: imported / equal / refused / failed" for store in stores))
    rows = [header]
    total: dict[str, Counter[str]] = defaultdict(Counter)
    for suite, some in sorted(verdicts.items()):
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for store, verdict in some:
            for key in (verdict.outcome, *(["imported"] if verdict.copy is not None else [])):
                counts[store][key] += 1
                total[store][key] += 1
        rows.append((suite, str(len(some) // len(stores)), *(_counts(counts[store]) for store in stores)))
    count = sum(len(some) for some in verdicts.values()) // len(stores)
    rows.append(("all", str(count), *(_counts(total[store]) for store in stores)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _counts(found: Counter[str]) -> str:
    return " / ".join(str(found[key]) for key in ("imported", "equal", "refused", "failed"))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
