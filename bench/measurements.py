"""The measurements of a run, by name: each makes what it needs, runs it and gives its figures."""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from deltalakedb.database.address import Engine, StoreAddress
from tests.hostile import Hostile
from tests.pipeline import LakeAddress, embedded, in_duckdb, on_servers
from tests.services import kafka
from tests.services.run import Addresses
from tests.stores import postgres_address

from . import backlog, big, checkpoints, data, file_rows, flatness, floors, importing, peers, publishing
from .cpu import CpuProbe
from .harness import Load, Measured, Workload, run
from .mirror import PublishedProbe
from .report import Line
from .workloads import Kind, TwoTableAppend, create_tables

logger = logging.getLogger(__name__)

PAIRS = 8
"""Pairs of tables that many transactions in flight are spread over."""
IN_FLIGHT = 64
PACED_RATE = 200.0
BUSY_RATE = 1000.0
"""Transactions per second of all clients together, over `PAIRS` pairs of tables."""
FULL_PAIRS = 16
"""Pairs for as much as there can be: a table takes about 1,000 versions a second."""
FULL_IN_FLIGHT = 128
"""As many as a client has by default."""
FOLD_WINDOW_MS = 50
FLOOD_RATE = 1_000_000
"""Bytes a second that the broker takes of a client that would send as much as it can."""
FLOOD_PERCENTAGE = 50
"""Share of one of the broker's threads that it may have."""
FILES = 1_000_000
DRAIN_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What every measurement gets."""

    servers: Addresses
    warm_up: float
    seconds: float

    def load(self, clients: int, *, in_flight: int = 1, rate: float | None = None) -> Load:
        """A load over the run's warm-up and window."""
        return Load(clients=clients, in_flight=in_flight, rate=rate, warm_up=self.warm_up, seconds=self.seconds)


Measurement = Callable[[Setting, Path], Iterator[Line]]


def measurements() -> dict[str, Measurement]:
    """Every measurement by name, `<kind>.<store>.<mode>.<clients>`; the peers first, as ours are shown beside them."""
    found: dict[str, Measurement] = {"floor.disk.closed.1": _disk, "floor.postgres.closed.1": _one_row}
    for clients in (1, 8):
        found[f"floor.kafka.closed.{clients}"] = partial(_echo, clients)
    for clients in (1, 8):
        found[f"commit.ducklake.closed.{clients}"] = partial(_ducklake, "commit", clients)
        found[f"append.ducklake.closed.{clients}"] = partial(_ducklake, "append", clients)
        found[f"append.delta-rs.closed.{clients}"] = partial(_delta_rs, clients)
    kinds: tuple[Kind, ...] = ("commit", "append")
    for kind in kinds:
        for mode, clients in (("closed", 1), ("closed", 8), ("open", 8)):
            found[f"{kind}.postgres.{mode}.{clients}"] = partial(_on_servers, kind, mode, clients)
            found[f"{kind}.sqlite.{mode}.{clients}"] = partial(_embedded, kind, mode, clients)
        for mode in ("closed", "open"):
            found[f"{kind}.duckdb.{mode}.1"] = partial(_in_duckdb, kind, mode)
    stores: tuple[Engine, ...] = ("postgres", "sqlite", "duckdb")
    for store in stores:
        found[f"files.{store}.batch.1"] = partial(_file_rows, store)
    found["commit.postgres.paced.1"] = partial(_paced, 1, PACED_RATE, 1)
    found["commit.postgres.paced.8"] = partial(_paced, 8, BUSY_RATE / 8, PAIRS)
    found["commit.postgres.unfolded.8"] = partial(_unfolded, 8)
    found["commit.postgres.folded.8"] = partial(_folded, 8)
    found["fair.postgres.closed.8"] = partial(_fair, 8)
    found["mirror.postgres.backlog.1"] = partial(_mirror_backlog, 1)
    found[f"mirror.postgres.backlog.{PAIRS}"] = partial(_mirror_backlog, PAIRS)
    found["committer.postgres.backlog.8"] = _committer_backlog
    found["big.postgres.open.1"] = partial(_big, 1_000_000)
    found["flat.postgres.versions.1"] = partial(_flat, flatness.versions, flatness.VERSIONS, "versions")
    found["flat.postgres.files.1"] = partial(_flat, flatness.files, flatness.FILES, "files")
    found["import.postgres.commits.1"] = partial(_import, "commits", 1_000, 1)
    found["import.postgres.files.1"] = partial(_import, "files", 1, 1_000_000)
    found["publish.local.backlog.8"] = partial(_publish, "local")
    found["publish.s3.backlog.8"] = partial(_publish, "s3")
    found["checkpoint.postgres.files.1"] = _checkpoint
    return found


