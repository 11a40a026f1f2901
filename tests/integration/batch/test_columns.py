"""Whole jobs over columns of many types: values arrive as they are, and bad rows cost only themselves."""

import csv
import json
from pathlib import Path
from threading import Event

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from inferd.batch.job import Job
from inferd.batch.options import JobOptions, RunOptions
from inferd.config.settings import Settings
from inferd.dtypes import ALL
from tests import onnx_models


@pytest.fixture
def run(tmp_path):
    """Run a job of a model over a file; return its answers, its error rows as (row, code, message), and its batches."""

    def run(model, source, **options):
        path, output = onnx_models.save(model, tmp_path / "model.onnx"), tmp_path / "answers"
        # Nothing is measured if both are given.
        sizes = {"batch_rows": 64, "batch_bytes": 1 << 20}
        made = JobOptions(model=str(path), inputs=(str(source),), output=str(output), **sizes, **options)
        summary = Job(made, RunOptions(workers=0), Settings()).run(Event())
        answers = pq.read_table(output)
        errors = []
        if summary.errors:
            lines = map(json.loads, Path(summary.errors_file).read_text(encoding="utf-8").splitlines())
            errors = [(line["row"], line["code"], line["message"]) for line in lines]
        assert (answers.num_rows, len(errors)) == (summary.rows, summary.errors)
        return answers, errors, summary.batches

    return run


@pytest.fixture
def parquet(tmp_path):
    """Write columns to a Parquet file of small row groups."""

    def parquet(**columns):
        pq.write_table(pa.table(columns), tmp_path / "rows.parquet", row_group_size=7)
        return tmp_path / "rows.parquet"

    return parquet


def _values(datatype):
    kind = datatype.numpy.kind
    if datatype.name == "BYTES":
        return [["", "ж𝄞"], ["\0", "a" * 300]] * 10
    if kind == "b":
        return [[True, False], [False, True]] * 10
    if kind in "iu":
        bounds = np.iinfo(datatype.numpy)
        return [[int(bounds.min), int(bounds.max)], [1, 7]] * 10
    bounds = ml_dtypes.finfo(datatype.numpy)
    return [[float(bounds.max), float(bounds.smallest_subnormal)], [-0.0, float("inf")]] * 10


@pytest.mark.parametrize("datatype", ALL, ids=lambda datatype: datatype.name)
def test_each_datatype_arrives_as_it_is(run, parquet, datatype):
    """The extreme values of each datatype come back from a model that changes nothing."""
    values = _values(datatype)
    # Python's numbers are signed ones to Arrow.
    column = pa.array(values, pa.list_(pa.uint64()) if datatype.name == "UINT64" else None)
    answers, errors, _ = run(onnx_models.identity(datatype), parquet(x=column))
    assert errors == []
    assert answers["y"].to_pylist() == values


@pytest.mark.parametrize("layout", ["dictionary", "view", "large"])
def test_layouts_of_arrow(run, tmp_path, layout):
    """Dictionaries, views and large lists of an Arrow file are read as what they stand for."""
    texts = [["a", "b"], ["b", "c"], ["a", "c"]]
    elements = {"dictionary": pa.dictionary(pa.int8(), pa.string()), "view": pa.string_view()}
    kind = pa.list_(elements.get(layout, pa.large_string()))
    table = pa.table({"text": pa.array(texts, pa.large_list(kind.value_type) if layout == "large" else kind)})
    with pa.ipc.new_file(tmp_path / "rows.arrow", table.schema) as file:
        file.write(table)
    answers, errors, _ = run(onnx_models.strings(), tmp_path / "rows.arrow", output_format="parquet")
    assert errors == []
    assert answers["loud"].to_pylist() == [[f"{text}!" for text in row] for row in texts]


def test_rows_that_are_no_inputs(run, parquet):
    """Each bad value costs its row, says so, and changes no other row's answer."""
    x = [[row, row + 0.5, row] for row in range(30)]
    expected = [[2 * value + 1 for value in row] for row in x]
    x[3], x[11], x[17], x[29] = None, [1.0, None, 2.0], [1.0, 2.0], [1.0, 1e39, 2.0]
    answers, errors, batches = run(onnx_models.linear(), parquet(x=x), row_ids=True)
    assert errors == [
        (3, "INVALID_INPUT", 'column "x": expected FP32 [3], got null'),
        (11, "INVALID_INPUT", 'column "x": expected FP32 [3], got null among its values'),
        (17, "INVALID_INPUT", 'column "x": expected FP32 [3], got shape [2]'),
        (29, "INVALID_INPUT", 'column "x": expected FP32 [3], got 1e+39'),
    ]
    good = [row for row in range(30) if row not in {3, 11, 17, 29}]
    assert answers["row"].to_pylist() == good
    assert answers["y"].to_pylist() == [expected[row] for row in good]
    assert max(batches) > 1


