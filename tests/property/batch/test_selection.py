"""Wanted rows and their blocks, for any rows, chunks and filters."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from inferd.batch.blocks import Chunk
from inferd.batch.errors import UNREADABLE, RowError
from inferd.batch.expressions import parse
from inferd.batch.selection import RowFilter, blocks, first_unwanted

SCHEMA = pa.schema([("x", pa.int64())])

#: For each file its values, None for rows that cannot be read.
Files = list[list[int | None]]

FILES = st.lists(st.lists(st.none() | st.integers(0, 9), max_size=30), max_size=4)
FILTERS = st.builds(
    RowFilter,
    condition=st.none() | st.integers(0, 9).map(lambda least: parse(f"x >= {least}")),
    sample=st.none() | st.floats(0, 1),
    seed=st.integers(0, 3),
)


def _chunks(values: Sequence[int | None], file: int, rows: int) -> Iterator[Chunk]:
    for start in range(0, len(values), rows):
        numbers = range(start, min(start + rows, len(values)))
        read = [row for row in numbers if values[row] is not None]
        errors = [RowError(str(file), row, UNREADABLE, "lost") for row in numbers if values[row] is None]
        table = pa.record_batch([pa.array([values[row] for row in read], pa.int64())], schema=SCHEMA)
        yield Chunk(np.array(read, np.int64), table, errors)


def _cut(files: Files, row_filter: RowFilter, block_rows: int, chunk_rows: int) -> list[tuple[object, ...]]:
    chunks = ((file, chunk) for file, values in enumerate(files) for chunk in _chunks(values, file, chunk_rows))
    sources = [str(file) for file in range(len(files))]
    found = list(blocks(chunks, part=0, schema=SCHEMA, row_filter=row_filter, block_rows=block_rows, sources=sources))
    assert [block.is_last for block in found] == [False] * (len(found) - 1) + [True]
    assert all(len(block.origin.rows) == block_rows for block in found[:-1])
    assert len(found) == 1 or len(found[-1].origin.rows)
    assert sum(block.read_rows for block in found) == sum(map(len, files))
    return [(block.origin.files.tolist(), block.origin.rows.tolist(), block.table["x"].to_pylist()) for block in found]


@given(FILES, FILTERS, st.integers(1, 8), st.integers(1, 9), st.integers(1, 9))
def test_blocks_do_not_depend_on_chunks(
    files: Files, row_filter: RowFilter, block_rows: int, one: int, other: int
) -> None:
    """However a reader cuts its chunks, the same rows are in the same blocks, each where it comes from."""
    found = _cut(files, row_filter, block_rows, one)
    assert found == _cut(files, row_filter, block_rows, other)
    for numbers, rows, values in found:
        assert values == [files[file][row] for file, row in zip(numbers, rows, strict=True)]


@given(FILES, FILTERS, st.integers(1, 60), st.integers(1, 9))
def test_limit_is_after_as_many_rows(files: Files, row_filter: RowFilter, limit: int, chunk_rows: int) -> None:
    """Up to the limit there are exactly as many rows that are wanted or lost, and the last of them is one."""
    wanted = [
        (file, row)
        for file, values in enumerate(files)
        for chunk in _chunks(values, file, 100)
        for row in _wanted(row_filter, file, chunk)
    ]
    sources = [str(file) for file in range(len(files))]
    end = first_unwanted(
        limit,
        [len(values) for values in files],
        row_filter,
        sources,
        lambda file: _chunks(files[file], file, chunk_rows),
    )
    if len(wanted) < limit:
        assert end is None
    else:
        file, row = wanted[limit - 1]
        assert end == (file, row + 1)


def _wanted(row_filter: RowFilter, file: int, chunk: Chunk) -> list[int]:
    kept, errors = row_filter.apply(file, str(file), chunk)
    return sorted([*chunk.rows[kept].tolist(), *(error.row for error in errors if error.row is not None)])
