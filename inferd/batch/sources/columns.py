"""Columns as they were read to columns in the types of a schema; a value that is not of its type costs its row."""

import re
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from inferd.batch.blocks import BadRows, Chunk
from inferd.batch.column_types import simple_type
from inferd.batch.errors import INVALID_INPUT, UNREADABLE, RowError, UnreadableFileError
from inferd.batch.ports import SourceFile
from inferd.batch.storage import errors_of, shown
from inferd.plain_text import clipped, escaped, listed

#: Errors of pyarrow about what is in a file. An `OSError` with an ``errno`` is not: see `damage_text`.
DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError)

_SPACES = re.compile(r"\s+")
_LONGEST_TEXT = 200

#: Rows of a chunk of errors.
_LOST_ROWS = 4096


def damage_text(file: SourceFile, error: Exception) -> str:
    """Return what ``error`` says of a damaged file. Raises `BatchError` if it is one of storage."""
    if isinstance(error, OSError) and error.errno:
        with errors_of(file.address):
            raise error
    return clipped(escaped(_SPACES.sub(" ", str(error).strip())), _LONGEST_TEXT)


def file_schema(file: SourceFile, columns: pa.Schema) -> pa.Schema:
    """Return the columns of ``file`` in plain types, with those that its path gives."""
    fields = [pa.field(each.name, plain_type(each.type)) for each in columns]
    names = set(columns.names)
    given = [pa.field(name, _partition_type(value)) for name, value in file.partition.items() if name not in names]
    return pa.schema([*fields, *given])


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return ``kind`` without dictionaries, run lengths and views, of which blocks of several files cannot be made."""
    kind = simple_type(kind)
    if pa.types.is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(plain_type(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type), kind.list_size)
    return kind


def stored_names(file: SourceFile, schema: pa.Schema, columns: pa.Schema) -> list[str]:
    """Return the columns of ``schema`` to read from ``file``, which has ``columns``. Raises `UnreadableFileError`."""
    wanted = [name for name in schema.names if name in columns.names or name not in file.partition]
    for name in wanted:
        count = columns.names.count(name)
        if count != 1:
            known = listed(columns.names)
            raise UnreadableFileError(f'expected one column "{escaped(name)}", got {count or "none"}, only {known}')
    return wanted


def in_schema(
    file: SourceFile, schema: pa.Schema, table: pa.RecordBatch, rows: NDArray[np.int64], errors: list[RowError]
) -> Chunk:
    """Return the ``rows`` of ``file`` that were read as ``table``, in the types of ``schema``.

    ``errors`` are rows between them that could not be read.
    """
    bad: BadRows = {}
    columns = [_column(file, table, field, bad) for field in schema]
    converted = pa.RecordBatch.from_arrays(columns, schema=schema) if columns else _without_columns(len(rows))
    if bad:
        kept = np.ones(len(rows), np.bool_)
        kept[list(bad)] = False
        errors = errors + [row_error(file, int(rows[i]), text, INVALID_INPUT) for i, text in bad.items()]
        rows, converted = rows[kept], converted.filter(pa.array(kept))
    return Chunk(rows, converted, sorted(errors, key=lambda each: each.row or 0))


def row_error(file: SourceFile, row: int, text: str, code: str = UNREADABLE) -> RowError:
    """Return the error of one row of ``file``."""
    return RowError(shown(file.address), row, code, text)


def lost_rows(file: SourceFile, schema: pa.Schema, lost: range, text: str) -> Iterator[Chunk]:
    """Yield the rows ``lost`` as errors."""
    for first in range(0, len(lost), _LOST_ROWS):
        errors = [row_error(file, row, text) for row in lost[first : first + _LOST_ROWS]]
        yield Chunk(np.empty(0, np.int64), empty(schema), errors)


def empty(schema: pa.Schema) -> pa.RecordBatch:
    """Return no rows of ``schema``."""
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def convert(column: pa.Array, kind: pa.DataType, name: str, bad: BadRows) -> pa.Array:
    """Return ``column`` as ``kind``, with null for each row that is not; ``bad`` gets what came there instead."""

    def converted(part: pa.Array) -> pa.Array:
        # Bytes of text that are none, and offsets out of bounds, are found here and not where they do harm.
        part.validate(full=True)
        return part if part.type == kind else pc.cast(part, kind)

    return bisected(
        column, converted, kind, lambda part: f'column "{escaped(name)}": expected {kind}, {_got(part)}', bad
    )


def bisected(
    column: pa.Array,
    convert_part: Callable[[pa.Array], pa.Array],
    kind: pa.DataType,
    text_of: Callable[[pa.Array], str],
    bad: BadRows,
    first: int = 0,
) -> pa.Array:
    """Return ``convert_part(column)``; where it fails, halves are tried, down to single rows, which become null."""
    try:
        return convert_part(column)
    except DAMAGE:
        if len(column) == 1:
            bad.setdefault(first, text_of(column))
            return pa.nulls(1, kind)
    middle = len(column) // 2
    halves = ((column.slice(0, middle), first), (column.slice(middle), first + middle))
    parts = [bisected(_compact(half), convert_part, kind, text_of, bad, at) for half, at in halves]
    return pa.concat_arrays(parts)


def _compact(part: pa.Array) -> pa.Array:
    """Return a slice without the other rows' elements, which kernels for lists look at too."""
    return part.take(pa.array(range(len(part)))) if pa.types.is_nested(part.type) else part


def _got(part: pa.Array) -> str:
    try:
        return f"got {clipped(escaped(repr(part[0].as_py())))}"
    except (ValueError, OverflowError):
        return "got bytes that are no valid one"


def _column(file: SourceFile, table: pa.RecordBatch, field: pa.Field, bad: BadRows) -> pa.Array:
    if field.name not in table.schema.names:
        value = pa.scalar(file.partition[field.name], _partition_type(file.partition[field.name]))
        return pa.repeat(value, table.num_rows).cast(field.type)
    column = table.column(field.name)
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    return convert(column, field.type, field.name, bad)


def _partition_type(value: str | int | None) -> pa.DataType:
    return pa.int32() if isinstance(value, int) else pa.string()


def _without_columns(rows: int) -> pa.RecordBatch:
    # Only a struct has rows without columns.
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
