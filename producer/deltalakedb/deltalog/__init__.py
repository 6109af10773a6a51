"""Reads a `_delta_log` that anybody may have written, and says what the table is at each of its versions.

`listing` says which files there are and which versions they can tell, `commits` reads log files, `checkpoints` reads
checkpoints. It is lenient about form where some reader is, and strict about what would change the table.
"""

from __future__ import annotations
