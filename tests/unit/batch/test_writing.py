"""Outputs in each format: what is written is what is read back, in the same bytes, from one file or from parts."""

import csv
import io
import json
import math
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from inferd.batch import writing
from inferd.batch.errors import BatchError, UsageError
from inferd.batch.json_lines import lines_of
from inferd.batch.writing import check_schema, join, open_writer, suffix_of

SCHEMA = pa.schema([("a b", pa.float32()), ("n", pa.list_(pa.list_(pa.int16(), 3), 2)), ("f", pa.bool_())])
FORMATS = ["parquet", "arrow", "csv", "jsonl", "npy", "npz"]


def _blocks(schema, sizes=(3, 0, 4, 1)):
    first = 0
    for size in sizes:
        numbers = np.arange(first, first + size)
        columns = {
            "a b": pa.array(numbers / 7, pa.float32()),
            "n": pa.FixedSizeListArray.from_arrays(
                pa.FixedSizeListArray.from_arrays(pa.array(np.arange(first * 6, (first + size) * 6), pa.int16()), 3), 2
            ),
            "f": pa.array(numbers % 2 == 0),
        }
        yield pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
        first += size


def _schema(output_format):
    names = {"csv": ["a b", "f"], "npy": ["n"]}.get(output_format, SCHEMA.names)
    return pa.schema([SCHEMA.field(name) for name in names])


def _written(output_format, schema, blocks):
    file = io.BytesIO()
    with closing(open_writer(output_format)(file, schema)) as writer:
        for block in blocks:
            writer.write(block)
    return file.getvalue()


def _read(output_format, content, schema):
    file = io.BytesIO(content)
    match output_format:
        case "parquet":
            return pq.read_table(file)
        case "arrow":
            return pa.ipc.open_file(file).read_all()
        case "csv":
            return pa.csv.read_csv(file).cast(schema)
        case "jsonl":
            return pa.Table.from_pylist([json.loads(line) for line in file], schema)
    loaded = np.load(file)
    arrays = [loaded] if output_format == "npy" else [loaded[name] for name in schema.names]
    return pa.Table.from_pydict(
        {
            name: pa.array(array.tolist(), schema.field(name).type)
            for name, array in zip(schema.names, arrays, strict=True)
        },
        schema,
    )


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("sizes", [(3, 0, 4, 1), (), (2,)])
def test_reads_back_values_and_types(output_format, sizes):
    """Values and types, whatever the blocks are; the same rows have the same bytes."""
    schema = check_schema(output_format, _schema(output_format))
    content = _written(output_format, schema, _blocks(schema, sizes))
    expected = pa.Table.from_batches(_blocks(schema, sizes), schema)
    if sizes or output_format != "csv":
        assert _read(output_format, content, schema).equals(expected)
    assert _written(output_format, schema, _blocks(schema, sizes)) == content
    assert suffix_of(output_format) == f".{output_format}"


@pytest.mark.parametrize("output_format", FORMATS)
def test_parts_become_one_file(output_format):
    """It has all their rows in order; parts without rows do not matter."""
    schema = _schema(output_format)
    blocks = list(_blocks(schema))
    parts = [_written(output_format, schema, own) for own in (blocks[:1], [], blocks[1:3], blocks[3:])]
    file = io.BytesIO()
    join(output_format, (lambda part=part: io.BytesIO(part) for part in parts), file, schema)
    assert not file.closed
    assert _read(output_format, file.getvalue(), schema).equals(pa.Table.from_batches(blocks, schema))


def test_row_groups_are_neither_small_nor_large(monkeypatch):
    """Small blocks share one; a row group ends when it has its rows or its bytes."""
    monkeypatch.setattr(writing, "_GROUP_ROWS", 4)
    schema = _schema("parquet")
    content = _written("parquet", schema, _blocks(schema, (1, 1, 3, 2, 9, 1)))
    metadata = pq.read_metadata(io.BytesIO(content))
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [5, 11, 1]
    monkeypatch.setattr(writing, "_GROUP_BYTES", 1)
    content = _written("parquet", schema, _blocks(schema, (1, 1)))
    assert pq.read_metadata(io.BytesIO(content)).num_row_groups == 2


@pytest.mark.parametrize(
    ("output_format", "kind"),
    [
        ("csv", pa.list_(pa.float32(), 2)),
        ("csv", pa.binary()),
        ("jsonl", pa.binary()),
        ("jsonl", pa.list_(pa.binary())),
        ("npy", pa.string()),
        ("npz", pa.list_(pa.float32())),
        ("npz", pa.date32()),
        ("parquet", pa.struct([])),
    ],
)
def test_rejects_types_without_a_form(output_format, kind):
    """Before the first row, with the column, the format and the type."""
    with pytest.raises(UsageError, match=rf'output column "x": a file of \.{output_format} cannot hold '):
        check_schema(output_format, pa.schema([("x", kind)]))


def test_npy_has_one_column():
    """Two are refused."""
    with pytest.raises(UsageError, match=r"a file of \.npy holds one column, got x, y"):
        check_schema("npy", pa.schema([("x", pa.int8()), ("y", pa.int8())]))


