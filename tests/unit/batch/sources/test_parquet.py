"""Parquet files: the rows of any range, and what is left of damaged ones."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inferd.batch.errors import BatchError, UnreadableFileError
from inferd.batch.sources.parquet import ParquetReader
from tests.unit.batch.sources.files import rows_of, source


def _written(path: Path, rows: int = 100, group: int = 30, **columns: list[object]) -> Path:
    table = pa.table({"x": pa.array(range(rows), pa.int64()), "s": [f"text {i}" for i in range(rows)], **columns})
    pq.write_table(table, path, row_group_size=group, write_page_checksum=True, use_dictionary=False)
    return path


def test_spans_are_row_groups(tmp_path):
    """A plan can cut files where they can be read."""
    file = source(_written(tmp_path / "a.parquet"), "parquet")
    assert list(ParquetReader().spans(file)) == [30, 30, 30, 10]


@pytest.mark.parametrize(
    "ranges", [[(0, 100)], [(0, 31), (31, 45), (45, 46), (50, 100)], [(40, 50), (0, 40), (60, 61)]]
)
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_any_ranges_have_their_rows(tmp_path, ranges, rows):
    """Ranges that follow each other, leave rows out or go back have the rows of their numbers."""
    file = source(_written(tmp_path / "a.parquet"), "parquet")
    reader = ParquetReader()
    for start, stop in ranges:
        values, errors = rows_of(reader, file, start=start, stop=stop, rows=rows)
        assert values == {row: (row, f"text {row}") for row in range(start, stop)}
        assert not errors


def test_parts_of_a_row_group_are_one_pass(tmp_path, monkeypatch):
    """What a part leaves of a row group is not read again for the next one."""
    opened = []
    parquet_file = pq.ParquetFile
    monkeypatch.setattr(
        pq, "ParquetFile", lambda *args, **options: opened.append(args) or parquet_file(*args, **options)
    )
    file = source(_written(tmp_path / "a.parquet", group=100), "parquet")
    reader = ParquetReader()
    schema = reader.schema(file)
    for start in range(0, 100, 10):
        rows_of(reader, file, schema, start, start + 10, rows=7)
    assert len(opened) == 2


def test_only_columns_of_the_schema(tmp_path):
    """Columns come in the order and the types of the schema; without any there are rows still."""
    file = source(_written(tmp_path / "a.parquet"), "parquet")
    values, _ = rows_of(ParquetReader(), file, pa.schema([("x", pa.float64())]), 0, 2)
    assert values == {0: (0.0,), 1: (1.0,)}
    values, _ = rows_of(ParquetReader(), file, pa.schema([]), 5, 7)
    assert values == {5: (), 6: ()}


def test_columns_of_the_path(tmp_path):
    """Columns that the path gives have the same value in all rows; the file's own come first."""
    file = source(_written(tmp_path / "a.parquet"), "parquet", {"year": 2026, "place": None, "x": "other"})
    reader = ParquetReader()
    assert reader.schema(file).field("year").type == pa.int32()
    values, _ = rows_of(reader, file, start=1, stop=2)
    assert values == {1: (1, "text 1", 2026, None)}


def test_dictionaries_become_plain(tmp_path):
    """Blocks of several files can be joined, whatever their dictionaries are."""
    pq.write_table(pa.table({"d": pa.array(["a", "b", "a"]).dictionary_encode()}), tmp_path / "a.parquet")
    file = source(tmp_path / "a.parquet", "parquet")
    assert ParquetReader().schema(file) == pa.schema([("d", pa.string())])
    assert rows_of(ParquetReader(), file)[0] == {0: ("a",), 1: ("b",), 2: ("a",)}


def test_value_of_another_type_costs_its_row(tmp_path):
    """The error names column, type and value; neighbours are read."""
    values = [1.0, 2.5, None, 3.0, 1e30]
    pq.write_table(pa.table({"n": values, "l": [[each] for each in values]}), tmp_path / "a.parquet")
    file = source(tmp_path / "a.parquet", "parquet")
    found, errors = rows_of(ParquetReader(), file, pa.schema([("n", pa.int64()), ("l", pa.list_(pa.float32()))]))
    assert found == {0: (1, [1.0]), 2: (None, [None]), 3: (3, [3.0])}
    assert errors == {
        1: 'column "n": expected int64, got 2.5 (double)',
        4: 'column "n": expected int64, got 1e+30 (double)',
    }


def test_text_that_is_not_utf8_costs_its_row(tmp_path):
    """It is found where it is read, not where it is written."""
    broken = pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb"))
    pq.write_table(pa.table({"s": broken}), tmp_path / "a.parquet")
    found, errors = rows_of(ParquetReader(), source(tmp_path / "a.parquet", "parquet"))
    assert found == {0: ("a",), 2: ("b",)}
    assert list(errors) == [1]
    assert 'column "s": expected string' in errors[1]


def test_damaged_row_group_costs_its_rows(tmp_path):
    """The rows of others are read; which are lost does not depend on where a part begins."""
    path = _written(tmp_path / "a.parquet")
    place = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset + 40
    content = bytearray(path.read_bytes())
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    file = source(path, "parquet")
    values, errors = rows_of(ParquetReader(), file)
    assert sorted(errors) == list(range(30, 60))
    assert values == {row: (row, f"text {row}") for row in [*range(30), *range(60, 100)]}
    assert errors[30].startswith("damaged row group 1: ")
    assert sorted(rows_of(ParquetReader(), file, start=40, stop=70)[1]) == list(range(40, 60))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no such format at all, but long enough", None])
def test_rejects_other_files(tmp_path, content):
    """What cannot be opened is unreadable, truncated files too."""
    path = tmp_path / "a.parquet"
    path.write_bytes(_written(path).read_bytes()[:-40] if content is None else content)
    file = source(path, "parquet")
    for call in (ParquetReader().schema, ParquetReader().spans):
        with pytest.raises(UnreadableFileError):
            call(file)


def test_missing_column_is_named(tmp_path):
    """The error names it and those that are there."""
    file = source(_written(tmp_path / "a.parquet"), "parquet")
    with pytest.raises(UnreadableFileError, match=r'expected one column "y", got none, only x, s'):
        rows_of(ParquetReader(), file, pa.schema([("y", pa.int64())]))


def test_storage_that_fails_is_no_damage(tmp_path):
    """A file that cannot be reached ends the job."""
    file = source(_written(tmp_path / "a.parquet"), "parquet")
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(BatchError, match="no such file"):
        ParquetReader().spans(file)
