"""The reader of each format."""

from importlib import import_module
from typing import cast

from inferd.batch.ports import Reader

#: The module and the class of each reader. Pictures and the like need libraries that other jobs do not.
_READERS = {
    "parquet": ("parquet", "ParquetReader"),
    "arrow": ("arrow", "ArrowReader"),
    "csv": ("csv", "CsvReader"),
    "jsonl": ("jsonl", "JsonlReader"),
    "npy": ("arrays", "NpyReader"),
    "npz": ("npz", "NpzReader"),
    "images": ("images", "ImagesReader"),
    "tar": ("tar", "TarReader"),
}


def reader_for(file_format: str) -> Reader:
    """Return a reader of files of ``file_format``, which is one of `inferd.batch.options.InputFormat`."""
    module, name = _READERS[file_format]
    return cast("Reader", getattr(import_module(f"inferd.batch.sources.{module}"), name)())
