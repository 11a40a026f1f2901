"""Filter rows by ``--where``, ``--sample`` and ``--limit``, and form blocks of them.

The rows of a block depend on the part and the options only, never on the sizes of a reader's chunks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inferd.batch.blocks import Block, Chunk, Origin
from inferd.batch.errors import INVALID_INPUT, RowError
from inferd.batch.expressions import Condition

#: Row numbers that are sampled at a time.
_DRAWN_ROWS = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFilter:
    """A filter of rows: a random ``sample``, a share from 0 to 1, and of it the rows that meet ``condition``."""

    condition: Condition | None = None
    sample: float | None = None
    seed: int = 0

    def drawn(self, file: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the mask of the ``rows`` of a file in the sample. It depends on the seed and the numbers only."""
        if self.sample is None:
            return np.ones(len(rows), np.bool_)
        with np.errstate(over="ignore"):
            stream = _mixed(_mixed(np.array([self.seed], np.int64).view(np.uint64)) + np.uint64(file))
            hashes = _mixed(stream + rows.astype(np.uint64))
        # 53 bits, as a float holds: shares of 0 and 1 are exact.
        drawn: NDArray[np.bool_] = (hashes >> np.uint64(11)) * 2.0**-53 < self.sample
        return drawn

    def apply(self, file: int, source: str, chunk: Chunk) -> tuple[NDArray[np.bool_], list[RowError]]:
        """Return the mask of the rows of ``chunk`` that pass, and the errors of rows that pass or may pass.

        Unreadable rows of the sample are errors, as the condition cannot be computed for them.
        """
        wanted = self.drawn(file, chunk.rows)
        errors = self._drawn_errors(file, chunk.errors)
        if self.condition is None or not wanted.any():
            return wanted, errors
        drawn = np.flatnonzero(wanted)
        matching, bad = self.condition.matches(_kept(chunk.table, wanted))
        wanted[drawn[~matching]] = False
        failed = [
            RowError(source, int(chunk.rows[drawn[index]]), INVALID_INPUT, message) for index, message in bad.items()
        ]
        return wanted, errors + failed

    def _drawn_errors(self, file: int, errors: list[RowError]) -> list[RowError]:
        if self.sample is None or not errors:
            return errors
        # The error of a whole file is in every sample.
        rows = np.array([error.row or 0 for error in errors], np.int64)
        drawn = self.drawn(file, rows)
        return [error for error, is_drawn in zip(errors, drawn, strict=True) if is_drawn or error.row is None]


def blocks(
    chunks: Iterable[tuple[int, Chunk]],
    *,
    part: int,
    schema: pa.Schema,
    row_filter: RowFilter,
    block_rows: int,
    sources: Sequence[str],
) -> Iterator[Block]:
    """Yield the rows of one part that pass, in blocks of exactly ``block_rows``, and a last block with the rest.

    ``chunks`` come with the index of their file in ``sources``, the names for errors. The last block is empty only if
    no row of the part passes.
    """
    waiting = _Waiting(part, schema)
    for file, chunk in chunks:
        wanted, errors = row_filter.apply(file, sources[file], chunk)
        waiting.add(file, chunk, wanted, errors)
        # A full block is held until more rows follow, as it may be the last.
        while waiting.rows > block_rows:
            yield waiting.block(block_rows, is_last=False)
    yield waiting.block(block_rows, is_last=True)


def first_unwanted(
    limit: int,
    counts: Sequence[int | None],
    row_filter: RowFilter,
    sources: Sequence[str],
    read: Callable[[int], Iterable[Chunk]],
) -> tuple[int, int] | None:
    """Return the file and the row after the first ``limit`` rows that pass; None if there are fewer.

    ``counts`` has the rows of each file; a file with None is skipped. Unreadable rows count as passing. Rows are read,
    by ``read`` of a file, only for a condition.
    """
    left = limit
    for file, count in enumerate(counts):
        for rows, total in _wanted_rows(file, count or 0, row_filter, sources[file], read):
            if total >= left:
                return file, int(rows[left - 1]) + 1
            left -= total
    return None


