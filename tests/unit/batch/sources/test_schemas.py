"""The columns of several files."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pytest

from inferd.batch.blocks import Chunk
from inferd.batch.errors import BatchError, UnreadableFileError
from inferd.batch.inputs import schema_of
from inferd.batch.ports import SourceFile

NULLS = pa.list_(pa.null())
NUMBERS = pa.list_(pa.int64())


class _Reader:
    """Has a schema, or an error, for each file; ``asked`` are the files looked at."""

    def __init__(self, *schemas: list[tuple[str, pa.DataType]] | str) -> None:
        self._schemas = schemas
        self.asked = 0

    def schema(self, file: SourceFile) -> pa.Schema:
        found = self._schemas[int(file.address)]
        self.asked += 1
        if isinstance(found, str):
            raise UnreadableFileError(found)
        return pa.schema(found)

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Not asked for."""
        raise NotImplementedError

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Not asked for."""
        raise NotImplementedError


def _schema(reader: _Reader, files: int, *wanted: str, **partition: str) -> pa.Schema:
    given = [
        SourceFile(address=str(file), format="jsonl", size=0, version="", partition=partition) for file in range(files)
    ]
    return schema_of(reader, given, wanted)


def test_first_file_tells_columns() -> None:
    """Others are not looked at, and a damaged one is left out."""
    reader = _Reader("damaged", [("a", pa.int8())], [("a", pa.string())])
    assert _schema(reader, 3) == pa.schema([("a", pa.int8())])
    assert reader.asked == 2


def test_next_files_tell_types_of_columns_of_nulls() -> None:
    """Those of elements of lists, too; what has a type keeps it, and other columns are none."""
    first = [("id", pa.null()), ("l", NULLS), ("n", pa.null()), ("k", pa.int8())]
    reader = _Reader(first, [("l", NULLS), ("id", pa.string())], [("k", pa.string()), ("l", NUMBERS), ("new", NULLS)])
    expected = pa.schema([("id", pa.string()), ("l", NUMBERS), ("n", pa.null()), ("k", pa.int8())])
    assert _schema(reader, 3) == expected


def test_file_without_rows_tells_no_columns() -> None:
    """It has those of its path at the most."""
    rows = [("x", pa.int8()), ("day", pa.string())]
    assert _schema(_Reader([("day", pa.string())], rows), 2, day="mon") == pa.schema(rows)
    assert _schema(_Reader([], []), 2) == pa.schema([])


def test_few_files_are_looked_at_for_types() -> None:
    """A column may have no value at all."""
    reader = _Reader(*[[("a", pa.null())]] * 1000)
    assert _schema(reader, 1000) == pa.schema([("a", pa.null())])
    assert reader.asked == 16


def test_no_readable_file() -> None:
    """The first problem is told."""
    with pytest.raises(BatchError, match="no file can be read; 0: worse"):
        _schema(_Reader("worse", "bad"), 2)


def test_wanted_columns_may_be_in_the_next_files() -> None:
    """They are looked for until all are found, and others are not taken."""
    reader = _Reader([("a", pa.int8())], [("b", pa.string()), ("new", pa.int8())], [("c", pa.bool_())], "not asked for")
    assert _schema(reader, 4, "c", "b") == pa.schema([("a", pa.int8()), ("b", pa.string()), ("c", pa.bool_())])
    assert reader.asked == 3
