"""Convert columns that were read to the types of a schema; a value of another type is an error of its row."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inferd.batch.blocks import BadRows, Chunk
from inferd.batch.column_types import is_binary, simple_type
from inferd.batch.errors import INVALID_INPUT, UNREADABLE, RowError, UnreadableFileError
from inferd.batch.layouts import without_list_views, without_runs
from inferd.batch.ports import SourceFile
from inferd.batch.storage import errors_of, shown
from inferd.plain_text import clipped, escaped, listed

#: Errors of pyarrow about the content of a file. An `OSError` with an ``errno`` is one of storage: see `damage_text`.
DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError)

_SPACES = re.compile(r"\s+")
_LONGEST_TEXT = 200

#: Numbers with decimal commas or separated thousands: 1,5 and 1.234,5 and 1,234.5.
_WITH_COMMAS = re.compile(rb"\s*[+-]?\d[\d.' ]*(?:,\d+)+(?:\.\d+)?\s*")

#: Casts an array to the type of a field. Raises one of `DAMAGE` if a value does not fit.
Cast = Callable[[pa.Array, pa.Field], pa.Array]


#: Rows of a chunk of errors.
_LOST_ROWS = 4096


def damage_text(file: SourceFile, error: Exception) -> str:
    """Return the text of ``error`` for a damaged file. Raises `BatchError` for an error of storage."""
    if isinstance(error, OSError) and error.errno:
        with errors_of(file.address):
            raise error
    return clipped(escaped(_SPACES.sub(" ", str(error).strip())), _LONGEST_TEXT)


def file_schema(file: SourceFile, columns: pa.Schema) -> pa.Schema:
    """Return the columns of ``file`` in plain types, with those of its path."""
    fields = [pa.field(each.name, plain_type(each.type)) for each in columns]
    names = set(columns.names)
    given = [pa.field(name, _partition_type(value)) for name, value in file.partition.items() if name not in names]
    return pa.schema([*fields, *given])


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return ``kind`` without dictionaries, run lengths and views, which cannot be concatenated across files."""
    kind = simple_type(kind)
    if pa.types.is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(plain_type(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type), kind.list_size)
    return kind


def stored_names(file: SourceFile, schema: pa.Schema, columns: pa.Schema) -> list[str]:
    """Return the names in ``schema`` to read from ``file``, which has ``columns``. Raises `UnreadableFileError`."""
    wanted = [name for name in schema.names if name in columns.names or name not in file.partition]
    for name in wanted:
        count = columns.names.count(name)
        if count != 1:
            known = listed(columns.names)
            raise UnreadableFileError(f'expected one column "{escaped(name)}", got {count or "none"}, only {known}')
    return wanted


