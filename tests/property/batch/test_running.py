"""Any rows, cut into any blocks and batches: each answer is the row's own, and each failing row one error."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.batch.binding import Columns, bind
from inferd.batch.blocks import BatchLimits, Origin, PreparedBlock
from inferd.batch.local import open_local
from inferd.batch.options import JobOptions
from inferd.batch.running import BlockRunner
from inferd.batch.tensors import column_tensor
from inferd.config.settings import Settings
from tests import onnx_models

TYPES = {"a": pa.list_(pa.float32()), "b": pa.list_(pa.int64())}


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    """Sum and product of two inputs of any length, which must be the same."""
    path = onnx_models.save(onnx_models.two_inputs(), tmp_path_factory.mktemp("model") / "model.onnx")
    opened = open_local(str(path), Settings())
    yield opened
    opened.close()


def blocks(signature, rows, sizes):
    """Yield ``rows``, pairs of lengths, in blocks of ``sizes``; the numbers in a row are its own."""
    start = 0
    for size in [*sizes, len(rows)]:
        numbers = range(start, min(start + size, len(rows)))
        columns = {
            name: pa.array([[row] * rows[row][index] for row in numbers], TYPES[name])
            for index, name in enumerate(("a", "b"))
        }
        count = len(numbers)
        yield PreparedBlock(
            part=0,
            is_last=False,
            origin=Origin(np.zeros(count, np.int64), np.array(numbers, np.int64)),
            joined=pa.RecordBatch.from_pylist([{}] * count, pa.schema([])),
            tensors={name: column_tensor(signature.input(name), column)[0] for name, column in columns.items()},
            errors=[],
            read_rows=count,
        )
        start += count


lengths = st.one_of(
    st.integers(0, 3).map(lambda length: (length, length)), st.tuples(st.integers(1, 3), st.integers(1, 3))
)


@given(
    st.lists(lengths, max_size=40),
    st.lists(st.integers(1, 20), max_size=4),
    st.integers(1, 9),
    st.sampled_from([1, 30, 10**6]),
)
def test_rows_have_their_own_answers(runner, rows, sizes, most, nbytes):
    """In order, whatever they ran beside."""
    options = JobOptions(model="m", inputs=("in",), output="out", row_ids=True)
    binding = bind(runner.signature, Columns(schema=pa.schema(list(TYPES.items()))), options)
    finished = list(
        BlockRunner(runner, binding, BatchLimits(most, nbytes), ("in",)).run(blocks(runner.signature, rows, sizes))
    )
    good = [row for row, (a, b) in enumerate(rows) if a == b]
    answers = [answer for block in finished for answer in block.table.to_pylist()]
    assert [answer["row"] for answer in answers] == good
    for answer in answers:
        row = answer["row"]
        assert answer["total"] == [2.0 * row] * rows[row][0]
        assert answer["product"] == [float(row * row)] * rows[row][0]
    errors = [error.row for block in finished for error in block.errors]
    assert errors == [row for row in range(len(rows)) if row not in good]
    assert sum(sum(block.batches) for block in finished) == len(rows)
    assert max([0, *(size for block in finished for size in block.batches)]) <= most
