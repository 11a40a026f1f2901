"""Flatten the nested lists of a column, and find the rows whose lists are not tensors."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from inferd.batch.blocks import BadRows
from inferd.batch.layouts import plain
from inferd.runtime.signature import format_shape


class Lists:
    """The rows of ``column``, flattened one level by each `descend`.

    Row ``i`` has ``leaves[starts[i]:starts[i + 1]]``. ``dims`` has for each level the size in each row, unspecified
    for bad rows. ``bad`` has the actual value of each bad row, by its first problem.
    """

    def __init__(self, column: pa.Array) -> None:
        self.leaves = plain(column)
        self.starts = np.arange(len(column) + 1)
        self.dims: list[NDArray[np.int64]] = []
        self.bad: BadRows = {}

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The number of leaves of each row."""
        return np.diff(self.starts)

    def descend(self, expected: int | str | None) -> None:
        """Replace lists by their elements. ``expected`` is the size in rows without lists here."""
        self.blame_nulls()
        lengths = _lengths(self.leaves)
        sizes = self.sizes
        if self.dims:
            unknown = expected if isinstance(expected, int) else self._list_size()
            dims = np.full(len(sizes), unknown, np.int64)
            dims[sizes > 0] = lengths[self.starts[:-1][sizes > 0]]
            self._blame_uneven(lengths, dims)
        else:
            dims = lengths
        self.dims.append(dims)
        self.starts = np.concatenate(([0], np.cumsum(lengths)))[self.starts]
        self.leaves = plain(self.leaves.flatten())

    def blame_nulls(self) -> None:
        """Mark the rows with a null at this level as bad."""
        if self.leaves.null_count:
            got = "null among its values" if self.dims else "null"
            self.blame(pc.is_null(self.leaves).to_numpy(zero_copy_only=False), lambda _: got)

    def blame(self, leaves: NDArray[np.bool_], got: Callable[[int], str]) -> None:
        """Mark the rows of the masked ``leaves`` as bad; ``got`` describes the first leaf of each row by its index."""
        at = np.flatnonzero(leaves)
        rows, first = np.unique(np.searchsorted(self.starts, at, side="right") - 1, return_index=True)
        for row, index in zip(rows.tolist(), at[first].tolist(), strict=True):
            if row not in self.bad:
                self.bad[row] = got(index)

    def blame_sizes(self, shape: Sequence[int | str | None]) -> None:
        """Mark the rows whose sizes differ from ``shape`` as bad."""
        for size, dims in zip(shape, self.dims, strict=True):
            if isinstance(size, int):
                for row in np.flatnonzero(dims != size).tolist():
                    self.bad.setdefault(row, f"shape {format_shape(int(each[row]) for each in self.dims)}")

    def _blame_uneven(self, lengths: NDArray[np.int64], dims: NDArray[np.int64]) -> None:
        first = np.repeat(dims, self.sizes)
        self.blame(lengths != first, lambda at: f"lists of {first[at]} and of {lengths[at]} beside each other")

    def _list_size(self) -> int:
        kind = self.leaves.type
        return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else 0


def uniform(column: pa.Array, levels: int) -> tuple[pa.Array, list[int]] | None:
    """Return the elements of ``column`` below ``levels`` of lists, and the sizes of the lists; fast, without rows.

    None if lists are null or differ in size.
    """
    leaves, sizes = plain(column), []
    for _ in range(levels):
        if leaves.null_count:
            return None
        if pa.types.is_fixed_size_list(leaves.type):
            sizes.append(leaves.type.list_size)
        else:
            lengths = np.diff(leaves.offsets.to_numpy())
            if not len(lengths) or (lengths != lengths[0]).any():
                return None
            sizes.append(int(lengths[0]))
        leaves = plain(leaves.flatten())
    return leaves, sizes


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)
