"""Read Parquet files, whose spans are row groups."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from inferd.batch.blocks import Chunk
from inferd.batch.errors import UnreadableFileError
from inferd.batch.ports import SourceFile
from inferd.batch.sources.columns import (
    DAMAGE,
    columns_of,
    damage_text,
    file_schema,
    in_schema,
    lost_rows,
    stored_names,
)
from inferd.batch.sources.passes import BatchPass, KeptPass
from inferd.batch.storage import native_file

#: The bytes of a column that are read at a time; without it, a whole row group.
_BUFFER_BYTES = 1 << 20

#: The most bytes of a chunk, estimated from its row group.
_CHUNK_BYTES = 16 << 20


class ParquetReader:
    """Reads each row group in batches that begin at multiples of their size.

    So the rows that damage affects do not depend on where a part begins. Consecutive parts of one row group are read
    in one pass, which is kept between them.
    """

    def __init__(self) -> None:
        self._kept: KeptPass[BatchPass] = KeptPass()

    def schema(self, file: SourceFile) -> pa.Schema:
        """Return the columns of ``file``."""
        return file_schema(file, _columns(file))

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Return the rows of each row group."""
        metadata = _metadata(file)
        return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Yield the rows ``start`` to ``stop`` - 1."""
        metadata = _metadata(file)
        names = tuple(stored_names(file, schema, _columns(file)))
        first = 0
        for index, count in enumerate(self.spans(file)):
            begin, end = max(start, first), min(stop, first + count)
            if begin < end:
                group = _Group(
                    file.address, file.version, index, first, count, names, _batch_rows(metadata, index, names, rows)
                )
                yield from self._read_group(file, schema, group, begin, end)
            first += count

    def _read_group(
        self, file: SourceFile, schema: pa.Schema, group: "_Group", start: int, stop: int
    ) -> Iterator[Chunk]:
        position = start
        try:
            reading = self._kept.take(group, start) or BatchPass(_batches(group), group.first)
            for batch in reading.read(start, stop, group.batch_rows):
                numbers = np.arange(position, position + batch.num_rows)
                position += batch.num_rows
                yield in_schema(file, schema, columns_of(batch), numbers)
        except DAMAGE as error:
            text = f"damaged row group {group.index}: {damage_text(file, error)}"
            yield from lost_rows(file, schema, range(position, stop), text)
        else:
            if stop < group.first + group.count:
                self._kept.keep(group, stop, reading)


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group of ``count`` rows from ``first`` on, of which ``columns`` are read, ``batch_rows`` at a time."""

    address: str
    version: str
    index: int
    first: int
    count: int
    columns: tuple[str, ...]
    batch_rows: int


def _batches(group: _Group) -> Iterator[pa.RecordBatch]:
    opened = _opened(group.address)
    yield from opened.iter_batches(group.batch_rows, row_groups=[group.index], columns=group.columns)


def _metadata(file: SourceFile) -> pq.FileMetaData:
    try:
        return _read_metadata(file.address, file.version)
    except DAMAGE as error:
        raise UnreadableFileError(damage_text(file, error)) from error


@lru_cache(maxsize=2)
def _read_metadata(address: str, version: str) -> pq.FileMetaData:  # noqa: ARG001  (part of the key)
    return _opened(address).metadata


def _opened(address: str) -> pq.ParquetFile:
    # Without a buffer size, memory grows with row groups.
    return pq.ParquetFile(
        native_file(address), buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
    )


def _columns(file: SourceFile) -> pa.Schema:
    try:
        return _metadata(file).schema.to_arrow_schema()
    except DAMAGE as error:
        raise UnreadableFileError(damage_text(file, error)) from error


def _batch_rows(metadata: pq.FileMetaData, index: int, columns: tuple[str, ...], rows: int) -> int:
    """Return the rows of a row group to read at a time: ``rows``, or fewer if they are large."""
    group = metadata.row_group(index)
    paths = (metadata.schema.column(number).path for number in range(group.num_columns))
    wanted = [number for number, path in enumerate(paths) if path.split(".")[0] in columns]
    nbytes = sum(group.column(number).total_uncompressed_size for number in wanted)
    row_bytes: int = max(1, nbytes // max(1, group.num_rows))
    return max(1, min(rows, _CHUNK_BYTES // row_bytes))
