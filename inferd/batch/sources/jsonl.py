"""Read JSON lines: an object in each line, whose members are the columns."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json

from inferd.batch.blocks import BadRows, Chunk
from inferd.batch.column_types import is_list
from inferd.batch.errors import UnreadableFileError
from inferd.batch.exact_numbers import is_marked, may_be_rounded
from inferd.batch.ports import SourceFile
from inferd.batch.sources.columns import DAMAGE, bisected, file_schema, got, in_schema, row_error
from inferd.batch.sources.json_values import array_of, loaded, type_of
from inferd.batch.sources.text_rows import NO_ROWS, RowTexts, TextRows
from inferd.plain_text import clipped, escaped

#: The first rows, from which types are inferred.
_SAMPLE_ROWS = 10_000

_LINE_FEED, _RETURN, _OPEN, _CLOSE = b"\n\r{}"
_SPACES = np.frombuffer(b" \t\r", np.uint8)


class LineScanner:
    """Finds lines that are not blank. Line ends in values are always escaped in JSON."""

    def scan(self, data: bytes, *, is_end: bool) -> tuple[RowTexts, int]:
        """Return the complete lines at the beginning of ``data``, and the index of the rest."""
        characters = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(characters == _LINE_FEED)
        if is_end and data and not data.endswith(b"\n"):
            ends = np.append(ends, len(data))
        if not len(ends):
            return replace(NO_ROWS, data=data), 0
        rest = min(int(ends[-1]) + 1, len(data))
        starts = np.concatenate([[0], ends[:-1] + 1])
        kept = ends > starts
        for index in np.flatnonzero(kept & np.isin(characters[np.minimum(starts, len(data) - 1)], _SPACES)).tolist():
            kept[index] = not data[starts[index] : ends[index]].isspace()
        return RowTexts(data, starts[kept], ends[kept], np.ones(int(kept.sum()), np.int64)), rest


class JsonlReader:
    """Parses lines with pyarrow; chunks with a line that it rejects are parsed line by line, to the same values.

    A missing member is null.
    """

    def __init__(self) -> None:
        self._texts = TextRows(LineScanner(), headers=0)

    def schema(self, file: SourceFile) -> pa.Schema:
        """Return the members of the first rows, each with the common type of its values."""
        lines = chain.from_iterable(map(_lines, self._texts.first(file, _SAMPLE_ROWS)))
        values = [_object(line) for line in lines]
        objects = [value for value in values if isinstance(value, dict)]
        if values and not objects:
            raise UnreadableFileError(f"expected an object in each line; the first is {values[0]}")
        names = dict.fromkeys(name for value in objects for name in value if name not in file.partition)
        fields = [(name, type_of([value.get(name) for value in objects])) for name in names]
        return file_schema(file, pa.schema(fields))

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Return the number of rows."""
        return [self._texts.count(file)]

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Yield the rows ``start`` to ``stop`` - 1."""
        fields = pa.schema([field for field in schema if field.name not in file.partition])
        for texts in self._texts.read(file, start, stop, rows):
            table = _parsed(texts, fields)
            if table is not None:
                columns = {name: table.column(name).combine_chunks() for name in fields.names}
                yield in_schema(file, schema, columns, texts.first + np.arange(len(texts)))
            else:
                yield _one_by_one(file, schema, fields, texts)


def _parsed(texts: RowTexts, fields: pa.Schema) -> pa.Table | None:
    """Parse all rows with pyarrow; None if it fails, or may have misread a row."""
    if texts.bad or not _are_objects(texts):
        return None
    data = texts.data[texts.starts[0] : texts.ends[-1]]
    parsed_types = pa.schema([(field.name, _parsed_type(field.type)) for field in fields])
    try:
        # pyarrow does not verify UTF-8.
        data.decode()
        table = pa_json.read_json(
            pa.BufferReader(data),
            pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            pa_json.ParseOptions(explicit_schema=parsed_types, unexpected_field_behavior="ignore"),
        )
    except DAMAGE:
        return None
    is_rounded = any(is_marked(field) and may_be_rounded(table.column(field.name)) for field in fields)
    return table if table.num_rows == len(texts) and not is_rounded else None


def _are_objects(texts: RowTexts) -> bool:
    """Return True if each line begins and ends like an object, so that no object spans lines."""
    characters = np.frombuffer(texts.data, np.uint8)
    last = characters[texts.ends - 1]
    before = characters[texts.ends - 2]
    closes = (last == _CLOSE) | ((last == _RETURN) & (before == _CLOSE))
    return bool(((characters[texts.starts] == _OPEN) & closes).all())


def _parsed_type(kind: pa.DataType) -> pa.DataType:
    """Return the type to parse a column in, before it is cast to ``kind``."""
    if pa.types.is_floating(kind):
        # As in `_one_by_one`.
        return pa.float64()
    if pa.types.is_temporal(kind):
        return pa.string()
    if is_list(kind):
        return pa.list_(_parsed_type(kind.value_type))
    return kind


def _one_by_one(file: SourceFile, schema: pa.Schema, fields: pa.Schema, texts: RowTexts) -> Chunk:
    values = [texts.bad.get(index) or _object(line) for index, line in enumerate(_lines(texts))]
    errors = [
        row_error(file, texts.first + index, value) for index, value in enumerate(values) if isinstance(value, str)
    ]
    objects = [value for value in values if not isinstance(value, str)]
    bad: BadRows = {}
    columns = {
        field.name: bisected(
            [value.get(field.name) for value in objects],
            partial(array_of, kind=field.type, is_exact=is_marked(field)),
            field.type,
            partial(_unexpected, field),
            bad,
        )
        for field in fields
    }
    numbers = np.array([texts.first + index for index, value in enumerate(values) if isinstance(value, dict)], np.int64)
    return in_schema(file, schema, columns, numbers, errors=errors, bad=bad)


def _unexpected(field: pa.Field, values: Sequence[Any]) -> str:
    return f'column "{escaped(field.name)}": expected {field.type}, {got(values[0])}'


def _lines(texts: RowTexts) -> Iterator[bytes]:
    return (texts.text(index) for index in range(len(texts)))


def _object(line: bytes) -> dict[str, Any] | str:
    """Return the object in ``line``, or the text of an error."""
    try:
        value = loaded(line)
    except ValueError as error:
        return f"malformed: {clipped(escaped(str(error)))}"
    return value if isinstance(value, dict) else f"malformed: expected an object, {got(value)}"
