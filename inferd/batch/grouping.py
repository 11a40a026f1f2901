"""Group the rows of a block into batches. Pure: the same block always has the same batches.

A group has rows whose inputs have equal shapes, and equal values of inputs without a batch axis, as in the server.
Groups are cut by rows and bytes. Nothing is padded, so a row's answer never depends on its neighbours.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inferd.batch.blocks import BatchLimits, ColumnTensor, Selection
from inferd.runtime.signature import ModelSignature


def batches(
    signature: ModelSignature, tensors: Mapping[str, ColumnTensor], rows: int, limits: BatchLimits
) -> Iterator[Selection]:
    """Yield the batches of ``rows`` rows with these ``tensors``: each row is in one of them."""
    if not rows:
        return
    if not signature.batchable:
        yield from (slice(row, row + 1) for row in range(rows))
        return
    keys = list(_keys(signature, tensors, rows))
    if not keys:
        nbytes = sum(tensor.nbytes for tensor in tensors.values()) // max(rows, 1)
        step = _most(limits, nbytes)
        yield from (slice(start, min(start + step, rows)) for start in range(0, rows, step))
        return
    order = np.lexsort(keys[::-1])
    ends = np.flatnonzero(np.any([np.diff(key[order]) != 0 for key in keys], axis=0)) + 1
    for group in np.split(order, ends):
        step = _most(limits, sum(_row_bytes(tensor, int(group[0])) for tensor in tensors.values()))
        for start in range(0, len(group), step):
            yield group[start : start + step]


def size(selection: Selection) -> int:
    """Return the number of rows of a batch."""
    return selection.stop - selection.start if isinstance(selection, slice) else len(selection)


def _most(limits: BatchLimits, row_bytes: int) -> int:
    return max(1, min(limits.rows, limits.nbytes // max(row_bytes, 1)))


def _row_bytes(tensor: ColumnTensor, row: int) -> int:
    return tensor.rows(slice(row, row + 1)).nbytes


def _keys(signature: ModelSignature, tensors: Mapping[str, ColumnTensor], rows: int) -> Iterator[NDArray[np.int64]]:
    """Yield columns of numbers, one for each row, that differ between rows that cannot run together."""
    for name, tensor in tensors.items():
        if tensor.shapes is not None:
            yield from tensor.shapes.T
        if signature.input(name).batch_axis is None:
            yield _numbered([_value(tensor, row) for row in range(rows)])


def _value(tensor: ColumnTensor, row: int) -> object:
    array = tensor.rows(slice(row, row + 1))
    return tuple(array.ravel().tolist()) if array.dtype.hasobject else array.tobytes()


def _numbered(values: Sequence[object]) -> NDArray[np.int64]:
    """Number the values: equal values have equal numbers, in the order of their first occurrence."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
