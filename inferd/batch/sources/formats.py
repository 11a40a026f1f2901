"""The reader of each format."""

from collections.abc import Sequence
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


def reader_for(file_format: str, *, delimiter: str | None = None, columns: Sequence[str] = ()) -> Reader:
    """Return a reader of files of ``file_format``, which is one of `inferd.batch.options.InputFormat`.

    ``delimiter`` is between the fields of CSV, None for the usual one. ``columns`` are those that are looked at, empty
    for all.
    """
    module, name = _READERS[file_format]
    make = getattr(import_module(f"inferd.batch.sources.{module}"), name)
    match file_format:
        case "csv":
            reader = make(delimiter)
        case "npz":
            reader = make(columns)
        case _:
            reader = make()
    return cast("Reader", reader)
