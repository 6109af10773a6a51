"""The demo: data arrives in many small multi-table transactions at once, and readers check what they find by path.

Needs the `demo` extra. Nothing here is imported by the rest of the library.
"""

from __future__ import annotations
