"""What the files of compose/ promise by themselves; what comes of them is for tests/containers to see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

COMPOSE = Path(__file__).parents[2] / "compose"
FILES = ("compose.yaml", "secure.yaml")
DOCKERFILE = (COMPOSE / "Dockerfile").read_text("utf-8")


def services(name: str) -> dict[str, str]:
    """The text of each service of a compose file, and of each fragment that services share."""
    text = (COMPOSE / name).read_text("utf-8")
    shared = re.findall(r"^(x-[a-z]+): .*\n((?:  .*\n|\n)+)", text, re.M)
    own = re.findall(r"^  ([a-z0-9-]+):(.*\n(?:    .*\n|\n)*)", re.split(r"^services:\n", text, flags=re.M)[1], re.M)
    return dict([*shared, *own])


@pytest.mark.parametrize("name", FILES)
def test_every_image_and_port_is_a_variable(name: str) -> None:
    """Somebody may have images of their own, and other ports in use; what is listened on is loopback only."""
    text = (COMPOSE / name).read_text("utf-8")
    images = re.findall(r"^ +image: (.*)", text, re.M)
    ports = [port for found in re.findall(r"^ +ports: (.*)", text, re.M) for port in found.strip("[]").split(", ")]

    assert images
    assert [image for image in images if not re.fullmatch(r"\$\{[A-Z0-9]+_IMAGE:-[^}]+\}", image)] == []
    assert [port for port in ports if not re.fullmatch(r'"127\.0\.0\.1:\$\{[A-Z0-9]+_PORT:-\d+\}:\d+"', port)] == []


@pytest.mark.parametrize("name", FILES)
def test_memory_is_bounded(name: str) -> None:
    """Of whatever brings an image, itself or by what it shares: one that runs wild ends alone."""
    found = services(name)
    images = {service for service, text in found.items() if re.search(r"^ +image:", text, re.M)}
    inherited = {alias: found[f"x-{alias}"] for alias in ("service", "program", "committer") if f"x-{alias}" in found}

    assert images
    for service in images:
        text = found[service] + "".join(inherited[alias] for alias in re.findall(r"<<: \*([a-z]+)\n", found[service]))
        assert "mem_limit:" in text, service


def test_the_image_is_pinned_and_runs_as_nobody() -> None:
    """Any base will do; what is installed is known by its hash; a number that is not root; health asked by the engine."""
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.M)

    assert DOCKERFILE.index("ARG BASE_IMAGE=python:") < DOCKERFILE.index("FROM ")
    assert {base for base, _ in stages} == {"${BASE_IMAGE}", "program"}
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.M) == ["10001:10001"]
    assert not re.search(r"^ADD |curl|wget|:latest", DOCKERFILE, re.M)
    installs = re.findall(r"pip install (.*?)(?: \\)?$", DOCKERFILE, re.M)
    assert [install for install in installs if "--require-hashes" not in install and "--no-index" not in install] == []
    for service in ("committer", "mirror"):
        text = DOCKERFILE.split(f"FROM program AS {service}\n")[1].split("\nFROM ")[0]
        assert "HEALTHCHECK" in text
        assert "STOPSIGNAL SIGTERM" in text
        assert f'CMD ["{service}", "run"]' in text
