"""Reader of Parquet files. Spans are row groups."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from inferd.batch.blocks import Chunk
from inferd.batch.errors import UnreadableFileError
from inferd.batch.ports import SourceFile
from inferd.batch.sources.columns import DAMAGE, damage_text, file_schema, in_schema, lost_rows, stored_names
from inferd.batch.sources.native_files import native_file

#: What is read of a column at a time. Without it, all of a row group is.
_BUFFER_BYTES = 1 << 20

#: The most of a chunk, as far as the size of its row group tells.
_CHUNK_BYTES = 16 << 20


class ParquetReader:
    """Reads row groups by and by, each in batches that begin at multiples of their size from its first row.

    So which rows are lost to damage does not depend on where a part begins. Parts that follow each other in one row
    group are read in one pass, which is kept between them.
    """

    def __init__(self) -> None:
        self._kept: deque[_Pass] = deque(maxlen=1)

    def schema(self, file: SourceFile) -> pa.Schema:
        """Return the columns of ``file``."""
        return file_schema(file, _columns(file))

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Return the rows of each row group."""
        metadata = _metadata(file)
        return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Yield the rows from ``start`` to before ``stop``."""
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
            reading = self._pass(group, start)
            for batch in reading.read(start, stop):
                numbers = np.arange(position, position + batch.num_rows)
                position += batch.num_rows
                yield in_schema(file, schema, batch, numbers, [])
        except DAMAGE as error:
            text = f"damaged row group {group.index}: {damage_text(file, error)}"
            yield from lost_rows(file, schema, range(position, stop), text)
        else:
            if stop < group.first + group.count:
                self._kept.append(reading)

    def _pass(self, group: "_Group", start: int) -> "_Pass":
        """Return the pass that stopped before ``start``, or a new one."""
        try:
            kept = self._kept.pop()
        except IndexError:
            return _Pass(group)
        return kept if kept.group == group and kept.position <= start else _Pass(group)


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


class _Pass:
    """One reading of a row group, from its first row on. Not thread-safe; ``position`` is the row to come."""

    def __init__(self, group: _Group) -> None:
        self.group = group
        self.position = group.first
        self._batches = _opened(group.address).iter_batches(
            group.batch_rows, row_groups=[group.index], columns=group.columns
        )
        self._rest: pa.RecordBatch | None = None

    def read(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows from ``start`` to before ``stop``."""
        while self.position < stop:
            batch = self._rest if self._rest is not None else self._next()
            skipped = min(max(start - self.position, 0), batch.num_rows)
            taken = batch.slice(skipped, max(stop - self.position - skipped, 0))
            self.position += skipped + taken.num_rows
            left = batch.slice(skipped + taken.num_rows)
            self._rest = left if left.num_rows else None
            if taken.num_rows:
                yield taken

    def _next(self) -> pa.RecordBatch:
        try:
            return next(self._batches)
        except StopIteration:
            raise pa.ArrowInvalid(f"expected {self.group.count} rows, got fewer") from None


def _metadata(file: SourceFile) -> pq.FileMetaData:
    try:
        return _read_metadata(file.address, file.version)
    except DAMAGE as error:
        raise UnreadableFileError(damage_text(file, error)) from error


@lru_cache(maxsize=2)
def _read_metadata(address: str, version: str) -> pq.FileMetaData:  # noqa: ARG001  (part of the key)
    return _opened(address).metadata


def _opened(address: str) -> pq.ParquetFile:
    # Without these, memory grows with row groups; and what checksums there are is for being looked at.
    return pq.ParquetFile(
        native_file(address), buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
    )


def _columns(file: SourceFile) -> pa.Schema:
    try:
        return _metadata(file).schema.to_arrow_schema()
    except DAMAGE as error:
        raise UnreadableFileError(damage_text(file, error)) from error


def _batch_rows(metadata: pq.FileMetaData, index: int, columns: tuple[str, ...], rows: int) -> int:
    """Return how many of a row group's rows to read at a time: ``rows``, or fewer if they are large."""
    group = metadata.row_group(index)
    stored = (group.column(number) for number in range(group.num_columns))
    wanted = [each.total_uncompressed_size for each in stored if each.path_in_schema.split(".")[0] in columns]
    row_bytes: int = max(1, sum(wanted) // max(1, group.num_rows))
    return max(1, min(rows, _CHUNK_BYTES // row_bytes))
