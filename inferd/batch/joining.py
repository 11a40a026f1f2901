"""Parts as one file."""

from collections.abc import Callable, Iterable
from io import BytesIO
from shutil import copyfileobj
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from inferd.batch.array_files import join_npy, join_npz
from inferd.batch.options import OutputFormat
from inferd.batch.writing import ended, open_writer

#: Opens one part.
OpenPart = Callable[[], BinaryIO]

_COPIED_BYTES = 1 << 20
_READ_ROWS = 8192


def join(output_format: OutputFormat, parts: Iterable[OpenPart], file: BinaryIO, schema: pa.Schema) -> None:
    """Write the rows of all ``parts``, which are files of ``output_format``, to ``file``. Takes little memory."""
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
    with ended(open_writer(output_format)(file, schema)) as writer:
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
