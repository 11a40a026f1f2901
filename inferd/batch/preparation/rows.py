"""Prepared rows as one tensor."""

from collections.abc import Sequence

import numpy as np

from inferd.batch.blocks import ColumnTensor
from inferd.batch.tensors import Dense, Ragged
from inferd.runtime.signature import Array


def tensor_of(rows: Sequence[Array | None], like: Array) -> ColumnTensor:
    """Return all ``rows`` as one tensor; None are bad ones. ``like`` has their dtype, and their rank."""
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
