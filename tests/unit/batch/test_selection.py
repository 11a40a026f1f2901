"""Which rows are wanted, and how they come in blocks."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from inferd.batch.blocks import Block, Chunk
from inferd.batch.errors import INVALID_INPUT, UNREADABLE, RowError
from inferd.batch.expressions import parse
from inferd.batch.selection import RowFilter, blocks, first_unwanted

SCHEMA = pa.schema([("x", pa.int64())])
SOURCES = ("one", "two", "three")


def chunk(start: int, stop: int, lost: tuple[int, ...] = (), file: int = 0) -> Chunk:
    """Return rows whose value is their number, without those that are ``lost``."""
    rows = np.array([row for row in range(start, stop) if row not in lost], np.int64)
    errors = [RowError(SOURCES[file], row, UNREADABLE, "damaged") for row in lost]
    return Chunk(rows, pa.record_batch([pa.array(rows)], schema=SCHEMA), errors)


def cut(*chunks: tuple[int, Chunk], block_rows: int, row_filter: RowFilter | None = None) -> list[Block]:
    """Return the blocks of a part."""
    found = blocks(
        chunks,
        part=7,
        schema=SCHEMA,
        row_filter=row_filter or RowFilter(),
        block_rows=block_rows,
        sources=SOURCES,
    )
    return list(found)


def values(found: list[Block]) -> list[list[int]]:
    """Return the values of each block."""
    return [block.table["x"].to_pylist() for block in found]


def test_fills_blocks_across_chunks_and_files() -> None:
    """Blocks have all their rows but the last, whatever the chunks and files are, and know where rows come from."""
    found = cut((0, chunk(0, 3)), (0, chunk(3, 4)), (2, chunk(5, 12, file=2)), block_rows=4)
    assert values(found) == [[0, 1, 2, 3], [5, 6, 7, 8], [9, 10, 11]]
    assert [block.is_last for block in found] == [False, False, True]
    assert [block.part for block in found] == [7, 7, 7]
    assert found[0].origin.files.tolist() == [0, 0, 0, 0]
    assert found[1].origin.files.tolist() == [2, 2, 2, 2]
    assert found[2].origin.rows.tolist() == [9, 10, 11]


def test_last_full_block_is_last() -> None:
    """There is no empty block after the last rows."""
    found = cut((0, chunk(0, 4)), (0, chunk(4, 8)), block_rows=4)
    assert values(found) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [block.is_last for block in found] == [False, True]


def test_part_without_rows_has_one_block() -> None:
    """A part always ends with a last block, with the columns that all have."""
    [block] = cut(block_rows=4)
    assert block.is_last
    assert block.table.schema == SCHEMA
    assert block.origin.rows.tolist() == []
    [block] = cut((0, chunk(0, 9)), block_rows=4, row_filter=RowFilter(condition=parse("x < 0")))
    assert (block.table.num_rows, block.read_rows, block.is_last) == (0, 9, True)


def test_errors_are_in_next_block() -> None:
    """Rows that were lost are in the blocks as errors, each once, and count as read."""
    found = cut((0, chunk(0, 6, lost=(1, 2))), (0, chunk(6, 9, lost=(7,))), block_rows=3)
    assert values(found) == [[0, 3, 4], [5, 6, 8]]
    assert [error.row for block in found for error in block.errors] == [1, 2, 7]
    assert sum(block.read_rows for block in found) == 9


def test_where_keeps_wanted_rows_and_counts_others_as_read() -> None:
    """Unwanted rows are read, but in no block."""
    row_filter = RowFilter(condition=parse("x in [1, 4, 5, 9, 11]"))
    found = cut((0, chunk(0, 8)), (0, chunk(8, 14)), block_rows=2, row_filter=row_filter)
    assert values(found) == [[1, 4], [5, 9], [11]]
    assert [block.read_rows for block in found] == [5, 5, 4]


def test_failed_condition_is_row_error() -> None:
    """A row for which the condition cannot be computed is an error; its neighbours are filtered."""
    row_filter = RowFilter(condition=parse("6 / x > 2"))
    [block] = cut((1, chunk(0, 5)), block_rows=9, row_filter=row_filter)
    assert block.table["x"].to_pylist() == [1, 2]
    assert block.errors == [RowError("two", 0, INVALID_INPUT, "--where: divide by zero")]


def test_sample_is_same_in_any_chunks_and_comes_before_condition() -> None:
    """Which rows are drawn depends on file, row and seed only; errors of other rows are left out."""
    row_filter = RowFilter(sample=0.5, seed=3)
    [whole] = cut((1, chunk(0, 1000)), block_rows=1000, row_filter=row_filter)
    pieces = cut(*((1, chunk(row, row + 7)) for row in range(0, 1000, 7)), block_rows=1007, row_filter=row_filter)
    drawn = set(whole.table["x"].to_pylist())
    assert 400 < len(drawn) < 600
    assert {value for value in pieces[0].table["x"].to_pylist() if value < 1000} == drawn
    [lost] = cut((1, chunk(0, 1000, lost=tuple(range(1000)))), block_rows=9, row_filter=row_filter)
    assert {error.row for error in lost.errors} == drawn


def test_samples_of_files_and_seeds_are_independent() -> None:
    """Another file, or another seed, draws other rows; shares of 0 and 1 are exact."""
    rows = np.arange(20_000)
    samples = [RowFilter(sample=0.1, seed=seed).drawn(file, rows) for seed in (0, 1) for file in (0, 1)]
    for index, one in enumerate(samples):
        assert 0.09 < one.mean() < 0.11
        for other in samples[:index]:
            assert (one & other).mean() < 0.015
    assert RowFilter(sample=1.0).drawn(0, rows).all()
    assert not RowFilter(sample=0.0).drawn(0, rows).any()


def test_sample_is_same_in_every_release() -> None:
    """The drawn rows are these, so that a job can be continued later."""
    assert RowFilter(sample=0.2, seed=42).drawn(1, np.arange(40)).nonzero()[0].tolist() == [0, 8, 13, 23, 29]


def test_error_of_whole_file_is_in_every_sample() -> None:
    """A file that cannot be read is an error, whatever is drawn of it."""
    error = RowError("one", None, UNREADABLE, "no file")
    empty = Chunk(np.empty(0, np.int64), pa.RecordBatch.from_pylist([], SCHEMA), [error])
    [block] = cut((0, empty), block_rows=2, row_filter=RowFilter(sample=0.0))
    assert block.errors == [error]
    assert block.read_rows == 0


def limit(rows: int, row_filter: RowFilter, counts: list[int | None]) -> tuple[int, int] | None:
    """Return where the limit is in files whose values are their row numbers."""

    def read(file: int) -> Iterator[Chunk]:
        for start in range(0, counts[file] or 0, 4):
            lost = (5,) if start == 4 else ()
            yield chunk(start, min(counts[file] or 0, start + 4), lost, file)

    return first_unwanted(rows, counts, row_filter, SOURCES, read)


def test_limit_counts_rows() -> None:
    """Without a filter the limit is in the counts; files that cannot be counted have none."""
    assert limit(4, RowFilter(), [10, 10]) == (0, 4)
    assert limit(10, RowFilter(), [10, 10]) == (0, 10)
    assert limit(11, RowFilter(), [10, None, 10]) == (2, 1)
    assert limit(21, RowFilter(), [10, 10]) is None


def test_limit_counts_wanted_rows() -> None:
    """With a condition the limit is after as many rows that meet it, or that cannot be read."""
    row_filter = RowFilter(condition=parse("x >= 3"))
    assert limit(3, row_filter, [10, 10]) == (0, 6)
    assert limit(8, row_filter, [10, 10]) == (1, 4)
    assert limit(15, row_filter, [10, 10]) is None


def test_limit_counts_drawn_rows() -> None:
    """With a sample the limit is after as many of its rows."""
    row_filter = RowFilter(sample=0.3, seed=1)
    drawn = row_filter.drawn(0, np.arange(10_000)).nonzero()[0]
    assert limit(100, row_filter, [10_000]) == (0, drawn[99] + 1)