def warm_broker(servers: Addresses, seconds: float) -> None:
    """Before the first measurement with a broker: for its first minute Java would be measured, not Kafka."""
    echo = floors.Echo(f"kafka://{servers.kafka()}/warm-{uuid.uuid4().hex[:12]}")
    echo.create()
    echo.warm_up(seconds)


def measure(name: str, setting: Setting) -> Iterator[Line]:
    """Runs one measurement in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="deltalakedb-bench-") as folder:
        yield from measurements()[name](setting, Path(folder))


def _on_servers(kind: Kind, mode: str, clients: int, setting: Setting, folder: Path) -> Iterator[Line]:
    with on_servers(setting.servers, folder) as pipeline:
        workload = _workload(kind, mode, pipeline.address)
        load = setting.load(clients, in_flight=IN_FLIGHT if mode == "open" else 1)
        published = PublishedProbe(pipeline.address.tables_folder, pipeline.address.heads)
        cpu = CpuProbe(pipeline.services)
        measured = run(workload, load, [cpu, published])
        yield from _lines(kind, f"postgres.{mode}.{clients}", measured, cpu)
        yield from _mirror_lines(kind, f"postgres.{mode}.{clients}", published, load)


def _embedded(kind: Kind, mode: str, clients: int, setting: Setting, folder: Path) -> Iterator[Line]:
    address = embedded(folder)
    workload = _workload(kind, mode, address)
    load = setting.load(clients, in_flight=IN_FLIGHT if mode == "open" else 1)
    published = PublishedProbe(address.tables_folder, address.heads)
    cpu = CpuProbe({})
    measured = run(workload, load, [cpu, published])
    yield from _lines(kind, f"sqlite.{mode}.{clients}", measured, cpu)
    yield from _mirror_lines(kind, f"sqlite.{mode}.{clients}", published, load)


def _in_duckdb(kind: Kind, mode: str, setting: Setting, folder: Path) -> Iterator[Line]:
    """One process has the store, so that nobody can see from outside how far the mirror is."""
    workload = _workload(kind, mode, in_duckdb(folder))
    cpu = CpuProbe({})
    measured = run(workload, setting.load(1, in_flight=IN_FLIGHT if mode == "open" else 1), [cpu])
    yield from _lines(kind, f"duckdb.{mode}.1", measured, cpu)


def _file_rows(store: Engine, setting: Setting, folder: Path) -> Iterator[Line]:
    if store == "postgres":
        address = postgres_address(_new_database(setting, "files"))
    else:
        address = StoreAddress(engine=store, path=str(folder / "lake"))
    rates = file_rows.measured(address)
    yield Line(f"files-insert-rate.{store}.batch.1", rates.inserted, "rows/s")
    yield Line(f"files-remove-rate.{store}.batch.1", rates.removed, "rows/s")


def _paced(clients: int, rate: float, pairs: int, setting: Setting, folder: Path) -> Iterator[Line]:
    """The mirror under a steady rate of versions: to two tables as many as one has to take, to all as many as there are."""
    with on_servers(setting.servers, folder) as pipeline:
        workload = _workload("commit", "closed", pipeline.address, pairs)
        load = setting.load(clients, rate=rate)
        published = PublishedProbe(pipeline.address.tables_folder, pipeline.address.heads)
        cpu = CpuProbe(pipeline.services)
        measured = run(workload, load, [cpu, published])
        yield from _lines("commit", f"postgres.paced.{clients}", measured, cpu)
        yield from _mirror_lines("commit", f"postgres.paced.{clients}", published, load)


def _unfolded(clients: int, setting: Setting, folder: Path) -> Iterator[Line]:
    """As many transactions in flight as clients have by default, over as many tables as take a version of each."""
    with on_servers(setting.servers, folder) as pipeline:
        workload = _workload("commit", "closed", pipeline.address, FULL_PAIRS)
        load = setting.load(clients, in_flight=FULL_IN_FLIGHT)
        published = PublishedProbe(pipeline.address.tables_folder, pipeline.address.heads)
        cpu = CpuProbe(pipeline.services)
        measured = run(workload, load, [cpu, published])
        yield from _lines("commit", f"postgres.unfolded.{clients}", measured, cpu)
        yield from _mirror_lines("commit", f"postgres.unfolded.{clients}", published, load)


def _folded(clients: int, setting: Setting, folder: Path) -> Iterator[Line]:
    """As many transactions in flight as clients have by default, all on one pair of tables, where they share commits."""
    with on_servers(setting.servers, folder) as pipeline:
        workload = _workload("commit", "closed", pipeline.address)
        pipeline.address.fold(FOLD_WINDOW_MS)
        load = setting.load(clients, in_flight=FULL_IN_FLIGHT)
        published = PublishedProbe(pipeline.address.tables_folder, pipeline.address.heads)
        cpu = CpuProbe(pipeline.services)
        measured = run(workload, load, [cpu, published])
        where = f"postgres.folded.{clients}"
        yield from _lines("commit", where, measured, cpu)
        yield from _mirror_lines("commit", where, published, load)
        versions = published.versions / len(workload.pairs[0].tables)
        yield Line(f"commit-folded.{where}", measured.count / versions if versions else 0.0, "tx/version")


def _fair(clients: int, setting: Setting, folder: Path) -> Iterator[Line]:
    """The closed loop by itself; beside a client that floods the log under a quota; and beside one without."""
    with on_servers(setting.servers, folder) as pipeline:
        workload = _workload("commit", "closed", pipeline.address)
        load, log = setting.load(clients), pipeline.address.log
        yield from _latency_lines("fair", f"postgres.alone.{clients}", run(workload, load))
        with pipeline.address.connect() as lake:
            identity = (lake.lake_id, lake.root)
        for what, rate in (("quota", FLOOD_RATE), ("flood", None)):
            flood = f"{what}-{uuid.uuid4().hex[:8]}"
            if rate is not None:
                kafka.limit(
                    setting.servers.kafka(), flood, producer_byte_rate=rate, request_percentage=FLOOD_PERCENTAGE
                )
            with Hostile(str(log), *identity, flood, folder / flood) as hostile:
                measured = run(workload, load)
                taken = hostile.taken()
            yield from _latency_lines("fair", f"postgres.{what}.{clients}", measured)
            yield Line(f"fair-failed.postgres.{what}.{clients}", measured.failures.total(), "tx")
            yield Line(f"fair-flood.postgres.{what}.{clients}", taken.bytes / taken.seconds / 1e6, "MB/s")
            yield Line(f"fair-flood-records.postgres.{what}.{clients}", taken.records / taken.seconds, "records/s")


def _publish(where: str, setting: Setting, folder: Path) -> Iterator[Line]:
    """The mirror's step alone, from Postgres to a kind of object store."""
    address = postgres_address(_new_database(setting, "publish"))
    if where == "s3":
        root, options = publishing.bucket(setting.servers.s3())
    else:
        root, options = (folder / "tables").as_uri(), None
    yield Line(f"publish-rate.{where}.backlog.{PAIRS}", publishing.rate(address, folder, root, options), "versions/s")