def test_null_in_arrays():
    """It is NaN where that is a number, and else an error."""
    schema = pa.schema([("x", pa.float32())])
    content = _written("npy", schema, [pa.record_batch([pa.array([1.0, None], pa.float32())], schema=schema)])
    assert np.isnan(np.load(io.BytesIO(content))).tolist() == [False, True]
    for kind, values in ((pa.int8(), [1, None]), (pa.bool_(), [None]), (pa.list_(pa.float32(), 1), [None])):
        schema = pa.schema([("x", kind)])
        with pytest.raises(BatchError, match='output column "x": an array of NumPy cannot hold null'):
            _written("npz", schema, [pa.record_batch([pa.array(values, kind)], schema=schema)])


@pytest.mark.parametrize(
    ("kind", "values", "texts"),
    [
        (pa.float32(), [0.1, 1.0, 1e20, -0.0, 16777216.0], ["0.1", "1.0", "1e+20", "-0.0", "16777216.0"]),
        (
            pa.float64(),
            [0.1, math.nan, math.inf, -math.inf, None],
            ["0.1", '"NaN"', '"Infinity"', '"-Infinity"', "null"],
        ),
        (pa.float16(), [np.float16(0.5), None], ["0.5", "null"]),
        (pa.uint64(), [2**64 - 1, None], [str(2**64 - 1), "null"]),
        (pa.bool_(), [True, None], ["true", "null"]),
        (pa.string(), ['a"\\\n\x01ö', "", None], ['"a\\"\\\\\\n\\u0001ö"', '""', "null"]),
        (pa.list_(pa.list_(pa.int8())), [[[1, None], []], [], None, [None]], ["[[1,null],[]]", "[]", "null", "[null]"]),
        (pa.list_(pa.float32(), 2), [[1.5, 2.0], None], ["[1.5,2.0]", "null"]),
        (pa.struct([("a", pa.int8()), ("b", pa.string())]), [{"a": 1, "b": "x"}, None], ['{"a":1,"b":"x"}', "null"]),
        (pa.timestamp("s"), [0, None], ['"1970-01-01 00:00:00"', "null"]),
        (pa.decimal128(4, 2), [1, None], ["1.00", "null"]),
    ],
)
def test_json_of_a_type(kind, values, texts):
    """Whole floats are told from integers; a slice has its own rows only."""
    table = pa.RecordBatch.from_arrays([pa.array([values[0], *values], kind)], ['x"'])
    for rows, expected in ((table.slice(1), texts), (table.slice(1, 1), texts[:1]), (table.slice(1, 0), [])):
        lines = b"".join(lines_of(rows)).decode().splitlines()
        assert lines == [f'{{"x\\"":{text}}}' for text in expected]
        assert all(json.loads(line) is not None for line in lines)


def test_tensors_with_nulls_and_in_another_order():
    """A null keeps its line, and dimensions are in their logical order, whatever it is in memory."""
    kind = pa.fixed_shape_tensor(pa.int32(), (2, 3), permutation=[1, 0])
    rows = pa.array([[0, 1, 2, 3, 4, 5], None], pa.list_(pa.int32(), 6))
    tensors = pa.RecordBatch.from_arrays([pa.ExtensionArray.from_storage(kind, rows)], ["x"])
    values = [json.loads(line)["x"] for line in b"".join(lines_of(tensors)).splitlines()]
    assert values == [[[0, 3], [1, 4], [2, 5]], None]
    written = np.load(io.BytesIO(_written("npy", tensors.schema, [tensors.slice(0, 1)])))
    assert written.tolist() == values[:1]


def test_json_of_tensors():
    """They are nested lists."""
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8).reshape(2, 2, 2))
    lines = b"".join(lines_of(pa.RecordBatch.from_arrays([tensors], ["x"])))
    assert lines == b'{"x":[[0,1],[2,3]]}\n{"x":[[4,5],[6,7]]}\n'


def test_csv_has_texts_in_quotes():
    """Python's own reader has the same values."""
    schema = pa.schema([("s", pa.string()), ("h", pa.float16())])
    block = pa.record_batch([pa.array(['a,"b"\n', "", None]), pa.array([np.float16(0.5)] * 3)], schema=schema)
    rows = list(csv.reader(io.StringIO(_written("csv", schema, [block]).decode(), newline="")))
    assert rows == [["s", "h"], ['a,"b"\n', "0.5"], ["", "0.5"], ["", "0.5"]]


def test_lists_of_floats_have_no_dictionary_in_parquet():
    """Those of answers rarely repeat; other columns have one, whatever they are named and nested in."""
    schema = pa.schema(
        [
            ("y.1", pa.list_(pa.list_(pa.float32(), 2))),
            ("label", pa.list_(pa.int64())),
            ("price", pa.float64()),
            ("text", pa.string()),
            ("both", pa.struct([("a", pa.list_(pa.float64())), ("b", pa.int8())])),
        ]
    )
    row = {"y.1": [[1.5, 2]], "label": [3], "price": 4.5, "text": "five", "both": {"a": [6.5], "b": 7}}
    group = pq.read_metadata(
        io.BytesIO(_written("parquet", schema, [pa.RecordBatch.from_pylist([row], schema)]))
    ).row_group(0)
    columns = map(group.column, range(group.num_columns))
    assert {each.path_in_schema: (each.compression, each.has_dictionary_page) for each in columns} == {
        "y.1.list.element.list.element": ("SNAPPY", False),
        "label.list.element": ("ZSTD", True),
        "price": ("ZSTD", True),
        "text": ("ZSTD", True),
        "both.a.list.element": ("SNAPPY", False),
        "both.b": ("ZSTD", True),
    }
