"""What must hold for any input, shown by generated ones."""

from __future__ import annotations
