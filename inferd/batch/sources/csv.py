"""Read CSV with a header line of column names."""

import csv
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from inferd.batch.blocks import Chunk
from inferd.batch.column_types import is_binary, is_text
from inferd.batch.errors import UnreadableFileError
from inferd.batch.exact_numbers import are_exact, is_marked
from inferd.batch.ports import SourceFile
from inferd.batch.sources.columns import DAMAGE, file_schema, in_schema, row_error, stored_names
from inferd.batch.sources.csv_rows import CsvScanner
from inferd.batch.sources.json_values import array_of, loaded
from inferd.batch.sources.text_rows import RowTexts, TextRows

#: Fields that are null, in columns other than texts.
_NULLS = pa.array(["", "NA", "N/A", "null", "NULL"])

_TAB_SUFFIXES = (".tsv", ".tsv.gz", ".tsv.zst")

#: The first rows, from which types are inferred.
_SAMPLE_ROWS = 10_000

#: Not a number: leading zeros matter in codes and telephone numbers.
_LEADING_ZERO = r"^[+-]?0\d"

#: Integers as programs write them that have floats for columns with nulls.
_WITH_ZEROS = r"^([+-]?\d+)\.0*$"


class CsvReader:
    """Reads fields as bytes, and casts them by column.

    Without a ``delimiter``, it is a tab for the suffixes of .tsv, and else a comma.
    """

    def __init__(self, delimiter: str | None = None) -> None:
        self._delimiter = delimiter
        self._texts = {
            each: TextRows(CsvScanner(each.encode()), headers=1) for each in ([delimiter] if delimiter else [",", "\t"])
        }
        self._headers: dict[tuple[str, str], list[str]] = {}

    def schema(self, file: SourceFile) -> pa.Schema:
        """Return the columns, each with the first type that fits all its fields in the first rows."""
        header = self._header(file)
        samples = []
        for texts in self._rows(file).first(file, _SAMPLE_ROWS):
            rows = texts.slice(max(0, -texts.first), len(texts))
            good = _well_formed(rows, header)
            samples.append(_columns(rows, good, header, range(len(header)), self._delimiter_of(file)))
        columns = [pa.concat_arrays(pieces) for pieces in zip(*samples, strict=True)]
        pairs = zip(header, columns, strict=True)
        return file_schema(file, pa.schema([(name, _type_of(column)) for name, column in pairs]))

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Return the number of rows."""
        self._header(file)
        return [self._rows(file).count(file)]

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Yield the rows ``start`` to ``stop`` - 1."""
        header = self._header(file)
        names = stored_names(file, schema, pa.schema([(name, pa.binary()) for name in header]))
        wanted = [header.index(name) for name in names]
        delimiter = self._delimiter_of(file)
        for texts in self._rows(file).read(file, start, stop, rows):
            good = _well_formed(texts, header)
            columns = _columns(texts, good, header, wanted, delimiter)
            errors = [
                row_error(
                    file, texts.first + index, texts.bad.get(index) or _wrong_count(texts, index, header, delimiter)
                )
                for index in np.flatnonzero(~good).tolist()
            ]
            numbers = texts.first + np.flatnonzero(good)
            read = dict(zip(names, columns, strict=True))
            yield in_schema(file, schema, read, numbers, errors=errors, cast=_cast)

    def _rows(self, file: SourceFile) -> TextRows:
        return self._texts[self._delimiter_of(file)]

    def _delimiter_of(self, file: SourceFile) -> str:
        return self._delimiter or ("\t" if file.address.lower().endswith(_TAB_SUFFIXES) else ",")

    def _header(self, file: SourceFile) -> list[str]:
        key = (file.address, file.version)
        if key not in self._headers:
            self._headers[key] = _names(self._rows(file).first(file, 0), self._delimiter_of(file))
        return self._headers[key]


def _names(blocks: Sequence[RowTexts], delimiter: str) -> list[str]:
    """Return the column names in the first row."""
    first = next(filter(len, blocks), None)
    if first is None:
        raise UnreadableFileError("expected a line of column names, got none")
    if 0 in first.bad:
        raise UnreadableFileError(f"the line of column names is {first.bad[0]}")
    try:
        [names] = csv.reader([first.text(0).decode()], delimiter=delimiter)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnreadableFileError(f"the line of column names is none: {error}") from error
    return names


def _well_formed(texts: RowTexts, header: Sequence[str]) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = texts.fields == len(header)
    return good


def _wrong_count(texts: RowTexts, index: int, header: Sequence[str], delimiter: str) -> str:
    many = texts.fields[index] > len(header)
    cause = f"; a field with {delimiter!r} in it needs quotes" if many else ""
    return f"malformed: expected {len(header)} fields, got {texts.fields[index]}{cause}"


def _columns(
    texts: RowTexts, good: NDArray[np.bool_], header: Sequence[str], wanted: Sequence[int], delimiter: str
) -> list[pa.Array]:
    """Return the fields of the ``wanted`` columns of the ``good`` rows."""
    rows = int(good.sum())
    if not rows or not wanted:
        return [pa.nulls(rows, pa.binary()) for _ in wanted]
    if good.all():
        data = texts.data[texts.starts[0] : texts.ends[-1]]
    else:
        data = b"\n".join([texts.text(index) for index in np.flatnonzero(good).tolist()])
    numbers = [str(number) for number in range(len(header))]
    names = [numbers[index] for index in wanted]
    table = pa_csv.read_csv(
        pa.BufferReader(data),
        pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=numbers),
        pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        pa_csv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, pa.binary()), check_utf8=False),
    )
    if table.num_rows != rows:
        msg = f"expected {rows} rows of CSV, got {table.num_rows}"
        raise RuntimeError(msg)
    return [table.column(name).combine_chunks() for name in names]


def _cast(fields: pa.Array, field: pa.Field) -> pa.Array:
    """Return ``fields`` in the type of ``field``. Raises one of `DAMAGE` if one does not fit."""
    kind = field.type
    if is_binary(kind):
        return fields.cast(kind)
    texts = fields.cast(pa.string())
    if is_text(kind):
        return texts.cast(kind)
    values = _with_nulls(texts)
    if pa.types.is_nested(kind):
        objects = [None if value is None else loaded(value) for value in values.to_pylist()]
        return array_of(objects, kind, is_exact=is_marked(field))
    if pa.types.is_integer(kind):
        values = pc.replace_substring_regex(values, _WITH_ZEROS, r"\1")
    if is_marked(field) and pa.types.is_floating(kind) and not are_exact(values):
        msg = f"a whole number that {kind} cannot hold"
        raise ValueError(msg)
    return values.cast(kind)


def _with_nulls(texts: pa.Array) -> pa.Array:
    trimmed = pc.ascii_trim_whitespace(texts)
    return pc.if_else(pc.is_in(trimmed, _NULLS), pa.scalar(None, pa.string()), trimmed)


def _type_of(fields: pa.Array) -> pa.DataType:
    """Return the first type that all ``fields`` have; null if there are no values."""
    try:
        values = _with_nulls(fields.cast(pa.string())).drop_null()
    except DAMAGE:
        return pa.string()
    if not len(values):
        return pa.null()
    if pc.any(pc.match_substring_regex(values, _LEADING_ZERO)).as_py():
        return pa.string()
    for kind in (pa.int64(), pa.float64(), pa.bool_()):
        if pa.types.is_floating(kind) and not are_exact(values):
            continue
        try:
            values.cast(kind)
        except DAMAGE:
            continue
        return kind
    return pa.string()
