"""The lake under fire, and the process that forks its committers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.committing.served import ServedLake
from tests.mortuary import Mortuary


@pytest.fixture(scope="session")
def mortuary() -> Iterator[Mortuary]:
    """Forks committers."""
    with Mortuary("tests.committing.mortal") as mortuary:
        yield mortuary


@pytest.fixture
def served(
    mortuary: Mortuary, postgres_url: str, kafka_bootstrap: str, kafka_prefix: str, tmp_path: Path
) -> Iterator[ServedLake]:
    """A lake of this test's own on the run's servers; nobody serves it yet."""
    with closing(ServedLake(mortuary, postgres_url, kafka_bootstrap, kafka_prefix, tmp_path)) as lake:
        yield lake
