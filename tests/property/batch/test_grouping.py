"""Batches of any block: every row once, only rows that may run together, within the limits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferd.batch.blocks import BatchLimits
from inferd.batch.grouping import batches
from inferd.batch.tensors import Dense, Ragged
from inferd.dtypes import BY_NAME
from inferd.runtime.signature import ModelSignature, TensorSpec


def spec(name, shape, axis):
    return TensorSpec(name=name, datatype=BY_NAME["INT64"], shape=shape, batch_axis=axis)


BATCHED = ModelSignature(
    inputs=(spec("x", (None, None), 0), spec("s", (), None)), outputs=(spec("y", (None,), 0),), batchable=True
)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=40), st.integers(1, 7), st.integers(1, 200))
def test_ragged_rows(rows, most, nbytes):
    """Rows of equal lengths and equal shared values run together, in order."""
    lengths = np.array([length for length, _ in rows], np.int64)
    ragged = Ragged(
        np.arange(lengths.sum()), np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), lengths[:, None]
    )
    tensors = {"x": ragged, "s": Dense(np.array([shared for _, shared in rows], np.int64))}
    found = [list(np.atleast_1d(each)) for each in batches(BATCHED, tensors, len(rows), BatchLimits(most, nbytes))]
    assert sorted(row for batch in found for row in batch) == list(range(len(rows)))
    for batch in found:
        assert len({rows[row] for row in batch}) == 1
        assert batch == sorted(batch)
        assert len(batch) <= most
        assert len(batch) == 1 or len(batch) * (rows[batch[0]][0] + 1) * 8 <= nbytes


@given(st.integers(0, 50), st.integers(1, 9))
def test_rows_that_are_alike(rows, most):
    """Are cut where they stand, so that batches are views."""
    signature = ModelSignature(inputs=BATCHED.inputs[:1], outputs=BATCHED.outputs, batchable=True)
    tensors = {"x": Dense(np.zeros((rows, 2), np.int64))}
    found = list(batches(signature, tensors, rows, BatchLimits(most, 10**6)))
    assert [(each.start, each.stop) for each in found] == [
        (start, min(start + most, rows)) for start in range(0, rows, most)
    ]


def test_model_that_may_not_batch():
    """Has each row alone."""
    signature = BATCHED.without_batch_axes()
    tensors = {"x": Dense(np.zeros((3, 1, 2), np.int64)), "s": Dense(np.zeros(3, np.int64))}
    assert list(batches(signature, tensors, 3, BatchLimits(8, 10**6))) == [slice(0, 1), slice(1, 2), slice(2, 3)]
