"""The fixtures of lakes and their mirrors."""

from __future__ import annotations

from tests.mirror.readers import read_by_all, travels
from tests.mirrors import lake, make_mirror, mirror, pool, root, store_address

__all__ = ["lake", "make_mirror", "mirror", "pool", "read_by_all", "root", "store_address", "travels"]
