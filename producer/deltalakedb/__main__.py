"""`python -m deltalakedb`: the program."""

from __future__ import annotations

from .program import main

if __name__ == "__main__":
    main()
