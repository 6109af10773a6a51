"""The page about URIs and settings knows what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from deltalakedb.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "uris.md").read_text("utf-8")


def test_every_setting_is_described_with_its_default() -> None:
    """Settings, their order and their plain defaults on the page are those of the code."""
    part = PAGE.split("\n## Settings\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", part, re.M))

    assert list(rows) == list(Settings.model_fields)
    for name, default in rows.items():
        value = Settings.model_fields[name].default
        if isinstance(value, str | int | float | dict):
            written = (
                f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else value
            )
            assert default.strip() == f"`{written}`", name


def test_toml_example_is_accepted(tmp_path: Path) -> None:
    """The example of a settings file is one."""
    from deltalakedb.settings import load_settings

    example = tmp_path / "deltalakedb.toml"
    example.write_text(PAGE.split("```toml\n")[1].split("```")[0])

    settings = load_settings(config=example)

    assert settings.timeout == 30
    assert settings.log_settings["sasl.username"] == "writer"
