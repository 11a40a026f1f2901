"""Read the rows of parts from their files, in blocks."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from inferd.batch.blocks import Block, Chunk
from inferd.batch.errors import UNREADABLE, BatchError, RowError, UnreadableFileError
from inferd.batch.plan import Part, Range
from inferd.batch.ports import Reader, SourceFile
from inferd.batch.selection import RowFilter, blocks
from inferd.batch.sources.columns import empty, lost_rows
from inferd.batch.storage import shown

#: The most rows of a chunk.
_CHUNK_ROWS = 8192

#: Files that are counted concurrently: in remote storage counting is mostly waiting.
_COUNTED_AT_A_TIME = 8


@dataclass(frozen=True)
class Sources:
    """The files of a job, all of one format, and the filter of their rows."""

    files: Sequence[SourceFile]
    reader: Reader
    row_filter: RowFilter

    @cached_property
    def names(self) -> list[str]:
        """The name of each file in error rows."""
        return [shown(file.address) for file in self.files]

    def spans(self) -> list[Sequence[int] | None]:
        """Return the rows of each span of each file; None for a damaged file. May read whole files."""
        with ThreadPoolExecutor(_COUNTED_AT_A_TIME, thread_name_prefix="inferd-batch-count") as threads:
            return list(threads.map(self._spans, self.files))

    def _spans(self, file: SourceFile) -> Sequence[int] | None:
        try:
            return self.reader.spans(file)
        except UnreadableFileError:
            return None

    def chunks(self, part: Part, schema: pa.Schema, rows: int) -> Iterator[tuple[int, Chunk]]:
        """Yield the index of the file and a chunk of its rows, for all rows of ``part``. Unreadable rows are errors."""
        for each in part.ranges:
            for chunk in self.range(each, schema, rows):
                yield each.file, chunk

    def blocks(self, parts: Iterable[Part], schema: pa.Schema, block_rows: int) -> Iterator[Block]:
        """Yield the filtered rows of ``parts`` in blocks, each of one part."""
        for part in parts:
            yield from blocks(
                self.chunks(part, schema, min(block_rows, _CHUNK_ROWS)),
                part=part.index,
                schema=schema,
                row_filter=self.row_filter,
                block_rows=block_rows,
                sources=self.names,
            )

    def range(self, rows: Range, schema: pa.Schema, chunk_rows: int) -> Iterator[Chunk]:
        """Yield the rows of one file; rows that the reader cannot read are errors, one for each.

        Raises `BatchError` if the file has become shorter since the plan was made.
        """
        file, name = self.files[rows.file], self.names[rows.file]
        at = rows.start
        try:
            if rows.start == rows.stop:
                # Its rows could not be counted for the plan: this raises the reason.
                self.reader.spans(file)
            else:
                for chunk in self.reader.read(file, schema, rows.start, rows.stop, chunk_rows):
                    at = _end(chunk, at)
                    yield chunk
        except UnreadableFileError as error:
            if rows.start == rows.stop:
                yield Chunk(np.empty(0, np.int64), empty(schema), [RowError(name, None, UNREADABLE, str(error))])
            else:
                yield from lost_rows(file, schema, range(at, rows.stop), str(error))
            return
        if at < rows.stop or rows.start == rows.stop:
            raise BatchError(f"{name}: it has changed while the job ran: expected {rows.stop} rows, got {at}")


def _end(chunk: Chunk, at: int) -> int:
    """Return the number of the row after ``chunk``."""
    last = [at - 1, *(error.row for error in chunk.errors if error.row is not None)]
    if len(chunk.rows):
        last.append(int(chunk.rows[-1]))
    return max(last) + 1


def counts(spans: Iterable[Sequence[int] | None]) -> list[int | None]:
    """Return the number of rows of each file; None for a damaged file."""
    return [None if each is None else sum(each) for each in spans]
