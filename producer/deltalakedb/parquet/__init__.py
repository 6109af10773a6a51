"""Data files: written with folders, sizes and statistics as Delta wants them, and read back as rows of their table."""

from __future__ import annotations

from .files import DataFiles, DataFileStores
from .flushing import Flusher
from .reading import FileReader
from .writing import TableShape, TableWriter, Written

__all__ = ["DataFileStores", "DataFiles", "FileReader", "Flusher", "TableShape", "TableWriter", "Written"]
