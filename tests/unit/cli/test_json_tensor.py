"""From JSON to arrays."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inferd.cli.json_tensor import to_array
from inferd.client import TensorInfo
from inferd.dtypes import BY_NAME


def _spec(datatype: str, *shape: int | str | None, batch_axis: int | None = None) -> TensorInfo:
    return TensorInfo(name="X", datatype=datatype, dtype=BY_NAME[datatype].numpy, shape=shape, batch_axis=batch_axis)


@given(
    st.sampled_from(["BOOL", "INT8", "UINT64", "INT64", "FP16", "FP32", "FP64"]).flatmap(
        lambda name: hnp.arrays(BY_NAME[name].numpy, hnp.array_shapes(min_dims=0, max_dims=3, min_side=1)).map(
            lambda array: (name, array)
        )
    )
)
def test_lists_become_the_array_they_came_from(case):
    """Any array survives being written as JSON values and read as its own type."""
    name, array = case
    read = to_array(_spec(name, *array.shape), array.tolist())
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_text_and_bfloat16():
    """Text stays text, to be encoded with the request; bfloat16 is made of plain numbers."""
    assert to_array(_spec("BYTES", 2), ["a", "zoë"]).tolist() == ["a", "zoë"]
    array = to_array(_spec("BF16", 2), [1, 0.5])
    assert array.dtype == ml_dtypes.bfloat16
    assert array.astype(np.float32).tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("value", "axis", "shape"),
    [([1, 2, 3], 0, (1, 3)), ([1, 2, 3], 1, (3, 1)), ([[1, 2, 3]], 0, (1, 3)), ([1, 2, 3], None, (3,)), (5, 0, ())],
)
def test_a_single_row_gets_its_batch_dimension(value, axis, shape):
    """Only a value that lacks just the batch dimension gets one; anything else is left for the server to judge."""
    assert to_array(_spec("INT32", "batch", 3, batch_axis=axis), value).shape == shape


@pytest.mark.parametrize(
    ("datatype", "value", "message"),
    [
        ("INT32", [1, 2.5], "expected INT32, got 2.5"),
        ("INT32", [True], "expected INT32, got true"),
        ("FP32", ["1"], 'expected FP32, got "1"'),
        ("FP32", [None], "expected FP32, got null"),
        ("FP32", [{"a": 1}], 'expected FP32, got {"a": 1}'),
        ("BOOL", [1], "expected BOOL, got 1"),
        ("BYTES", [1], "expected BYTES, got 1"),
        ("UINT8", [256], "expected UINT8, got a number beyond its range"),
        ("UINT8", [-1], "expected UINT8, got a number beyond its range"),
        ("FP16", [1e6], "expected FP16, got a number beyond its range"),
        ("FP32", [[1], [2, 3]], "expected lists of one shape beside each other, got [1] and [2]"),
        ("FP32", [[1], 2], "expected lists of one shape beside each other, got [] and [1]"),
    ],
)
def test_what_does_not_fit_is_named(datatype, value, message):
    """Elements of another type or beyond its range, and lists that do not line up, are refused by name."""
    with pytest.raises(ValueError, match="X") as caught:
        to_array(_spec(datatype, "batch"), value)
    assert str(caught.value).startswith(f'input "X": {message}')
