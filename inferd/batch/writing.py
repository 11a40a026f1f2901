"""Writers of each format of output. Equal blocks are equal bytes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from inferd.batch.array_files import NpyWriter, NpzWriter
from inferd.batch.column_types import is_binary
from inferd.batch.errors import UsageError
from inferd.batch.json_lines import lines_of
from inferd.batch.options import OutputFormat
from inferd.batch.ports import OpenWriter, TableWriter
from inferd.plain_text import clipped, escaped, listed

#: A row group of Parquet ends at the first of these.
_GROUP_ROWS = 128 * 1024
_GROUP_BYTES = 32 << 20


class ParquetWriter:
    """Writes row groups of some ten thousand rows, which are kept until then."""

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
    """Return how columns are written: lists of floats, which the answers mostly are, without trying to make them small.

    Their values hardly repeat. A dictionary and zstd take three times the processor time, which the model needs, for
    some percent of the bytes; snappy still finds zeros.
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
    """Writes a line of column names, and rows whose texts are in quotes where that matters."""

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
    """Return what begins a file of ``output_format``."""
    return _WRITERS[output_format]


@contextmanager
def ended(writer: TableWriter) -> Iterator[TableWriter]:
    """Context with ``writer``, which has written what stands at the end of its format afterwards."""
    try:
        yield writer
    except BaseException:
        # Or else it would end by itself, when there is no file any more.
        with suppress(Exception):
            writer.close()
        raise
    writer.close()


def suffix_of(output_format: OutputFormat) -> str:
    """Return the suffix of files of ``output_format``."""
    return f".{output_format}"


def checked_schema(output_format: OutputFormat, schema: pa.Schema) -> pa.Schema:
    """Return ``schema`` if files of ``output_format`` can hold it. Raises `UsageError`."""
    if output_format == "npy" and len(schema) != 1:
        raise UsageError(f"a file of .npy holds one column, got {listed(schema.names)}; give --output, or use .npz")
    for field in schema:
        try:
            # What a writer does not take, it says of a column without rows too.
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
