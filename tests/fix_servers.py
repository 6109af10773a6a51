"""One set of servers per test run, however many processes it has; the fixtures of each service build on it."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

import pytest

from tests.services.hosting import Borrower, Host, Lender
from tests.services.process import ServiceUnavailable
from tests.services.run import Addresses, ServerSet

_OWNED = pytest.StashKey[ServerSet]()
_STACKS = Path(__file__).parent / "containers"
_LENT = pytest.StashKey[Lender]()


class _Node(Protocol):
    """A worker process, as pytest-xdist shows it to the process that runs the session."""

    config: pytest.Config
    workerinput: dict[str, object]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--services",
        choices=("native", "containers"),
        default="native",
        help="native: servers are processes; containers: they are containers, and the tests of the stack run too",
    )


def pytest_configure(config: pytest.Config) -> None:
    if _host(config) is not None:
        return
    if config.getoption("--services") == "native":
        config.stash[_OWNED] = ServerSet()
        return
    from tests.containers.servers import ContainerSet

    config.stash[_OWNED] = ContainerSet()


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.getoption("--services") == "native":
        return None
    from tests.containers.servers import missing

    return f"containers: {missing() or 'the engine answers, and all images are there'}"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The stack's tests need an engine and its images: only those who ask for containers get them."""
    return True if collection_path == _STACKS and config.getoption("--services") == "native" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without an engine nothing runs in containers; where they are required that is an error, by the first test."""
    if config.getoption("--services") == "containers" and not os.environ.get("REQUIRE_CONTAINERS"):
        from tests.containers.servers import missing

        if why := missing():
            for item in items:
                item.add_marker(pytest.mark.skip(reason=why))


def pytest_unconfigure(config: pytest.Config) -> None:
    if (lender := config.stash.get(_LENT, None)) is not None:
        lender.close()
    if (owned := config.stash.get(_OWNED, None)) is not None:
        owned.close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: _Node) -> None:
    stash = node.config.stash
    if _LENT not in stash:
        stash[_LENT] = Lender(stash[_OWNED])
    node.workerinput["servers"] = tuple(stash[_LENT].host)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Which process of a parallel run gets a test: see `scope`."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Together(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

        def _assign_work_unit(self, node: object) -> None:
            # By far the longest: nothing of it may be left when everybody else is done.
            if "spark" in self.workqueue:
                self.workqueue.move_to_end("spark", last=False)
            super()._assign_work_unit(node)

    return Together(config, log)


def scope(nodeid: str) -> str:
    """Tests of one scope run in one process: all with Spark in their name, because a second Spark costs as much memory
    and start-up again, and integration tests of one file, which share their lake. Others go wherever there is room."""
    file = nodeid.split("::")[0]
    if "spark" in nodeid:
        return "spark"
    return file if file.startswith(("tests/integration/", "tests/containers/")) else nodeid


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Generator[None, object, object]:
    """Ends the whole run where a service cannot be had, instead of failing every test that needs it."""
    try:
        return (yield)
    except ServiceUnavailable as error:
        message = str(error)
    # pytest.exit would not do: from a worker of a parallel run its message never arrives.
    request.session.shouldstop = message
    pytest.fail(message, pytrace=False)


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Addresses:
    """Where the servers of this run are; each is started when first asked for."""
    host = _host(request.config)
    return request.config.stash[_OWNED] if host is None else Borrower(host)


def _host(config: pytest.Config) -> Host | None:
    """Who lends us the servers; None in the process that runs the session and owns them."""
    given = getattr(config, "workerinput", None)
    return None if given is None else Host(*given["servers"])
