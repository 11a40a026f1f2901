"""Source files of tests."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from inferd.batch.blocks import Chunk
from inferd.batch.ports import Reader, SourceFile


def source(path: Path, file_format: str, partition: Mapping[str, str | int | None] | None = None) -> SourceFile:
    """Return ``path`` as a source."""
    found = path.stat()
    version = str(found.st_mtime_ns)
    return SourceFile(
        address=str(path), format=file_format, size=found.st_size, version=version, partition=partition or {}
    )


def rows_of(
    reader: Reader, file: SourceFile, schema: pa.Schema | None = None, start: int = 0, stop: int = -1, rows: int = 64
) -> tuple[dict[int, tuple[object, ...]], dict[int, str]]:
    """Return the values of each row by its number, and the texts of errors by theirs, which must come in order."""
    schema = reader.schema(file) if schema is None else schema
    stop = sum(reader.spans(file)) if stop < 0 else stop
    values, errors = {}, {}
    numbers: list[int] = []
    for chunk in reader.read(file, schema, start, stop, rows):
        assert chunk.table.schema.equals(schema)
        values |= dict(zip(chunk.rows.tolist(), _tuples(chunk), strict=True))
        errors |= {error.row: error.message for error in chunk.errors}
        own = sorted([*chunk.rows.tolist(), *(error.row for error in chunk.errors)])
        numbers += own
    assert numbers == list(range(start, stop))
    return values, errors


def _tuples(chunk: Chunk) -> list[tuple[object, ...]]:
    columns = [column.to_pylist() for column in chunk.table.columns]
    return list(zip(*columns, strict=True)) if columns else [()] * chunk.table.num_rows
