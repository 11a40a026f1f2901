"""The rounding of numbers to floating-point types."""

import ml_dtypes
import numpy as np
import pytest

from inferd.dtypes import BY_NAME, rounded

#: For each type of 16 bits, the bits of infinity.
_TYPES = [(np.dtype(np.float16), 0x7C00), (np.dtype(ml_dtypes.bfloat16), 0x7F80)]


@pytest.mark.parametrize(("target", "infinity"), _TYPES, ids=["FP16", "BF16"])
def test_doubles_are_rounded_once(target, infinity):
    """Halfway between any two numbers of a type to the even one, and next to there to the nearer one."""
    bits = np.arange(infinity, dtype=np.uint16)
    numbers = bits.view(target).astype(np.float64)
    halfway = (numbers[1:] + numbers[:-1]) / 2
    even = bits[:-1] + (bits[:-1] & 1)
    for side, expected in ((0.0, bits[:-1]), (np.inf, bits[1:])):
        beside = np.nextafter(halfway, side)
        for sign, value in ((0, beside), (0x8000, -beside)):
            np.testing.assert_array_equal(rounded(value, target).view(np.uint16), expected | sign)
    np.testing.assert_array_equal(rounded(halfway, target).view(np.uint16), even)


@pytest.mark.parametrize(("target", "infinity"), _TYPES, ids=["FP16", "BF16"])
def test_largest_numbers(target, infinity):
    """What is nearer to the largest one than to the next power of two is not infinite; NaN and the infinities stay."""
    largest, before = np.array([infinity - 1, infinity - 2], np.uint16).view(target).astype(np.float64)
    bound = largest + (largest - before) / 2
    with np.errstate(over="ignore"):
        found = rounded(np.array([np.nextafter(bound, 0), bound, np.inf, -np.inf, np.nan]), target).astype(np.float64)
    np.testing.assert_array_equal(found, [largest, np.inf, np.inf, -np.inf, np.nan])


def test_other_layouts():
    """Of any number of dimensions and any strides, also of float32, which is exact."""
    halfway = np.nextafter(1 + 2.0**-8, 2)
    for numbers in (np.array(halfway), np.full((4, 6), halfway)[::2, ::3].T):
        found = rounded(numbers, np.dtype(ml_dtypes.bfloat16))
        assert found.shape == numbers.shape
        assert found.flags.c_contiguous
        assert (found.astype(float) == 1 + 2.0**-7).all()
    assert rounded(np.array([1 + 2.0**-8], np.float32), np.dtype(ml_dtypes.bfloat16)).tolist() == [1.0]


@pytest.mark.parametrize("target", ["FP16", "BF16", "FP32"])
@pytest.mark.parametrize("source", [np.float32, np.float64])
def test_signalling_nan_stays_nan_without_a_warning(source, target):
    """Warnings are errors in the tests."""
    bits = {np.float32: np.array([0x7F800001], np.uint32), np.float64: np.array([0x7FF0000000000001], np.uint64)}
    assert np.isnan(rounded(bits[source].view(source), BY_NAME[target].numpy)).all()
