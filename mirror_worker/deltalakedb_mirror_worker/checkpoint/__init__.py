"""Checkpoints: what they hold, how they are built from SQL, verified, published and named."""

from __future__ import annotations

from .building import Built, build
from .publishing import checkpoint
from .reading import LiveFiles, counted, sidecars_of

__all__ = ["Built", "LiveFiles", "build", "checkpoint", "counted", "sidecars_of"]
