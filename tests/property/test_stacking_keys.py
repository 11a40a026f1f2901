"""`ModelSignature.check` accepts exactly what matches, and requests with equal stack keys can be stacked."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.dtypes import BY_NAME
from inferd.errors import InvalidInputError
from inferd.runtime.signature import ModelSignature, TensorSpec
from inferd.runtime.stacking import stack

DATATYPES = [BY_NAME[name] for name in ("FP32", "INT64", "BOOL")]

specs = st.builds(
    lambda name, datatype, rest, batched, optional: TensorSpec(
        name=name,
        datatype=datatype,
        shape=("batch", *rest) if batched else tuple(rest),
        batch_axis=0 if batched else None,
        optional=optional,
    ),
    st.sampled_from("xyz"),
    st.sampled_from(DATATYPES),
    st.lists(st.sampled_from(["a", "b", None, 1, 2]), max_size=2),
    st.booleans(),
    st.booleans(),
)


def _signature(inputs: list[TensorSpec], loose: frozenset[str]) -> ModelSignature:
    """Return a signature that can batch if a required input has a batch axis."""
    batchable = any(spec.batch_axis is not None and not spec.optional for spec in inputs)
    if not batchable:
        inputs = [replace(spec, batch_axis=None) for spec in inputs]
    return ModelSignature(inputs=tuple(inputs), outputs=(), batchable=batchable, loose_dimensions=loose)


signatures = st.builds(
    _signature,
    st.lists(specs, min_size=1, max_size=3, unique_by=lambda spec: spec.name),
    st.frozensets(st.sampled_from(["a", "b"])),
)


@st.composite
def requests(draw: st.DrawFn, signature: ModelSignature) -> dict[str, np.ndarray]:
    """Draw inputs that match, or nearly: each part is wrong occasionally."""
    rarely = st.integers(0, 9).map(lambda roll: roll == 0)
    sizes = {symbol: draw(st.integers(0, 2)) for symbol in ("batch", "a", "b")}
    inputs = {}
    for spec in signature.inputs:
        if draw(st.booleans() if spec.optional else rarely):
            continue
        shape = [
            draw(st.integers(0, 2)) if size is None or draw(rarely) else sizes.get(size, size) for size in spec.shape
        ]
        if draw(rarely):
            shape.append(1)
        datatype = draw(st.sampled_from(DATATYPES)) if draw(rarely) else spec.datatype
        inputs[spec.name] = np.ones(shape, datatype.numpy)
    if draw(rarely):
        inputs["unknown"] = np.ones(1, np.float32)
    return inputs


def fits(signature: ModelSignature, inputs: dict[str, np.ndarray]) -> bool:
    """Return the expected result of `check`, computed in the simplest way."""
    if not inputs.keys() <= {spec.name for spec in signature.inputs}:
        return False
    bound: dict[str, int] = {}
    for spec in signature.inputs:
        if spec.name not in inputs:
            if spec.optional:
                continue
            return False
        array = inputs[spec.name]
        if array.dtype != spec.datatype.numpy or array.ndim != len(spec.shape):
            return False
        for size, actual in zip(spec.shape, array.shape, strict=True):
            compared = isinstance(size, str) and size not in signature.loose_dimensions
            expected = bound.setdefault(size, actual) if compared else size
            if isinstance(expected, str):
                continue
            if expected not in {None, actual}:
                return False
    return not (signature.batchable and bound.get("batch") == 0)


@given(st.data(), signatures)
def test_accepts_exactly_matching_inputs(data, signature):
    """Anything else is rejected, naming an input."""
    inputs = data.draw(requests(signature))
    if fits(signature, inputs):
        assert signature.check(inputs).nbytes == sum(array.nbytes for array in inputs.values())
    else:
        with pytest.raises(InvalidInputError, match=r'^input "'):
            signature.check(inputs)


@given(st.data(), signatures)
def test_requests_with_equal_keys_can_be_stacked(data, signature):
    """And the batch matches the signature again."""
    pair = [data.draw(requests(signature)) for _ in range(2)]
    if not signature.batchable or not all(fits(signature, inputs) for inputs in pair):
        return
    checked = [signature.check(inputs) for inputs in pair]
    if checked[0].stack_key == checked[1].stack_key:
        assert signature.check(stack(signature, pair)).rows == checked[0].rows + checked[1].rows
