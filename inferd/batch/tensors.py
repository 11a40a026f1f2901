"""Columns of Arrow as tensors: the values of one input for all rows of a block.

Fixed-size lists and plain numbers become views where their type is the model's. What a row has wrong costs that row
only: it is among the bad rows, with what was expected and what came, and its values are zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from inferd.batch.blocks import BadRows, ColumnTensor, Selection
from inferd.batch.column_types import list_axes, row_shape
from inferd.batch.elements import elements, shown
from inferd.batch.lists import Lists, uniform
from inferd.runtime.signature import Array, TensorSpec, format_shape


@dataclass(frozen=True, slots=True)
class Dense:
    """Rows of one shape: ``array`` is ``[rows, *shape]``."""

    array: Array

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.array)

    @property
    def shapes(self) -> None:
        """None: all rows have the same shape."""
        return

    @property
    def nbytes(self) -> int:
        """The memory of all rows; texts with their contents."""
        return _nbytes(self.array)

    def rows(self, selection: Selection) -> Array:
        """Return these rows, a view if they are consecutive."""
        return self.array[selection]

    def select(self, kept: NDArray[np.bool_]) -> "Dense":
        """Return the rows where ``kept`` is true."""
        return Dense(self.array[kept])


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different shapes: row ``i`` has ``values[offsets[i]:offsets[i + 1]]`` in the shape ``shapes[i]``."""

    values: Array
    offsets: NDArray[np.int64]
    shapes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.shapes)

    @property
    def nbytes(self) -> int:
        """The memory of all rows; texts with their contents."""
        return _nbytes(self.values)

    def rows(self, selection: Selection) -> Array:
        """Return these rows, which must be of one shape, a view if they are consecutive."""
        starts = self.offsets[:-1][selection]
        if not len(starts):
            return np.empty((0, *self.shapes.shape[1:]), self.values.dtype)
        shape = self.shapes[selection][0].tolist()
        size = prod(shape)
        if not size:
            return np.empty((len(starts), *shape), self.values.dtype)
        if isinstance(selection, slice) and selection.step in {None, 1}:
            found = self.values[starts[0] : starts[0] + len(starts) * size]
        else:
            # Copies rows; an index of each element would be larger than the elements.
            found = sliding_window_view(self.values, size)[starts]
        return found.reshape(len(starts), *shape)

    def select(self, kept: NDArray[np.bool_]) -> "Ragged":
        """Return the rows where ``kept`` is true."""
        sizes = np.diff(self.offsets)
        values = self.values[np.repeat(kept, sizes)]
        return Ragged(values, _offsets(sizes[kept]), self.shapes[kept])


def _nbytes(array: Array) -> int:
    return array.nbytes + (sum(map(len, array.ravel().tolist())) if array.dtype.hasobject else 0)


def _offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(sizes)))


def to_batch_axis(spec: TensorSpec, array: Array) -> Array:
    """Return rows ``[n, *shape]`` as the model takes them, with the rows along its batch axis."""
    if spec.batch_axis is None:
        # An array also where it has one element only.
        return array[0, ...]
    return array if spec.batch_axis == 0 else np.moveaxis(array, 0, spec.batch_axis)


def from_batch_axis(spec: TensorSpec, array: Array) -> Array:
    """Return an output with a batch axis as rows ``[n, *shape]``."""
    return array if not spec.batch_axis else np.moveaxis(array, spec.batch_axis, 0)


def column_tensor(spec: TensorSpec, column: pa.Array) -> tuple[ColumnTensor, BadRows]:
    """Return the values of ``column`` as those of the input ``spec``, a row of it for each row of the model.

    ``column`` has a type that `inferd.batch.column_types.mismatch` accepts.
    """
    shape = row_shape(spec)
    axes = list_axes(spec, column.type)
    assert axes is not None, f"{column.type} for {spec}"
    alike = uniform(column, len(axes))
    if alike is not None:
        leaves, sizes = alike
        dims = _in_place(len(shape), axes, np.array([sizes], np.int64))[0].tolist()
        if all(not isinstance(want, int) or want == size for want, size in zip(shape, dims, strict=True)):
            values, unfit = elements(leaves, spec)
            if unfit is None:
                return Dense(values.reshape(len(column), *dims)), {}
    lists = Lists(column)
    for axis in axes:
        lists.descend(shape[axis])
    lists.blame_nulls()
    values, unfit = elements(lists.leaves, spec)
    if unfit is not None:
        lists.blame(unfit, lambda at: shown(lists.leaves[at]))
    lists.blame_sizes([shape[axis] for axis in axes])
    sizes_by_row = np.stack(lists.dims, axis=1) if axes else np.empty((len(column), 0), np.int64)
    shapes = _in_place(len(shape), axes, sizes_by_row)
    bad = {row: f"expected {spec.datatype.name} {format_shape(shape)}, got {got}" for row, got in lists.bad.items()}
    return _tensor(values, lists.sizes, shapes, bad), bad


def _in_place(rank: int, axes: Sequence[int], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return whole shapes ``[rows, rank]`` from the ``sizes`` that lists have; dimensions that they leave out are 1."""
    shapes = np.ones((len(sizes), rank), np.int64)
    shapes[:, axes] = sizes
    return shapes


def _tensor(values: Array, sizes: NDArray[np.int64], shapes: NDArray[np.int64], bad: BadRows) -> ColumnTensor:
    rows = len(sizes)
    good = np.ones(rows, np.bool_)
    good[list(bad)] = False
    alike = shapes[good]
    if len(alike) and (alike != alike[0]).any():
        return Ragged(values, _offsets(sizes), shapes)
    dims = tuple(alike[0].tolist()) if len(alike) else (0,) * shapes.shape[1]
    if not bad:
        return Dense(values.reshape(rows, *dims))
    # An empty text is no number.
    array = np.full((rows, *dims), b"" if values.dtype.hasobject else 0, values.dtype)
    array[good] = values[np.repeat(good, sizes)].reshape(len(alike), *dims)
    return Dense(array)


def stacked(tensors: Sequence[ColumnTensor]) -> ColumnTensor:
    """Return the elements of several columns, one in each row, as one dimension."""
    return Dense(np.stack([tensor.rows(slice(None)) for tensor in tensors], axis=1))


def concatenated(tensors: Sequence[ColumnTensor], bad: BadRows) -> ColumnTensor:
    """Return the rows of ``tensors`` one after the other. Those ``bad``, by their new index, have any values."""
    if len(tensors) == 1:
        return tensors[0]
    values, sizes, shapes = zip(*map(_flat, tensors), strict=True)
    return _tensor(np.concatenate(values), np.concatenate(sizes), np.concatenate(shapes), bad)


def _flat(tensor: ColumnTensor) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Return all values, and the size and the shape of each row."""
    if isinstance(tensor, Ragged):
        return tensor.values, np.diff(tensor.offsets), tensor.shapes
    array = tensor.rows(slice(None))
    shape = np.array(array.shape[1:], np.int64)
    return array.reshape(-1), np.full(len(array), prod(array.shape[1:])), np.tile(shape, (len(array), 1))
