"""Object stores when answers are lost, servers refuse and processes are killed."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from deltalakedb.errors import TxnLogObjectStoreError
from deltalakedb.objectstore import NewObject, ObjectStore, Put, open_object_store
from deltalakedb.storage_options import StorageOptions
from tests.fix_s3 import S3Bucket
from tests.s3_proxy import CUT_AFTER, CUT_BEFORE, Fault, S3Proxy
from tests.services.process import port_of, reserve_port
from tests.services.s3 import VersityGateway

SECRETS = Path(__file__).parents[2] / "compose" / "secrets.sh"


@pytest.fixture
def proxy(s3_bucket: S3Bucket) -> Iterator[S3Proxy]:
    with S3Proxy(s3_bucket.endpoint) as proxy:
        yield proxy


@pytest.fixture
def store(s3_bucket: S3Bucket, proxy: S3Proxy) -> ObjectStore:
    """S3 through the proxy."""
    return open_object_store(s3_bucket.uri("root"), {**s3_bucket.storage_options, "AWS_ENDPOINT_URL": proxy.endpoint})


def on_put(fault: Fault, method: str, path: str) -> Fault | None:
    return fault if method == "PUT" else None


@pytest.mark.parametrize(
    ("fault", "there"),
    [
        (CUT_AFTER, True),
        (CUT_BEFORE, False),
        (Fault(status=503), True),
        (Fault(reach=False, status=503), False),
        (Fault(status=500), True),
        (Fault(reach=False, status=409), False),
        (Fault(status=409), True),
    ],
)
def test_a_put_without_a_trustworthy_answer_is_unknown(
    store: ObjectStore, proxy: S3Proxy, fault: Fault, there: bool
) -> None:
    """Cut connections, 409 and 5xx leave it open whether the object is there; the request is sent only once."""
    proxy.plan = lambda method, path: on_put(fault, method, path)
    answers = store.put_if_absent([NewObject("x", b"ours"), NewObject("y", b"never")])
    sent = proxy.journal.entries.copy()
    found = store.get("x")

    assert answers == [Put.UNKNOWN]
    assert (found is not None) == there
    assert [method for method, _, _ in sent] == ["PUT"] * there
    assert store.get("y") is None


class TlsGateway(VersityGateway):
    """The gateway behind a certificate of the stack's own authority, which it answers without reading a request to its end."""

    def __init__(self) -> None:
        super().__init__()
        subprocess.run([SECRETS, self.folder / "secrets"], check=True)

    @property
    def options(self) -> dict[str, str]:
        """Storage options, with whom to trust."""
        return {
            "AWS_ACCESS_KEY_ID": self.address.access_key,
            "AWS_SECRET_ACCESS_KEY": self.address.secret_key,
            "AWS_ENDPOINT_URL": self.address.endpoint.replace("http:", "https:"),
            "AWS_CA_BUNDLE": str(self.folder / "secrets" / "ca.pem"),
        }

    def environment(self) -> dict[str, str]:
        file = str(self.folder / "secrets" / "s3.pem")
        return {**super().environment(), "VGW_CERT": file, "VGW_KEY": file}

    def ready(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


def test_over_tls_a_put_that_is_refused_is_told_or_unknown() -> None:
    """Small objects are told to be there already. With a large one the server may hang up before it is sent, which looks as
    if TLS had failed: it is not known then, while a certificate that nobody trusts is an error at once."""
    with TlsGateway() as gateway:
        boto3.client("s3", **StorageOptions.resolve(gateway.options).boto3()).create_bucket(Bucket="bucket")
        store = open_object_store("s3://bucket/root", gateway.options)
        store.probe()
        small = [store.put_if_absent([NewObject("small", b"x" * 30_000)]) for _ in range(5)]
        large = [store.put_if_absent([NewObject("large", b"x" * 5_000_000)]) for _ in range(5)]
        stranger = gateway.options | {"AWS_CA_BUNDLE": str(gateway.folder / "secrets" / "kafka.pem")}
        with pytest.raises(TxnLogObjectStoreError, match="certificate verify failed"):
            open_object_store("s3://bucket/root", stranger).put_if_absent([NewObject("other", b"x")])

    assert small == [[Put.CREATED]] + [[Put.EXISTS]] * 4
    assert large[0] == [Put.CREATED]
    assert {answer for answers in large[1:] for answer in answers} <= {Put.EXISTS, Put.UNKNOWN}


def test_a_replacement_without_a_trustworthy_answer_is_unknown(store: ObjectStore, proxy: S3Proxy) -> None:
    """The same for compare-and-swap: reading tells what happened."""
    store.put_if_match("doc", b"1", None)
    first = store.get("doc")
    assert first is not None
    proxy.plan = lambda method, path: on_put(CUT_AFTER, method, path)
    answer = store.put_if_match("doc", b"2", first.tag)
    found = store.get("doc")

    assert answer is Put.UNKNOWN
    assert found is not None
    assert found.data == b"2"


def test_the_end_of_a_large_upload_may_be_unknown(store: ObjectStore, proxy: S3Proxy, tmp_path: Path) -> None:
    """Parts are sent again where that is needed; only the call that completes them is conditional and sent once."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(random.Random(2).randbytes(34 * 1024 * 1024))
    lost: list[str] = []

    def plan(method: str, path: str) -> Fault | None:
        if method == "PUT" and not lost:
            lost.append(path)
            return CUT_BEFORE
        completing = method == "POST" and lost and [m for m, _, _ in proxy.journal.entries].count("PUT") == 2
        return CUT_AFTER if completing else None

    proxy.plan = plan
    answer = store.put_file_if_absent("big", source)
    proxy.plan = lambda method, path: None
    store.download("big", target)

    assert answer is Put.UNKNOWN
    assert target.read_bytes() == source.read_bytes()


def test_reading_rides_out_short_trouble(store: ObjectStore, proxy: S3Proxy) -> None:
    """Reads are repeated by the adapter: one cut and one 503 do not reach the caller."""
    store.put_if_absent([NewObject("x", b"ours")])
    faults = [CUT_BEFORE, Fault(reach=False, status=503)]
    proxy.plan = lambda method, path: faults.pop() if faults else None
    found = store.get("x")

    assert found is not None
    assert found.data == b"ours"
    assert faults == []


def test_a_store_without_conditional_puts_is_refused(s3_bucket: S3Bucket, proxy: S3Proxy, store: ObjectStore) -> None:
    """A gateway that ignores the condition, or answers 501, is told apart by the probe, and the message says so."""
    proxy.plan = lambda method, path: Fault(reach=False, status=200) if method == "PUT" else None
    with pytest.raises(TxnLogObjectStoreError, match="put-if-absent"):
        store.probe()
    proxy.plan = lambda method, path: Fault(reach=False, status=501) if method == "PUT" else None
    with pytest.raises(TxnLogObjectStoreError, match="conditional puts"):
        store.probe()


def test_an_unreachable_server_is_an_error_and_not_unknown(s3_bucket: S3Bucket) -> None:
    """Nothing was sent, so nothing can have happened."""
    with reserve_port() as holder:
        nobody = f"http://127.0.0.1:{port_of(holder)}"
        store = open_object_store(s3_bucket.uri(), {**s3_bucket.storage_options, "AWS_ENDPOINT_URL": nobody})
        with pytest.raises(TxnLogObjectStoreError, match="cannot put 'x'"):
            store.put_if_absent([NewObject("x", b"")])


def test_wrong_credentials_are_told_and_not_shown(s3_bucket: S3Bucket) -> None:
    """The message says what to check, and holds no secret."""
    options = {**s3_bucket.storage_options, "AWS_SECRET_ACCESS_KEY": "canary-of-a-secret"}
    store = open_object_store(s3_bucket.uri(), options)
    with pytest.raises(TxnLogObjectStoreError, match="check the credentials") as told:
        store.put_if_absent([NewObject("x", b"")])

    assert "canary" not in str(told.value)


def test_a_missing_bucket_is_told(s3_bucket: S3Bucket) -> None:
    """Reading from no bucket at all is not the same as no object."""
    store = open_object_store(f"s3://{s3_bucket.name}-none/x", s3_bucket.storage_options)
    with pytest.raises(TxnLogObjectStoreError, match="create the bucket"):
        store.get("x")
    with pytest.raises(TxnLogObjectStoreError, match="create the bucket"):
        store.put_if_absent([NewObject("x", b"")])


_PUBLISH = """
import sys
from deltalakedb.objectstore import NewObject, open_object_store
store = open_object_store(sys.argv[1])
for n in range(int(sys.argv[2]), 1_000_000, 10):
    store.put_if_absent([NewObject(f"log/{i:08}", b"%08d" % i * 5_000) for i in range(n, n + 10)])
"""


def test_a_killed_process_leaves_nothing_torn_and_nothing_behind(tmp_path: Path) -> None:
    """SIGKILL at any moment: every object is whole, names have no gap, and the next process sweeps what is left."""
    root = (tmp_path / "root").as_uri()
    store = open_object_store(root)
    dice = random.Random(7)
    count = 0
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", _PUBLISH, root, str(count)])
        deadline = time.monotonic() + 60
        while not (tmp_path / "root" / "log" / f"{count:08}").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.05)
        process.kill()
        process.wait()
        count = len(list(store.list("log/")))
    names = [found.path for found in store.list("log/")]
    contents = [store.get(name) for name in names]
    survivor = open_object_store(root)
    survivor.put_if_absent([NewObject("after", b"")])
    folders = [p for p in (tmp_path / "root" / "_deltalakedb_tmp").iterdir() if p.is_dir()]

    assert count > 200
    assert names == [f"log/{i:08}" for i in range(count)]
    assert [c.data for c in contents if c is not None] == [b"%08d" % i * 5_000 for i in range(count)]
    assert [list(folder.iterdir()) for folder in folders] == [[]]


def test_a_living_process_keeps_its_temporary_files(tmp_path: Path) -> None:
    """Sweeping spares what another living store holds."""
    one, other = open_object_store(str(tmp_path)), open_object_store(str(tmp_path))
    one.put_if_absent([NewObject("a", b"")])
    other.put_if_absent([NewObject("b", b"")])
    folders = [p for p in (tmp_path / "_deltalakedb_tmp").iterdir() if p.is_dir()]
    again = one.put_if_absent([NewObject("c", b"")])

    assert len(folders) == 2
    assert again == [Put.CREATED]


def test_a_root_that_was_removed_is_made_again(tmp_path: Path) -> None:
    """Folders that vanish under a running store, its temporary one included, are made again."""
    root = tmp_path / "root"
    store = open_object_store(str(root))
    store.put_if_absent([NewObject("t/log/1", b"")])
    root.rename(tmp_path / "elsewhere")
    answers = store.put_if_absent([NewObject("t/log/1", b"again")])
    found = store.get("t/log/1")

    assert answers == [Put.CREATED]
    assert found is not None
    assert found.data == b"again"


def test_the_time_of_a_local_file_is_the_one_given(tmp_path: Path) -> None:
    """Readers that travel by file time find the commit's own time."""
    store = open_object_store(str(tmp_path / "root"))
    source = tmp_path / "source"
    source.write_bytes(b"")
    os.utime(source, (7, 7))
    store.put_if_absent([NewObject("x", b"", 1_234_567_890_123)])
    store.put_file_if_absent("y", source)
    found = store.get("x")

    assert found is not None
    assert found.time_ms == 1_234_567_890_123
    assert [info.time_ms for info in store.list("")] == [1_234_567_890_123, 7_000]


def test_symbolic_links_below_the_root_are_refused(tmp_path: Path) -> None:
    """Neither a linked object nor a linked folder leads out of the root."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "table").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("x")
    (root / "table" / "_delta_log").symlink_to(outside)
    (root / "linked").symlink_to(outside / "secret")
    store = open_object_store(str(root))
    with pytest.raises(TxnLogObjectStoreError, match="symbolic link"):
        store.put_if_absent([NewObject("table/_delta_log/0.json", b"")])
    with pytest.raises(TxnLogObjectStoreError, match="symbolic link"):
        store.get("linked")

    assert list(outside.iterdir()) == [outside / "secret"]
    assert [info.path for info in store.list("")] == []


_FILL = """
import resource, signal, sys
from deltalakedb.errors import TxnLogObjectStoreError
from deltalakedb.objectstore import NewObject, open_object_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
store = open_object_store(sys.argv[1])
try:
    store.put_if_absent([NewObject("log/1", b"x" * 9_000), NewObject("log/2", b"x" * 11_000)])
except TxnLogObjectStoreError as error:
    print(error)
"""


def test_a_failing_write_publishes_nothing(tmp_path: Path) -> None:
    """A file that cannot be written whole never gets its name, nor do those of its batch; the error says why."""
    done = subprocess.run([sys.executable, "-c", _FILL, str(tmp_path)], capture_output=True, text=True, check=True)

    assert "cannot put 'log/2'" in done.stdout
    assert "File too large" in done.stdout
    assert list(open_object_store(str(tmp_path)).list("")) == []
