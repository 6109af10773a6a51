"""Delta tables that others wrote, beside the checkout where they are at hand."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"


def pytest_report_header() -> str:
    if GOLDEN.is_dir():
        return f"golden tables: {GOLDEN}"
    return f"golden tables: none at {GOLDEN}; tests that compare with them have nothing to compare"
