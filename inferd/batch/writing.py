"""Writers of each format of output. Equal blocks are equal bytes."""

from collections.abc import Mapping
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from inferd.batch.options import OutputFormat
from inferd.batch.ports import OpenWriter

#: A row group of Parquet ends at the first of these.
_GROUP_ROWS = 128 * 1024
_GROUP_BYTES = 32 << 20


class ParquetWriter:
    """Writes row groups of some ten thousand rows, which are kept until then."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(file, schema, compression="zstd", compression_level=1)
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


_WRITERS: Mapping[str, OpenWriter] = {"parquet": ParquetWriter}


def open_writer(output_format: OutputFormat) -> OpenWriter:
    """Return what begins a file of ``output_format``."""
    return _WRITERS[output_format]


def suffix_of(output_format: OutputFormat) -> str:
    """Return the suffix of files of ``output_format``."""
    return f".{output_format}"