def _wanted_rows(
    file: int, count: int, row_filter: RowFilter, source: str, read: Callable[[int], Iterable[Chunk]]
) -> Iterator[tuple[Sequence[int] | NDArray[np.int64], int]]:
    """Yield the numbers of the rows of a file that pass, and how many they are."""
    if row_filter.condition is not None:
        for chunk in read(file) if count else ():
            wanted, errors = row_filter.apply(file, source, chunk)
            lost = [error.row for error in errors if error.row is not None]
            rows = np.sort(np.concatenate([chunk.rows[wanted], np.array(lost, np.int64)]))
            yield rows, len(rows)
    elif row_filter.sample is not None:
        for start in range(0, count, _DRAWN_ROWS):
            rows = np.arange(start, min(count, start + _DRAWN_ROWS))
            rows = rows[row_filter.drawn(file, rows)]
            yield rows, len(rows)
    else:
        yield range(count), count


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one chunk that passed. ``ends`` has for each the number of rows of the part read up to it."""

    table: pa.RecordBatch
    origin: Origin
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def slice(self, start: int, stop: int | None = None) -> "_Piece":
        """Return the rows ``start`` to ``stop`` - 1, without a copy."""
        cut = slice(start, stop)
        origin = Origin(self.origin.files[cut], self.origin.rows[cut])
        ends = self.ends[cut]
        return _Piece(self.table.slice(start, len(ends)), origin, ends)


class _Waiting:
    """Rows of a part that passed and are in no block yet."""

    def __init__(self, part: int, schema: pa.Schema) -> None:
        self.rows = 0
        self._part = part
        self._schema = schema
        self._pieces: list[_Piece] = []
        self._errors: list[RowError] = []
        self._read = 0
        self._reported = 0

    def add(self, file: int, chunk: Chunk, wanted: NDArray[np.bool_], errors: list[RowError]) -> None:
        """Append the rows of ``chunk`` in the mask ``wanted``."""
        rows = chunk.rows[wanted]
        origin = Origin(np.full(len(rows), file, np.int64), rows)
        self._pieces.append(_Piece(_kept(chunk.table, wanted), origin, self._read + np.flatnonzero(wanted) + 1))
        self._errors += errors
        self.rows += len(rows)
        self._read += len(chunk.rows) + sum(error.row is not None for error in chunk.errors)

    def block(self, most_rows: int, *, is_last: bool) -> Block:
        """Return the first ``most_rows`` rows as a block, with all errors so far."""
        taken = self._taken(most_rows)
        read = self._read if is_last or not taken else int(taken[-1].ends[-1])
        errors, self._errors = self._errors, []
        block = Block(
            part=self._part,
            is_last=is_last,
            origin=Origin(
                np.concatenate([np.empty(0, np.int64), *(piece.origin.files for piece in taken)]),
                np.concatenate([np.empty(0, np.int64), *(piece.origin.rows for piece in taken)]),
            ),
            table=_joined([piece.table for piece in taken], self._schema),
            errors=errors,
            read_rows=read - self._reported,
        )
        self._reported = read
        return block

    def _taken(self, most_rows: int) -> list[_Piece]:
        taken: list[_Piece] = []
        left = most_rows
        while self._pieces and left:
            piece = self._pieces.pop(0)
            if len(piece) > left:
                self._pieces.insert(0, piece.slice(left))
                piece = piece.slice(0, left)
            left -= len(piece)
            if len(piece):
                taken.append(piece)
        self.rows -= most_rows - left
        return taken


def _kept(table: pa.RecordBatch, wanted: NDArray[np.bool_]) -> pa.RecordBatch:
    return table if wanted.all() else table.filter(pa.array(wanted))


def _joined(tables: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    if len(tables) == 1:
        return tables[0]
    if not tables:
        return pa.RecordBatch.from_pylist([], schema)
    [joined] = pa.Table.from_batches(tables, schema).combine_chunks().to_batches()
    return joined


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash ``values``, each bit by all bits: the finalizer of SplitMix64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
