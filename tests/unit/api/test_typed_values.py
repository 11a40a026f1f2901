"""Typed lists of elements, as people write them."""

import math

import numpy as np
import pytest

from inferd.api import typed_values
from inferd.dtypes import BY_NAME
from inferd.errors import InvalidInputError


@pytest.mark.parametrize(
    ("name", "value"),
    [("INT8", 128), ("INT8", -129), ("UINT8", -1), ("UINT16", 2**16), ("UINT64", -1), ("INT64", 2**63)],
)
def test_integers_that_do_not_fit_are_refused(name, value):
    """A value is never wrapped around; nor quoted, because it would stand in the log."""
    said = rf'^input "x": expected {name} values from -?\d+ to \d+, got another as element 1$'
    with pytest.raises(InvalidInputError, match=said):
        typed_values.from_integers("x", BY_NAME[name], [0, value])


@pytest.mark.parametrize("name", ["INT8", "INT64", "UINT64", "FP16", "BF16", "FP32", "FP64"])
def test_integers_are_taken_for_any_number(name):
    """People write 0 for 0.0."""
    array = typed_values.from_integers("x", BY_NAME[name], [0, 1, 2])
    assert array.dtype == BY_NAME[name].numpy
    assert array.astype(float).tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(("name", "value"), [("FP16", 70000.0), ("FP32", 1e39), ("BF16", 1e39)])
def test_floats_beyond_the_type_are_refused(name, value):
    """A finite number does not silently become infinite."""
    said = f'^input "x": expected values within the range of {name}, got one beyond as element 1$'
    with pytest.raises(InvalidInputError, match=said):
        typed_values.from_floats("x", BY_NAME[name], [0, value])


def test_infinity_and_nan_are_numbers():
    """What a caller means to be infinite stays so."""
    array = typed_values.from_floats("x", BY_NAME["FP16"], [math.inf, -math.inf, math.nan])
    assert np.isinf(array[:2]).all()
    assert np.isnan(array[2])


@pytest.mark.parametrize(
    ("convert", "name", "values", "said"),
    [
        (typed_values.from_bools, "FP32", [True], "expected values of FP32, got a list of booleans"),
        (typed_values.from_floats, "INT64", [1.5], "expected values of INT64, got a list of floating-point numbers"),
        (typed_values.from_integers, "BOOL", [1], "expected values of BOOL, got a list of integers"),
    ],
)
def test_the_wrong_list_is_refused(convert, name, values, said):
    """The text says which kind of list came."""
    with pytest.raises(InvalidInputError, match=said):
        convert("x", BY_NAME[name], values)


@pytest.mark.parametrize(
    ("array", "field", "values"),
    [
        (np.array([[True, False]]), "bools", [True, False]),
        (np.array([-1, 2], np.int8), "ints", [-1, 2]),
        (np.array([2**64 - 1], np.uint64), "uints", [2**64 - 1]),
        (np.array([0.1, np.inf], np.float32), "floats", [0.1, math.inf]),
        (np.array([0.1], np.float16), "floats", [0.1]),
        (np.array([b"a", "ü".encode()], object), "strings", ["a", "ü"]),
        (np.array([b"a", b"\xff"], object), "bytes_values", [b"a", b"\xff"]),
    ],
)
def test_elements_go_into_the_list_of_their_kind(array, field, values):
    """Floats are written as short as their type allows."""
    assert typed_values.to_list(array) == (field, values)


@pytest.mark.parametrize("name", ["FP16", "BF16", "FP32", "FP64"])
def test_short_floats_round_to_the_same_elements(name):
    """What is shortened for people is not lost for programs."""
    dtype = BY_NAME[name].numpy
    array = np.random.default_rng(0).standard_normal(200).astype(dtype)
    assert np.array_equal(typed_values.from_floats("x", BY_NAME[name], typed_values.to_list(array)[1]), array)
