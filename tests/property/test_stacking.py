"""Stacking and splitting, and chunking and joining, are inverse for any shapes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferd.dtypes import ALL, BYTES
from inferd.runtime.signature import ModelSignature, TensorSpec
from inferd.runtime.stacking import chunks, join, split, stack

Arrays = dict[str, np.ndarray]

open_sizes = st.integers(0, 3)


@st.composite
def signatures(draw: st.DrawFn) -> ModelSignature:
    """Draw the identity: some inputs batched along any axis, some shared, the first one batched."""
    specs = []
    for number in range(draw(st.integers(1, 4))):
        rank = draw(st.integers(1, 3))
        axis = draw(st.integers(0, rank - 1)) if number == 0 or draw(st.booleans()) else None
        shape = tuple(f"d{number}_{dimension}" for dimension in range(rank))
        datatype = draw(st.sampled_from(ALL))
        specs.append(TensorSpec(name=f"t{number}", datatype=datatype, shape=shape, batch_axis=axis))
    return ModelSignature(inputs=tuple(specs), outputs=tuple(specs), batchable=True)


@st.composite
def batches(draw: st.DrawFn) -> tuple[ModelSignature, list[Arrays], list[int]]:
    """Draw requests that can be stacked, with different rows and values."""
    signature = draw(signatures())
    rows = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    trailing = {spec.name: [draw(open_sizes) for _ in spec.shape] for spec in signature.inputs}
    batch = []
    for request, count in enumerate(rows):
        inputs = {}
        for spec in signature.inputs:
            shape = list(trailing[spec.name])
            if spec.batch_axis is not None:
                shape[spec.batch_axis] = count
            inputs[spec.name] = _array(spec, shape, request if spec.batch_axis is not None else 0)
        batch.append(inputs)
    return signature, batch, rows


def _array(spec: TensorSpec, shape: list[int], request: int) -> np.ndarray:
    values = (np.arange(np.prod(shape)) + 7 * request) % 100
    if spec.datatype is BYTES:
        values = np.array([b"%d" % value for value in values], object)
    return values.astype(spec.datatype.numpy).reshape(shape)


def equal(left: Arrays, right: Arrays) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name]) for name in left
    )


@given(batches())
def test_split_inverts_stack(case):
    """Each request gets back its own rows."""
    signature, batch, rows = case
    parts = split(signature, stack(signature, batch), rows)
    assert all(equal(part, inputs) for part, inputs in zip(parts, batch, strict=True))


@given(batches(), st.integers(1, 6))
def test_join_inverts_chunks(case, max_rows):
    """For any chunk size; no chunk is empty or too large."""
    signature, (inputs, *_), (rows, *_) = case
    pieces = list(chunks(signature, inputs, max_rows))
    counts = [signature.check(piece).rows for piece in pieces]
    assert sum(counts) == rows
    assert max(counts) <= max_rows
    assert equal(join(signature, pieces, counts), inputs)


@given(batches())
def test_stacked_batch_fits_signature(case):
    """It has the sum of the rows, and the key of its requests."""
    signature, batch, rows = case
    checked = [signature.check(inputs) for inputs in batch]
    assert len({each.stack_key for each in checked}) == 1
    stacked = signature.check(stack(signature, batch))
    assert stacked.rows == sum(rows)
    assert stacked.stack_key == checked[0].stack_key
