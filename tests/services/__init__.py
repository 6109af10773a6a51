"""The real servers of the test-suite and of the benchmarks, as native processes on loopback.

Plain Python without pytest: ``ServerSet`` in ``run.py`` is the way in.
"""

from __future__ import annotations