def columns_of(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return the columns of ``batch`` by name."""
    columns = zip(batch.schema.names, batch.columns, strict=True)
    return {name: without_runs(each) if pa.types.is_run_end_encoded(each.type) else each for name, each in columns}


def in_schema(
    file: SourceFile,
    schema: pa.Schema,
    read: Mapping[str, pa.Array],
    rows: NDArray[np.int64],
    *,
    errors: Sequence[RowError] = (),
    bad: BadRows | None = None,
    cast: Cast | None = None,
) -> Chunk:
    """Return the columns ``read`` from ``file`` as a chunk of ``rows`` in the types of ``schema``, by ``cast``.

    ``errors`` are unreadable rows between them; ``bad`` are rows, by index, that are known to be invalid.
    """
    bad = {} if bad is None else bad
    columns = []
    for field in schema:
        if field.name in read:
            columns.append(convert(read[field.name], field, bad, cast))
        else:
            columns.append(_given(file.partition[field.name], len(rows)).cast(field.type))
    converted = pa.RecordBatch.from_arrays(columns, schema=schema) if columns else _without_columns(len(rows))
    if bad:
        kept = np.ones(len(rows), np.bool_)
        kept[list(bad)] = False
        errors = [*errors, *(row_error(file, int(rows[i]), text, INVALID_INPUT) for i, text in bad.items())]
        rows, converted = rows[kept], converted.filter(pa.array(kept))
    return Chunk(rows, converted, sorted(errors, key=lambda each: each.row or 0))


def row_error(file: SourceFile, row: int, text: str, code: str = UNREADABLE) -> RowError:
    """Return the error of one row of ``file``."""
    return RowError(shown(file.address), row, code, text)


def lost_rows(file: SourceFile, schema: pa.Schema, lost: range, text: str) -> Iterator[Chunk]:
    """Yield chunks with an error for each of the rows ``lost``."""
    for first in range(0, len(lost), _LOST_ROWS):
        errors = [row_error(file, row, text) for row in lost[first : first + _LOST_ROWS]]
        yield Chunk(np.empty(0, np.int64), empty(schema), errors)


def empty(schema: pa.Schema) -> pa.RecordBatch:
    """Return a record batch of ``schema`` without rows."""
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def convert(column: pa.Array, field: pa.Field, bad: BadRows, cast: Cast | None = None) -> pa.Array:
    """Convert ``column`` to the type of ``field``; rows that do not fit become null, and are added to ``bad``."""
    # The type of fields of CSV says nothing.
    kind = "" if column.type == field.type or cast is not None else f" ({column.type})"

    def converted(part: pa.Array) -> pa.Array:
        # Finds invalid UTF-8 and offsets out of bounds before they are used.
        part.validate(full=True)
        part = without_list_views(part)
        return part if part.type == field.type else _cast(part, field, cast or _cast_plainly)

    def text_of(row: pa.Array) -> str:
        return (
            f'column "{escaped(field.name)}": expected {field.type}, {_got(row)}{kind}{_likely_cause(row, field.type)}'
        )

    return bisected(column, converted, field.type, text_of, bad)


def _cast_plainly(values: pa.Array, field: pa.Field) -> pa.Array:
    return values.cast(field.type)


def _cast(part: pa.Array, field: pa.Field, cast: Cast) -> pa.Array:
    try:
        values = cast(part, field)
    except DAMAGE:
        if not pa.types.is_nested(part.type):
            raise
        # Casts of lists read elements outside of the slice too; a copy has none.
        values = cast(part.take(pa.array(range(len(part)))), field)
    if pa.types.is_dictionary(part.type):
        # Validating a dictionary array does not check its texts.
        values.validate(full=True)
    return values


def bisected(
    values: Sequence[Any],
    converted: Callable[[Any], pa.Array],
    kind: pa.DataType,
    text_of: Callable[[Any], str],
    bad: BadRows,
    first: int = 0,
) -> pa.Array:
    """Return ``converted(values)``; halve where it fails, down to single rows, which become null.

    Their ``text_of`` is added to ``bad`` by index, counted from ``first``.
    """
    try:
        return converted(values)
    except DAMAGE:
        if len(values) == 1:
            bad.setdefault(first, text_of(values))
            return pa.nulls(1, kind)
    middle = len(values) // 2
    halves = ((values[:middle], first), (values[middle:], first + middle))
    return pa.concat_arrays([bisected(half, converted, kind, text_of, bad, at) for half, at in halves])


def got(value: object) -> str:
    """Return the actual value, as text for an error row."""
    return f"got {clipped(escaped(repr(value)))}"


def _likely_cause(row: pa.Array, kind: pa.DataType) -> str:
    """Return advice for a number with commas, which is not read: 1,234 may be either of two."""
    if not (is_binary(row.type) and (pa.types.is_integer(kind) or pa.types.is_floating(kind))):
        return ""
    has_commas = _WITH_COMMAS.fullmatch(row[0].as_py() or b"")
    return ", with a decimal comma or separated thousands; numbers are read as 1234.5" if has_commas else ""


def _got(row: pa.Array) -> str:
    try:
        row.validate(full=True)
        value = row[0].as_py()
        return got(value.decode() if isinstance(value, bytes) else value)
    except (ValueError, OverflowError):
        return "got bytes that are no text in UTF-8"


def _given(value: str | int | None, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, _partition_type(value)), rows)


def _partition_type(value: str | int | None) -> pa.DataType:
    return pa.int32() if isinstance(value, int) else pa.string()


def _without_columns(rows: int) -> pa.RecordBatch:
    # Only from structs can a record batch have rows without columns.
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