def test_rows_whose_run_fails(run, parquet):
    """Rows that fail the run of their batch are found, and the others have their answers."""
    index = [row % 4 for row in range(1000)]
    index[0] = index[512] = index[513] = index[999] = 4
    answers, errors, _ = run(onnx_models.lookup(), parquet(index=index), row_ids=True)
    assert [row for row, _, _ in errors] == [0, 512, 513, 999]
    assert {code for _, code, _ in errors} == {"RUN_FAILED"}
    assert answers["y"].to_pylist() == [10 * index[row] for row in answers["row"].to_pylist()]


def test_inputs_of_different_lengths(run, parquet):
    """Inputs whose dimensions should be equal, and are not in one row, cost that row."""
    a, b = [[1.0, 2.0]] * 9, [[3, 4]] * 9
    b[5] = [3]
    answers, errors, _ = run(onnx_models.two_inputs(), parquet(a=a, b=b))
    assert errors == [(5, "INVALID_INPUT", 'input "b": expected length = 2 as in input "a", got 1')]
    assert answers["total"].to_pylist() == [[4, 6]] * 8


def test_inputs_that_a_batch_shares(run, parquet):
    """Rows share a batch only with the value of a shared input that they have themselves."""
    x = [[row, 1.0, 2.0] for row in range(40)]
    factor = [float(row % 3) for row in range(40)]
    answers, errors, batches = run(onnx_models.shared_scalar(), parquet(x=x, factor=factor))
    assert errors == []
    assert answers["y"].to_pylist() == [[value * factor[at] for value in row] for at, row in enumerate(x)]
    assert sum(batches.values()) == 3


@pytest.mark.parametrize(("columns", "scale"), [({}, 2), ({"scale": [3.0] * 4}, 3)])
def test_optional_inputs(run, parquet, columns, scale):
    """An optional input has its default, or the column of its name."""
    x = [[row, 1.0, 2.0] for row in range(4)]
    answers, _, _ = run(onnx_models.optional_scale(), parquet(x=x, other=[0] * 4, **columns))
    assert answers["y"].to_pylist() == [[value * scale for value in row] for row in x]


def test_outputs_of_the_whole_batch(run, parquet):
    """An output without rows stands in each row; wanted outputs have their columns."""
    x = [[row, 1.0, 2.0] for row in range(5)]
    answers, _, _ = run(onnx_models.constant_output(), parquet(x=x, id=list("abcde")), join=("id",))
    assert answers.to_pydict() == {"id": list("abcde"), "y": x, "classes": [[10, 20, 30]] * 5}


def test_columns_of_csv_are_one_input(run, tmp_path):
    """Numbers in several columns are one dimension; a value that is none costs its row."""
    rows = [[f"row {row}", str(row), str(row + 0.5), "3"] for row in range(20)]
    rows[7][2], rows[9][1] = "", "none"
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "p0", "p1", "p2"], *rows])
    options = {"mapping": {"x": "p*"}, "join": ("id",), "output_format": "parquet"}
    answers, errors, _ = run(onnx_models.linear(), tmp_path / "rows.csv", **options)
    good = [row for row in range(20) if row not in {7, 9}]
    assert answers["id"].to_pylist() == [f"row {row}" for row in good]
    assert answers["y"].to_pylist() == [[2 * row + 1, 2 * row + 2, 7] for row in good]
    assert [row for row, _, _ in errors] == [7, 9]
    assert errors[0][2] == 'column "p1" for input "x": expected FP32 [], got null'


def test_json_lines_with_whole_numbers_and_texts(run, tmp_path):
    """Lists of numbers are the model's floats, texts that look like dates are texts, and so are numbers among texts."""
    lines = [{"text": ["2026-01-01", "1"]}, {"text": [1, ""]}, {"text": ["x"]}, {"text": [["x"], "x"]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    answers, errors, _ = run(onnx_models.strings(), tmp_path / "rows.jsonl", output_format="parquet")
    assert answers["loud"].to_pylist() == [["2026-01-01!", "1!"], ["1!", "!"]]
    assert [row for row, _, _ in errors] == [2, 3]
    assert errors[0][1:] == ("INVALID_INPUT", 'column "text": expected BYTES [2], got shape [1]')
