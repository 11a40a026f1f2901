"""Shapes for clients and shapes in the file: any pair that is accepted keeps every element and every row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferd.config.settings import ModelSettings
from inferd.runtime.served_tensors import Reshape, served_tensors
from tests.unit.runtime.specs import spec


@st.composite
def _grouped(draw, factors: list[int]) -> list[int]:
    """Sizes whose product is that of ``factors``, in their order: some of them multiplied, and ones between them."""
    sizes: list[int] = []
    for factor in factors:
        if sizes and draw(st.booleans()):
            sizes[-1] *= factor
        else:
            sizes.append(factor)
    return sizes + [1] * draw(st.integers(0, 1))


@st.composite
def _reshapes(draw) -> Reshape:
    sizes: list[int] = []
    file_sizes: list[int] = []
    for gap in range(draw(st.integers(1, 4))):
        if gap:
            sizes.append(-1)
            file_sizes.append(-1)
        factors = draw(st.lists(st.integers(1, 3), max_size=3))
        sizes += draw(_grouped(factors))
        file_sizes += draw(_grouped(factors))
    override = {"inputs": {"x": {"shape": sizes, "model_shape": file_sizes}}}
    declared = spec("x", tuple(None if size == -1 else size for size in file_sizes))
    return served_tensors([declared], [], ModelSettings.model_validate(override)).reshaped_inputs["x"]


def _filled(reshape: Reshape, sizes: list[int], start: int = 0) -> np.ndarray:
    opened = iter(sizes)
    shape = [next(opened) if size == -1 else size for size in reshape.sizes]
    return np.arange(start, start + int(np.prod(shape))).reshape(shape)


@given(_reshapes(), st.data())
def test_there_and_back(reshape, data):
    """Elements keep their order, and nothing is copied."""
    array = _filled(reshape, data.draw(st.lists(st.integers(1, 3), min_size=4, max_size=4)))
    in_file = reshape.to_file(array)
    assert in_file.base is array.base
    assert np.array_equal(in_file.ravel(), array.ravel())
    assert np.array_equal(reshape.from_file(in_file), array)


@given(_reshapes(), st.data())
def test_rows_stay_rows(reshape, data):
    """Stacking along an open dimension and reshaping give the same in either order."""
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=4, max_size=4))
    for number, (axis, file_axis) in enumerate(reshape.axes):
        assert (reshape.axis_in_file(axis), reshape.axis_for_clients(file_axis)) == (file_axis, axis)
        more = [*sizes[:number], sizes[number] + 1, *sizes[number + 1 :]]
        parts = [_filled(reshape, sizes), _filled(reshape, more, start=1000)]
        stacked_first = reshape.to_file(np.concatenate(parts, axis=axis))
        reshaped_first = np.concatenate([reshape.to_file(part) for part in parts], axis=file_axis)
        assert np.array_equal(stacked_first, reshaped_first)
