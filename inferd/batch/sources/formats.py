"""The reader of each format."""

from inferd.batch.ports import Reader


def reader_for(file_format: str) -> Reader:
    """Return a reader of files of ``file_format``, which is one of `inferd.batch.options.InputFormat`."""
    # Pictures and the like need libraries that other jobs do not.
    # ruff: noqa: PLC0415
    match file_format:
        case "parquet":
            from inferd.batch.sources.parquet import ParquetReader

            return ParquetReader()
        case "arrow":
            from inferd.batch.sources.arrow import ArrowReader

            return ArrowReader()
        case "csv":
            from inferd.batch.sources.csv import CsvReader

            return CsvReader()
        case "jsonl":
            from inferd.batch.sources.jsonl import JsonlReader

            return JsonlReader()
        case _:
            msg = f"no reader of {file_format}"
            raise ValueError(msg)
