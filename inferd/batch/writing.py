"""Write files of each output format, and join parts into one file. Equal rows give equal bytes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from shutil import copyfileobj
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from inferd.batch.array_files import NpyWriter, NpzWriter, join_npy, join_npz
from inferd.batch.column_types import is_binary
from inferd.batch.errors import UsageError
from inferd.batch.json_lines import lines_of
from inferd.batch.options import OutputFormat
from inferd.batch.ports import OpenWriter, TableWriter
from inferd.plain_text import clipped, escaped, listed

#: A row group of Parquet ends when it reaches one of these.
_GROUP_ROWS = 128 * 1024
_GROUP_BYTES = 32 << 20

#: Opens one part for reading.
OpenPart = Callable[[], BinaryIO]

_COPIED_BYTES = 1 << 20
_READ_ROWS = 8192


class ParquetWriter:
    """Buffers rows, and writes them in row groups of some ten thousand."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(file, schema, **_encodings(schema))
        self._waiting: list[pa.RecordBatch] = []

    def write(self, table: pa.RecordBatch) -> None:
        """Append the rows."""
        self._waiting.append(table)
        rows = sum(each.num_rows for each in self._waiting)
        if rows >= _GROUP_ROWS or sum(each.nbytes for each in self._waiting) >= _GROUP_BYTES:
            self._end_group()

    def close(self) -> None:
        """Write the last row group and the footer."""
        self._end_group()
        self._writer.close()

    def _end_group(self) -> None:
        group = pa.Table.from_batches(self._waiting, self._schema)
        if group.num_rows:
            self._writer.write_table(group, row_group_size=group.num_rows)
        self._waiting = []


def _encodings(schema: pa.Schema) -> dict[str, Any]:
    """Return the encodings of columns: snappy without a dictionary for lists of floats, zstd for others.

    Lists of floats, as most answers are, hardly repeat values: a dictionary and zstd take three times the CPU time,
    which the model needs, and save a few percent of the bytes; snappy still compresses zeros.
    """
    file = BytesIO()
    pq.write_table(schema.empty_table(), file)
    columns = pq.read_metadata(file).schema
    lists = {
        column.path: column.max_repetition_level > 0 and column.physical_type in {"FLOAT", "DOUBLE"}
        for column in map(columns.column, range(len(columns)))
    }
    return {
        "compression": {path: "snappy" if is_list else "zstd" for path, is_list in lists.items()},
        "compression_level": {path: 1 for path, is_list in lists.items() if not is_list},
        "use_dictionary": [path for path, is_list in lists.items() if not is_list],
    }


class ArrowWriter:
    """Writes a record batch for each block."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_file(file, schema)

    def write(self, table: pa.RecordBatch) -> None:
        """Append the rows."""
        self._writer.write_batch(table)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


class CsvWriter:
    """Writes a line of column names, and rows with texts in quotes where needed."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._schema = pa.schema([(field.name, _csv_type(field.type)) for field in schema])
        self._writer = pa_csv.CSVWriter(file, self._schema)

    def write(self, table: pa.RecordBatch) -> None:
        """Append the rows."""
        self._writer.write_batch(table.cast(self._schema))

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class JsonlWriter:
    """Writes an object in each line."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:  # noqa: ARG002  (each row has its names)
        self._file = file

    def write(self, table: pa.RecordBatch) -> None:
        """Append the rows."""
        for lines in lines_of(table):
            self._file.write(lines)

    def close(self) -> None:
        """Do nothing: there is no end to write."""


_WRITERS: Mapping[OutputFormat, OpenWriter] = {
    "parquet": ParquetWriter,
    "arrow": ArrowWriter,
    "csv": CsvWriter,
    "jsonl": JsonlWriter,
    "npy": NpyWriter,
    "npz": NpzWriter,
}


def open_writer(output_format: OutputFormat) -> OpenWriter:
    """Return the class of writers of ``output_format``."""
    return _WRITERS[output_format]


@contextmanager
def closing(writer: TableWriter) -> Iterator[TableWriter]:
    """Context with ``writer`` that writes the end of the format when it ends, also after an error."""
    try:
        yield writer
    except BaseException:
        # Else garbage collection would close it, after its file.
        with suppress(Exception):
            writer.close()
        raise
    writer.close()


def suffix_of(output_format: OutputFormat) -> str:
    """Return the suffix of files of ``output_format``."""
    return f".{output_format}"


def check_schema(output_format: OutputFormat, schema: pa.Schema) -> pa.Schema:
    """Return ``schema`` if files of ``output_format`` can hold it, else raise `UsageError`."""
    if output_format == "npy" and len(schema) != 1:
        raise UsageError(f"a file of .npy holds one column, got {listed(schema.names)}; give --output, or use .npz")
    for field in schema:
        try:
            # Writers reject a type for a column without rows too.
            writer = open_writer(output_format)(BytesIO(), pa.schema([field]))
            writer.write(pa.RecordBatch.from_arrays([pa.array([], field.type)], names=[field.name]))
            writer.close()
        except (pa.ArrowException, ValueError, TypeError) as error:
            name, kind = escaped(field.name), clipped(str(field.type))
            raise UsageError(f'output column "{name}": a file of .{output_format} cannot hold {kind}') from error
    return schema


def _csv_type(kind: pa.DataType) -> pa.DataType:
    if is_binary(kind):
        msg = f"CSV has no form for {kind}"
        raise ValueError(msg)
    return pa.float32() if pa.types.is_float16(kind) else kind


def join(output_format: OutputFormat, parts: Iterable[OpenPart], file: BinaryIO, schema: pa.Schema) -> None:
    """Write the rows of all ``parts``, which are files of ``output_format``, to ``file``, piece by piece."""
    match output_format:
        case "parquet" | "arrow":
            _join_tables(output_format, parts, file, schema)
        case "csv" | "jsonl":
            _join_texts(output_format, parts, file, schema)
        case "npy":
            join_npy(list(parts), file, schema)
        case "npz":
            join_npz(list(parts), file, schema)


def _join_tables(output_format: OutputFormat, parts: Iterable[OpenPart], file: BinaryIO, schema: pa.Schema) -> None:
    read = _parquet_batches if output_format == "parquet" else _arrow_batches
    with closing(open_writer(output_format)(file, schema)) as writer:
        for open_part in parts:
            with open_part() as part:
                for batch in read(part):
                    writer.write(batch.cast(schema))


def _parquet_batches(part: BinaryIO) -> Iterable[pa.RecordBatch]:
    yield from pq.ParquetFile(part, pre_buffer=False, buffer_size=_COPIED_BYTES).iter_batches(_READ_ROWS)


def _arrow_batches(part: BinaryIO) -> Iterable[pa.RecordBatch]:
    opened = pa.ipc.open_file(part)
    for index in range(opened.num_record_batches):
        yield opened.get_batch(index)


def _join_texts(output_format: OutputFormat, parts: Iterable[OpenPart], file: BinaryIO, schema: pa.Schema) -> None:
    head = BytesIO()
    open_writer(output_format)(head, schema).close()
    file.write(head.getvalue())
    for open_part in parts:
        with open_part() as part:
            part.seek(len(head.getvalue()))
            copyfileobj(part, file, _COPIED_BYTES)
