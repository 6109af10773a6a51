"""What the documents tell users to type is run, in a directory of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/python-api.md"])
def test_examples_run(tmp_path: Path, page: str) -> None:
    """The Python examples of a page, one after the other in one process, run as they stand."""
    examples = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.M | re.S)
    script = tmp_path / "examples.py"
    script.write_text("\n".join(examples), "utf-8")

    ran = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )

    assert examples
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file or section of the project leads to one that is there."""
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", text):
        path, _, section = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name}: {target}"
        if section:
            titles = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}
            assert section in anchors, f"{page.name}: {target}"


def test_files_named_by_the_architecture_are_there() -> None:
    """Every file on an action's way through the architecture page exists."""
    named = re.findall(r"`(deltalakedb[\w/.]*\.(?:py|sql|avsc))`", (ROOT / "ARCHITECTURE.md").read_text("utf-8"))
    roots = ("producer", "committer", "mirror_worker", "schemas", "migrations")

    assert len(named) > 50
    assert [name for name in named if not any((ROOT / root / name).is_file() for root in roots)] == []
