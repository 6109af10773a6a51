"""Data files: written with folders, sizes and statistics as Delta wants them, and read back as rows of their table."""

from __future__ import annotations

from .files import DataFiles, open_data_files
from .reading import FileReader
from .writing import TableShape, TableWriter, Written

__all__ = ["DataFiles", "FileReader", "TableShape", "TableWriter", "Written", "open_data_files"]
