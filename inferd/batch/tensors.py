"""Convert columns of Arrow to tensors: the values of one input for all rows of a block.

Fixed-size lists and plain numbers of the model's type become views. An invalid value makes its row a bad row, with the
expected and the actual value; other rows are not affected. The values of bad rows are zeros.
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
        """The bytes of all rows, with the contents of texts."""
        return _nbytes(self.array)

    def rows(self, selection: Selection) -> Array:
        """Return the rows as ``[n, *shape]``; a view for a range of rows."""
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
        """The bytes of all rows, with the contents of texts."""
        return _nbytes(self.values)

    def rows(self, selection: Selection) -> Array:
        """Return the rows, which must have one shape, as ``[n, *shape]``; a view for a range of rows."""
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
            # Copies whole rows: an index for each element would take more memory than the elements.
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
    """Return rows ``[n, *shape]`` as an input of the model, with the rows along its batch axis."""
    if spec.batch_axis is None:
        # The ellipsis returns an array also for a single element.
        return array[0, ...]
    return array if spec.batch_axis == 0 else np.moveaxis(array, 0, spec.batch_axis)


def from_batch_axis(spec: TensorSpec, array: Array) -> Array:
    """Return an output with a batch axis as rows ``[n, *shape]``."""
    return array if not spec.batch_axis else np.moveaxis(array, spec.batch_axis, 0)


def column_tensor(spec: TensorSpec, column: pa.Array) -> tuple[ColumnTensor, BadRows]:
    """Convert ``column``, one row for each of its rows, to the input ``spec``; return the tensor and the bad rows.

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
    """Return shapes ``[rows, rank]`` with the ``sizes`` of lists at ``axes``, and 1 for other dimensions."""
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
    # The filler is an empty text for BYTES, else 0.
    array = np.full((rows, *dims), b"" if values.dtype.hasobject else 0, values.dtype)
    array[good] = values[np.repeat(good, sizes)].reshape(len(alike), *dims)
    return Dense(array)


def stacked(tensors: Sequence[ColumnTensor]) -> ColumnTensor:
    """Stack columns of single elements into one dimension."""
    return Dense(np.stack([tensor.rows(slice(None)) for tensor in tensors], axis=1))


def concatenated(tensors: Sequence[ColumnTensor], bad: BadRows) -> ColumnTensor:
    """Concatenate the rows of ``tensors``. The values of rows ``bad``, by their new index, are unspecified."""
    if len(tensors) == 1:
        return tensors[0]
    values, sizes, shapes = zip(*map(_flat, tensors), strict=True)
    return _tensor(np.concatenate(values), np.concatenate(sizes), np.concatenate(shapes), bad)


def _flat(tensor: ColumnTensor) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Return all values, the size of each row, and the shape of each row."""
    if isinstance(tensor, Ragged):
        return tensor.values, np.diff(tensor.offsets), tensor.shapes
    array = tensor.rows(slice(None))
    shape = np.array(array.shape[1:], np.int64)
    return array.reshape(-1), np.full(len(array), prod(array.shape[1:])), np.tile(shape, (len(array), 1))


def tensor_of(rows: Sequence[Array | None], like: Array) -> ColumnTensor:
    """Return ``rows`` as one tensor; None is a bad row. ``like`` has the dtype and the rank."""
    shapes = {row.shape for row in rows if row is not None}
    if len(shapes) > 1:
        return _ragged([np.zeros((0,) * like.ndim, like.dtype) if row is None else row for row in rows])
    shape = shapes.pop() if shapes else like.shape
    array = np.zeros((len(rows), *shape), like.dtype)
    for index, row in enumerate(rows):
        if row is not None:
            array[index] = row
    return Dense(array)


def _ragged(rows: Sequence[Array]) -> Ragged:
    sizes = np.array([row.size for row in rows], np.int64)
    return Ragged(
        values=np.concatenate([row.ravel() for row in rows]),
        offsets=np.concatenate(([0], np.cumsum(sizes))),
        shapes=np.array([row.shape for row in rows], np.int64),
    )
