"""Arrow files and streams: the rows of any range, and what is left of damaged ones."""

import pyarrow as pa
import pytest

from inferd.batch.errors import UnreadableFileError
from inferd.batch.sources import arrow
from inferd.batch.sources.arrow import ArrowReader
from tests.unit.batch.sources.files import rows_of, source


def _written(path, open_writer, batches=4, rows=30, **options):
    schema = pa.schema([("x", pa.int64()), ("s", pa.string())])
    with pa.OSFile(str(path), "wb") as file, open_writer(file, schema, **options) as writer:
        for first in range(0, batches * rows, rows):
            numbers = range(first, first + rows)
            writer.write(pa.record_batch([pa.array(numbers), pa.array([f"text {i}" for i in numbers])], schema=schema))
    return source(path, "arrow")


@pytest.mark.parametrize("open_writer", [pa.ipc.new_file, pa.ipc.new_stream])
@pytest.mark.parametrize("mapped_bytes", [1, 1 << 30])
@pytest.mark.parametrize("ranges", [[(0, 120)], [(0, 31), (31, 45), (50, 120)], [(40, 50), (0, 40), (60, 61)]])
def test_any_ranges_have_their_rows(tmp_path, monkeypatch, open_writer, mapped_bytes, ranges):
    """Files and streams, mapped or not, in order or not."""
    monkeypatch.setattr(arrow, "_MAPPED_BYTES", mapped_bytes)
    file = _written(tmp_path / "a.arrow", open_writer)
    reader = ArrowReader()
    assert sum(reader.spans(file)) == 120
    for start, stop in ranges:
        expected = {row: (row, f"text {row}") for row in range(start, stop)}
        assert rows_of(reader, file, start=start, stop=stop, rows=7) == (expected, {})
    assert rows_of(reader, file, pa.schema([("s", pa.string())]), 5, 6) == ({5: ("text 5",)}, {})
    assert rows_of(reader, file, pa.schema([]), 5, 6) == ({5: ()}, {})


@pytest.mark.parametrize("open_writer", [pa.ipc.new_file, pa.ipc.new_stream])
def test_truncation_costs_the_end_only(tmp_path, open_writer):
    """What was there before is read; where it ends is one error row."""
    path = tmp_path / "a.arrow"
    file = _written(path, open_writer, rows=1000)
    path.write_bytes(path.read_bytes()[: file.size * 5 // 8])
    file = source(path, "arrow")
    assert list(ArrowReader().spans(file)) == [2001]
    values, errors = rows_of(ArrowReader(), file)
    assert values == {row: (row, f"text {row}") for row in range(2000)}
    assert list(errors) == [2000]


def test_damaged_batch_costs_its_rows(tmp_path):
    """The rows of others are read."""
    path = tmp_path / "a.arrow"
    file = _written(path, pa.ipc.new_file, rows=1000, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    content = bytearray(path.read_bytes())
    place = content.index(pa.compress(b"", "zstd", asbytes=True)[:4], file.size // 2)
    content[place : place + 40] = b"\xff" * 40
    path.write_bytes(content)
    values, errors = rows_of(ArrowReader(), source(path, "arrow"))
    assert len(errors) == 1000
    assert len(values) == 3000
    assert all(text.startswith("damaged record batch: ") for text in errors.values())


def test_offsets_out_of_bounds_are_found(tmp_path):
    """They cost their rows, and no access to memory that is not the file's."""
    path = tmp_path / "a.arrow"
    batch = pa.record_batch({"s": ["a", "bb", "ccc"]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write(batch)
    offsets = b"\1\0\0\0\3\0\0\0\6\0\0\0"
    path.write_bytes(path.read_bytes().replace(offsets, offsets.replace(b"\6", b"\xff")))
    values, errors = rows_of(ArrowReader(), source(path, "arrow"))
    assert values == {0: ("a",), 1: ("bb",)}
    assert errors == {2: 'column "s": expected string, got bytes that are no text in UTF-8'}


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0", b"no such format at all"])
def test_rejects_other_files(tmp_path, content):
    """It is unreadable."""
    (tmp_path / "a.arrow").write_bytes(content)
    file = source(tmp_path / "a.arrow", "arrow")
    for call in (ArrowReader().schema, ArrowReader().spans):
        with pytest.raises(UnreadableFileError):
            call(file)
