"""Rows of parts out of files, when these are whole, damaged, or no longer what they were."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pytest

from inferd.batch.blocks import Chunk
from inferd.batch.errors import UNREADABLE, BatchError, RowError, UnreadableFileError
from inferd.batch.plan import Part, Range
from inferd.batch.ports import SourceFile
from inferd.batch.reading import Sources, counts
from inferd.batch.selection import RowFilter

SCHEMA = pa.schema([pa.field("x", pa.int64())])


class _Reader:
    """Files of numbers: a file has ``rows``, and cannot be read from row ``damaged`` on."""

    def __init__(self, rows: dict[str, int], damaged: dict[str, int] | None = None) -> None:
        self.rows = rows
        self.damaged = damaged or {}

    def schema(self, file: SourceFile) -> pa.Schema:
        return SCHEMA

    def spans(self, file: SourceFile) -> Sequence[int]:
        if self.damaged.get(file.address) == 0:
            raise UnreadableFileError("no footer")
        return [self.rows[file.address]]

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        for at in range(start, min(stop, self.rows[file.address]), rows):
            if at >= self.damaged.get(file.address, stop):
                raise UnreadableFileError("a page is damaged")
            numbers = np.arange(at, min(at + rows, stop, self.rows[file.address]))
            yield Chunk(numbers, pa.RecordBatch.from_arrays([pa.array(numbers)], schema=schema))


def _sources(rows: dict[str, int], damaged: dict[str, int] | None = None) -> Sources:
    files = [SourceFile(address=name, format="numbers", size=0, version="1") for name in rows]
    return Sources(files, _Reader(rows, damaged), RowFilter())


def test_counts_are_not_known_for_damaged_files() -> None:
    """Files are counted by their spans; one that is damaged has no count, and is not the end of the others."""
    sources = _sources({"a": 3, "b": 9, "c": 2}, {"b": 0})
    assert counts(sources.spans()) == [3, None, 2]


def test_blocks_of_a_part_are_filled_across_files() -> None:
    """A block has rows of several files; the last one of each part is marked, and no block crosses parts."""
    sources = _sources({"a": 5, "b": 5})
    parts = [Part(0, (Range(0, 0, 5), Range(1, 0, 2))), Part(1, (Range(1, 2, 5),))]
    blocks = list(sources.blocks(parts, SCHEMA, 4))
    assert [(block.part, block.is_last, block.table["x"].to_pylist()) for block in blocks] == [
        (0, False, [0, 1, 2, 3]),
        (0, True, [4, 0, 1]),
        (1, True, [2, 3, 4]),
    ]
    assert blocks[1].origin.files.tolist() == [0, 1, 1]
    assert sum(block.read_rows for block in blocks) == 10


def test_damaged_file_is_one_error() -> None:
    """A file whose rows are not known is one error without a row, with the reason."""
    sources = _sources({"a": 2, "b": 9}, {"b": 0})
    [block] = sources.blocks([Part(0, (Range(0, 0, 2), Range(1, 0, 0)))], SCHEMA, 4)
    assert block.errors == [RowError("b", None, UNREADABLE, "no footer")]
    assert block.table["x"].to_pylist() == [0, 1]


def test_rows_behind_damage_are_errors_each() -> None:
    """What a reader cannot give of rows that are known to be there is an error for each; others are read."""
    sources = _sources({"a": 8}, {"a": 4})
    [block] = sources.blocks([Part(0, (Range(0, 0, 8),))], SCHEMA, 4)
    assert block.table["x"].to_pylist() == [0, 1, 2, 3]
    assert [error.row for error in block.errors] == [4, 5, 6, 7]
    assert block.read_rows == 8


def test_file_that_has_become_shorter_ends_the_job() -> None:
    """A file with fewer rows than the plan knows has changed: its rows are not lost in silence."""
    sources = _sources({"a": 3})
    with pytest.raises(BatchError, match="a: it has changed while the job ran: expected 5 rows, got 3"):
        list(sources.blocks([Part(0, (Range(0, 0, 5),))], SCHEMA, 4))


def test_file_that_was_repaired_ends_the_job() -> None:
    """A file that could not be counted for the plan, and can be read now, is not left out in silence."""
    sources = _sources({"a": 3})
    with pytest.raises(BatchError, match="a: it has changed"):
        list(sources.blocks([Part(0, (Range(0, 0, 0),))], SCHEMA, 4))
