"""Columns of Arrow as tensors: the values of one input for all rows of a block.

Fixed-size lists and plain numbers become views where their type is the model's. What a row has wrong costs that row
only: it is among the bad rows, with what was expected and what came, and its values are zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from inferd.batch.blocks import BadRows, ColumnTensor, Selection
from inferd.batch.column_types import arrow_type, row_shape, simple_type
from inferd.batch.elements import elements, shown
from inferd.batch.errors import UsageError
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
        """Return these rows, which must be of one shape."""
        starts = self.offsets[:-1][selection]
        if not len(starts):
            return np.empty((0, *self.shapes.shape[1:]), self.values.dtype)
        shape = self.shapes[selection][0]
        size = int(prod(shape))
        found: Array = self.values[starts[:, None] + np.arange(size)]
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
        only: Array = array[0]
        return only
    return array if spec.batch_axis == 0 else np.moveaxis(array, 0, spec.batch_axis)


def from_batch_axis(spec: TensorSpec, array: Array) -> Array:
    """Return an output with a batch axis as rows ``[n, *shape]``."""
    return array if not spec.batch_axis else np.moveaxis(array, spec.batch_axis, 0)


def column_tensor(spec: TensorSpec, column: pa.Array) -> tuple[ColumnTensor, BadRows]:
    """Return the values of ``column`` as those of the input ``spec``, a row of it for each row of the model.

    ``column`` has a type that `inferd.batch.column_types.mismatch` accepts.
    """
    shape = row_shape(spec)
    nested = _Nested(_plain(column))
    dense = _view(spec, nested.leaves, shape)
    if dense is not None:
        return dense, {}
    for _ in shape:
        nested.descend()
    values, unfit = elements(nested.leaves, spec)
    nested.blame_leaves(unfit)
    sizes = np.bincount(nested.owners, minlength=len(column)).astype(np.int64)
    shapes = np.stack(nested.dims, axis=1) if shape else np.empty((len(column), 0), np.int64)
    nested.blame_shapes(shape, shapes)
    bad = {row: f"expected {spec.datatype.name} {format_shape(shape)}, got {got}" for row, got in nested.bad.items()}
    return _tensor(values, sizes, shapes, bad), bad


def _view(spec: TensorSpec, column: pa.Array, shape: tuple[int | str | None, ...]) -> Dense | None:
    """Return ``column`` without a copy if it is fixed-size lists of the model's own type without nulls."""
    dims: list[int] = []
    rows, leaves = len(column), column
    while pa.types.is_fixed_size_list(leaves.type) and not leaves.null_count and len(dims) < len(shape):
        dims.append(leaves.type.list_size)
        leaves = leaves.flatten()
    is_alike = len(dims) == len(shape) and all(
        not isinstance(want, int) or want == size for want, size in zip(shape, dims, strict=True)
    )
    if not is_alike or leaves.null_count or leaves.type != arrow_type(spec.datatype):
        return None
    return Dense(leaves.to_numpy(zero_copy_only=False).reshape(rows, *dims))


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
    array = np.zeros((rows, *dims), values.dtype)
    array[good] = values[np.repeat(good, sizes)].reshape(-1, *dims)
    return Dense(array)


def stacked(tensors: Sequence[tuple[ColumnTensor, BadRows]]) -> tuple[ColumnTensor, BadRows]:
    """Return the numbers of several columns as one dimension."""
    bad: BadRows = {}
    for _, own in tensors:
        bad.update(own)
    return Dense(np.stack([tensor.rows(slice(None)) for tensor, _ in tensors], axis=1)), bad


class _Nested:
    """Goes down the lists of a column; remembers for each element its row, and the sizes on the way.

    ``bad`` has for each bad row what came.
    """

    def __init__(self, column: pa.Array) -> None:
        self.leaves = column
        self.rows = len(column)
        self.owners = np.arange(self.rows)
        self.dims: list[NDArray[np.int64]] = []
        self.bad: BadRows = {}

    def descend(self) -> None:
        """Replace the lists by their elements, and note the size that those of each row have."""
        self._blame_nulls()
        lengths = pc.fill_null(pc.list_value_length(self.leaves), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        dims = np.zeros(self.rows, np.int64)
        # The first of each row counts: assigned last.
        dims[self.owners[::-1]] = lengths[::-1]
        for at in np.flatnonzero(lengths != dims[self.owners]):
            row = int(self.owners[at])
            self.bad.setdefault(row, f"lists of {dims[row]} and of {lengths[at]} beside each other")
        self.dims.append(dims)
        self.leaves = _plain(self.leaves.flatten())
        self.owners = np.repeat(self.owners, lengths)

    def blame_leaves(self, unfit: NDArray[np.bool_] | None) -> None:
        """Note the rows of elements that are null or ``unfit``."""
        self._blame_nulls()
        if unfit is not None:
            for at in np.flatnonzero(unfit):
                self.bad.setdefault(int(self.owners[at]), shown(self.leaves[int(at)].as_py()))

    def blame_shapes(self, shape: tuple[int | str | None, ...], shapes: NDArray[np.int64]) -> None:
        """Note the rows whose sizes are not those of ``shape``."""
        for axis, size in enumerate(shape):
            if isinstance(size, int):
                for row in np.flatnonzero(shapes[:, axis] != size):
                    self.bad.setdefault(int(row), f"shape {format_shape(shapes[row].tolist())}")

    def _blame_nulls(self) -> None:
        if self.leaves.null_count:
            for at in np.flatnonzero(pc.is_null(self.leaves).to_numpy(zero_copy_only=False)):
                self.bad.setdefault(int(self.owners[at]), "null")


def _plain(column: pa.Array) -> pa.Array:
    """Return ``column`` without dictionaries, views, run-length encoding and extension types."""
    if isinstance(column, pa.ExtensionArray):
        storage = column.storage
        if isinstance(column.type, pa.FixedShapeTensorType):
            return _unflattened(storage, column.type)
        return _plain(storage)
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.dictionary_decode()
    simpler = simple_type(kind)
    return column if simpler is kind else column.cast(simpler)


def _unflattened(storage: pa.FixedSizeListArray, kind: pa.FixedShapeTensorType) -> pa.FixedSizeListArray:
    """Return the flat lists of a tensor column as lists in each other."""
    if list(kind.permutation or ()) != sorted(kind.permutation or ()):
        raise UsageError("a column of tensors whose dimensions are permuted cannot be read")
    size = storage.type.list_size
    # With those of null rows, which `flatten` leaves out.
    nested = storage.values.slice(storage.offset * size, len(storage) * size)
    for inner in reversed(kind.shape[1:]):
        nested = pa.FixedSizeListArray.from_arrays(nested, inner)
    return pa.FixedSizeListArray.from_arrays(
        nested, kind.shape[0], mask=storage.is_null() if storage.null_count else None
    )