def _checkpoint(setting: Setting, folder: Path) -> Iterator[Line]:
    """A checkpoint of a million files: delta-rs's own of the log that we published, and ours from SQL."""
    address = postgres_address(_new_database(setting, "checkpoint"))
    location = checkpoints.fill(address, folder, FILES)
    peer = checkpoints.delta_rs(checkpoints.copied(location, folder))
    ours = checkpoints.ours(address, location)
    for what, cost in (("delta-rs", peer), ("postgres", ours)):
        yield Line(f"checkpoint-seconds.{what}.files.1", cost.seconds, "s")
        yield Line(f"checkpoint-peak.{what}.files.1", cost.peak_bytes / 2**20, "MiB")


def _mirror_backlog(pairs: int, setting: Setting, folder: Path) -> Iterator[Line]:
    """The mirror alone: versions are committed first, then it is started and publishes them."""
    with on_servers(setting.servers, folder) as pipeline:
        pipeline.mirror.stop()
        workload = _workload("commit", "open", pipeline.address, pairs)
        run(workload, setting.load(PAIRS, in_flight=IN_FLIGHT))
        found = backlog.mirror(pipeline, DRAIN_SECONDS)
    yield from _backlog_lines("mirror", f"postgres.backlog.{pairs}", "versions", found)


