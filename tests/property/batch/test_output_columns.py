"""Outputs as columns: read as the input of another job, they are the tensors they were, however batches were cut."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.batch.binding import Columns, bind
from inferd.batch.blocks import Origin
from inferd.batch.column_types import mismatch
from inferd.batch.options import JobOptions
from inferd.batch.outputs import OutputRows
from inferd.batch.tensors import column_tensor
from inferd.dtypes import ALL, BY_NAME, BYTES, DataType
from inferd.runtime.signature import Array, ModelSignature, TensorSpec


def _array(draw: st.DrawFn, datatype: DataType, shape: tuple[int, ...]) -> Array:
    size = int(np.prod(shape, dtype=int))
    if datatype is BYTES:
        texts = draw(st.lists(st.text(max_size=5), min_size=size, max_size=size))
        values = np.empty(size, object)
        values[:] = [text.encode() for text in texts]
        return values.reshape(shape)
    bits = np.random.default_rng(draw(st.integers(0, 2**16))).integers(0, 256, size * datatype.itemsize_bytes, np.uint8)
    if datatype.numpy.kind == "b":
        bits &= 1
    return bits.view(datatype.numpy).reshape(shape)


@st.composite
def _batches(draw: st.DrawFn) -> tuple[TensorSpec, int, list[tuple[np.ndarray, Array]]]:
    """Draw an output, the number of rows, and batches of some of the rows in any order, with what each gave."""
    datatype = draw(st.sampled_from(ALL))
    declared = draw(st.lists(st.sampled_from([None, "n", 0, 1, 2, 3]), max_size=3).map(tuple))
    axis = draw(st.integers(0, len(declared)))
    spec = TensorSpec(name="y", datatype=datatype, shape=(*declared[:axis], "rows", *declared[axis:]), batch_axis=axis)
    rows = draw(st.integers(0, 8))
    order = np.array(draw(st.permutations(range(rows))), np.int64)[: draw(st.integers(0, rows))]
    cuts = sorted(draw(st.sets(st.integers(1, max(len(order) - 1, 1)), max_size=3)))
    batches = []
    for selection in np.split(order, cuts) if len(order) else ():
        if len(selection):
            sizes = tuple(size if isinstance(size, int) else draw(st.integers(0, 3)) for size in declared)
            array = _array(draw, datatype, (*sizes[:axis], len(selection), *sizes[axis:]))
            batches.append((selection, array))
    return spec, rows, batches


@settings(max_examples=200, deadline=None)
@given(_batches())
def test_answers_of_a_job_are_inputs_of_another(drawn: tuple[TensorSpec, int, list[tuple[np.ndarray, Array]]]) -> None:
    """Each row has what its batch gave it; rows without a batch are left out."""
    spec, rows, batches = drawn
    x = TensorSpec(name="x", datatype=BY_NAME["FP32"], shape=("rows",), batch_axis=0)
    signature = ModelSignature(inputs=(x,), outputs=(spec,), batchable=True)
    binding = bind(
        signature,
        Columns(schema=pa.schema([("x", pa.float32())])),
        JobOptions(model="m", inputs=("in",), output="out", join=(), row_ids=True),
    )
    outputs = OutputRows(binding, signature, rows)
    for selection, array in batches:
        outputs.put(selection, {"y": array})
    joined = pa.record_batch({"x": pa.array(np.arange(rows, dtype=np.float32))})
    table = outputs.finish(joined, Origin(np.zeros(rows, np.int64), np.arange(rows)), ["file"])
    table.validate(full=True)
    expected = {
        int(row): np.moveaxis(array, spec.batch_axis, 0)[at : at + 1]
        for selection, array in batches
        for at, row in enumerate(selection)
    }
    assert table["row"].to_pylist() == table["x"].to_pylist() == sorted(expected)
    again = TensorSpec(
        name="y", datatype=spec.datatype, shape=("rows", *(size for size in spec.shape if size != "rows")), batch_axis=0
    )
    assert mismatch(again, table["y"].type) is None
    tensor, bad = column_tensor(again, table["y"])
    assert bad == {}
    for at, row in enumerate(sorted(expected)):
        got, answer = tensor.rows(slice(at, at + 1)), expected[row]
        # An empty list of lists does not say how long they would be.
        assert got.shape == answer.shape or not answer.size
        # Of NaN, only that it is none stays.
        with np.errstate(invalid="ignore"):  # signalling NaN
            same = got.ravel() == answer.ravel()
            are_nan = (got.ravel() != got.ravel()) & (answer.ravel() != answer.ravel())
        assert bool(np.all(same | are_nan))