def _committer_backlog(setting: Setting, folder: Path) -> Iterator[Line]:
    """The committer alone: transactions are published first, then it is started and decides them."""
    with on_servers(setting.servers, folder) as pipeline:
        pairs = data.pairs(FULL_PAIRS)
        with pipeline.address.connect() as lake:
            create_tables(lake, pairs)
        pipeline.mirror.stop()
        pipeline.committer.stop()
        run(backlog.Publish.of(pipeline.address, pairs), setting.load(PAIRS, in_flight=backlog.IN_FLIGHT))
        found = backlog.committer(pipeline, DRAIN_SECONDS)
    yield from _backlog_lines("committer", "postgres.backlog.8", "tx", found)


def _big(actions: int, setting: Setting, folder: Path) -> Iterator[Line]:
    """One transaction of very many actions, and what others notice of it."""
    with on_servers(setting.servers, folder) as pipeline:
        pipeline.mirror.stop()
        pair = data.pairs(1)[0]
        big.create_tables(pipeline.address)
        with pipeline.address.connect() as lake:
            create_tables(lake, (pair,))
        with big.Others(pipeline.address, pair) as others:
            done = big.commit(pipeline.address, pipeline.services["committer"], actions)
        seen = others.latencies
    yield Line("big-seconds.postgres.open.1", done.seconds, "s")
    yield Line("big-rate.postgres.open.1", actions / done.seconds, "actions/s")
    yield Line("big-committer-memory.postgres.open.1", done.committer_bytes / 1e6, "MB")
    yield Line("big-client-memory.postgres.open.1", done.client_bytes / 1e6, "MB")
    yield Line("big-others-p50.postgres.open.1", seen[len(seen) // 2] * 1e3, "ms")
    yield Line("big-others-p99.postgres.open.1", seen[len(seen) * 99 // 100] * 1e3, "ms")
    yield Line("big-others-longest.postgres.open.1", seen[-1] * 1e3, "ms")


def _flat(fill: flatness.Fill, sizes: tuple[int, int], what: str, setting: Setting, folder: Path) -> Iterator[Line]:
    """What a commit costs beside few versions or files, and beside many."""
    small, large = [(postgres_address(_new_database(setting, f"flat{size}")), size) for size in sizes]
    costs = flatness.measured(small, large, fill)
    where = f"postgres.{what}.1"
    yield Line(f"flat-small.{where}", costs.small * 1e6, "us/tx")
    yield Line(f"flat-large.{where}", costs.large * 1e6, "us/tx")
    yield Line(f"flat-growth.{where}", costs.growth, "times")


def _import(what: str, commits: int, files: int, setting: Setting, folder: Path) -> Iterator[Line]:
    """An existing table through the log into SQL: many commits of one file, or one of a million."""
    importing.make_commits(folder / "table", commits, files)
    with on_servers(setting.servers, folder) as pipeline:
        pipeline.mirror.stop()
        done = importing.run_import(folder / "table", pipeline.address, pipeline.services["committer"])
    where = f"postgres.{what}.1"
    yield Line(f"import-rate.{where}", commits * files / done.seconds, "files/s")
    yield Line(f"import-seconds.{where}", done.seconds, "s")
    yield Line(f"import-memory.{where}", done.peak_bytes / 1e6, "MB")
    yield Line(f"import-committer-memory.{where}", done.committer_bytes / 1e6, "MB")


def _ducklake(kind: Kind, clients: int, setting: Setting, folder: Path) -> Iterator[Line]:
    url = _new_database(setting, "ducklake")
    peer = peers.DuckLake(postgres_url=url, folder=folder, inlined=kind == "commit", pair=data.pairs(1)[0])
    peer.create()
    yield from _peer_lines(kind, f"ducklake.closed.{clients}", peer, setting.load(clients))


def _delta_rs(clients: int, setting: Setting, folder: Path) -> Iterator[Line]:
    peer = peers.DeltaRs(folder=folder, pair=data.pairs(1)[0])
    peer.create()
    yield from _peer_lines("append", f"delta-rs.closed.{clients}", peer, setting.load(clients))


def _disk(setting: Setting, folder: Path) -> Iterator[Line]:
    measured = run(floors.Sync(folder), setting.load(1))
    yield from _latency_lines("floor", "disk.closed.1", measured)


def _one_row(setting: Setting, folder: Path) -> Iterator[Line]:
    floor = floors.OneRow(_new_database(setting, "floor"))
    floor.create()
    yield from _peer_lines("floor", "postgres.closed.1", floor, setting.load(1))


def _echo(clients: int, setting: Setting, folder: Path) -> Iterator[Line]:
    echo = floors.Echo(f"kafka://{setting.servers.kafka()}/echo-{uuid.uuid4().hex[:12]}")
    echo.create()
    with echo.answering() as answering:
        cpu = CpuProbe({"answering": answering})
        measured = run(echo, setting.load(clients), [cpu])
    yield from _lines("floor", f"kafka.closed.{clients}", measured, cpu)


def _peer_lines(kind: str, where: str, peer: Workload, load: Load) -> Iterator[Line]:
    cpu = CpuProbe({})
    measured = run(peer, load, [cpu])
    yield from _lines(kind, where, measured, cpu)


def _new_database(setting: Setting, what: str) -> str:
    name = f"{what}_{uuid.uuid4().hex[:12]}"
    server = setting.servers.postgres()
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


def _workload(kind: Kind, mode: str, address: LakeAddress, pairs: int | None = None) -> TwoTableAppend:
    """A closed loop works on one pair of tables, as the peers do; many transactions in flight on several."""
    tables = data.pairs(pairs or (PAIRS if mode == "open" else 1))
    with address.connect() as lake:
        create_tables(lake, tables)
    return TwoTableAppend(address=address, kind=kind, pairs=tables)


def _lines(kind: str, where: str, measured: Measured, cpu: CpuProbe) -> Iterator[Line]:
    for error, count in measured.failures.most_common(3):
        logger.warning("%s.%s: %s x %s", kind, where, count, error)
    yield from _latency_lines(kind, where, measured)
    yield Line(f"{kind}-failed.{where}", measured.failures.total(), "tx")
    yield from _cpu_lines(kind, where, "tx", measured.count, cpu)


def _latency_lines(kind: str, where: str, measured: Measured) -> Iterator[Line]:
    yield Line(f"{kind}-p50.{where}", measured.percentile(0.50) * 1e3, "ms")
    yield Line(f"{kind}-p99.{where}", measured.percentile(0.99) * 1e3, "ms")
    yield Line(f"{kind}-rate.{where}", measured.rate, "tx/s")


def _mirror_lines(kind: str, where: str, published: PublishedProbe, load: Load) -> Iterator[Line]:
    yield Line(f"{kind}-mirror-rate.{where}", published.versions / load.seconds, "versions/s")
    yield Line(f"{kind}-mirror-lag-p95.{where}", published.lag(0.95), "s")
    yield Line(f"{kind}-mirror-behind.{where}", published.behind, "versions")
    yield Line(f"{kind}-mirror-drain.{where}", published.drain(DRAIN_SECONDS), "s")


def _backlog_lines(what: str, where: str, unit: str, found: backlog.Worked) -> Iterator[Line]:
    yield Line(f"{what}-rate.{where}", found.count / found.seconds, f"{unit}/s")
    yield Line(f"{what}-seconds.{where}", found.seconds, "s")
    yield from _cpu_lines(what, where, unit.removesuffix("s"), found.count, found.cpu)


def _cpu_lines(kind: str, where: str, unit: str, count: int, cpu: CpuProbe) -> Iterator[Line]:
    if not count:
        return
    for component, used in sorted(cpu.seconds.items(), key=lambda item: -item[1]):
        if round(used / count * 1e6):
            yield Line(f"{kind}-cpu-{component}.{where}", used / count * 1e6, f"us/{unit}")
    yield Line(f"{kind}-other-cpu.{where}", cpu.others, "s")
