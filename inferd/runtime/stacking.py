"""Stack requests into one batch and split its outputs. Pure: knows no session.

Rows are counted along each tensor's ``batch_axis``. Inputs are copied once, into the stacked array; outputs are split
into views.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np

from inferd.runtime.signature import Array, ModelSignature, Tensors


class RowsDoNotFollowError(Exception):
    """An output has another number of rows than the batch; the text says which."""


def stack(signature: ModelSignature, batch: Sequence[Tensors]) -> dict[str, Array]:
    """Concatenate the rows of ``batch``; the requests must have equal stack keys.

    Shared inputs are taken from the first request; an optional input is in all requests or in none. A single request is
    not copied.
    """
    if len(batch) == 1:
        return dict(batch[0])
    if not signature.batchable:
        msg = f"expected a single request for a model that cannot batch, got {len(batch)}"
        raise ValueError(msg)
    return {
        name: array
        if (axis := signature.input(name).batch_axis) is None
        else np.concatenate([inputs[name] for inputs in batch], axis=axis)
        for name, array in batch[0].items()
    }


def split(signature: ModelSignature, outputs: Mapping[str, Array], rows: Sequence[int]) -> list[dict[str, Array]]:
    """Split ``outputs`` into views for each request; ``rows`` are their numbers of rows, in stacking order.

    Every request gets the whole of an output without a batch axis; a single request gets all outputs unchanged. Raises
    `RowsDoNotFollowError` if an output has another number of rows than the batch.
    """
    if len(rows) == 1:
        return [dict(outputs)]
    axes = {spec.name: spec.batch_axis for spec in signature.outputs}
    parts: list[dict[str, Array]] = [{} for _ in rows]
    slices = [slice(start, stop) for start, stop in pairwise(accumulate(rows, initial=0))]
    for name, array in outputs.items():
        axis = axes[name]
        if axis is None:
            for part in parts:
                part[name] = array
            continue
        _require_rows(name, array, axis, slices[-1].stop)
        before = (slice(None),) * axis
        for part, own_rows in zip(parts, slices, strict=True):
            part[name] = array[(*before, own_rows)]
    return parts


def _require_rows(name: str, array: Array, axis: int, expected: int) -> None:
    if array.ndim <= axis or array.shape[axis] != expected:
        msg = f'output "{name}": expected {expected} rows along axis {axis}, got shape {list(array.shape)}'
        raise RowsDoNotFollowError(msg)


def chunks(signature: ModelSignature, inputs: Tensors, max_rows: int) -> Iterator[dict[str, Array]]:
    """Split a request into views of at most ``max_rows`` rows; every one has all shared inputs."""
    axes = {name: signature.input(name).batch_axis for name in inputs}
    rows = next(inputs[name].shape[axis] for name, axis in axes.items() if axis is not None)
    for start in range(0, rows, max_rows):
        own_rows = slice(start, start + max_rows)
        yield {
            name: array if (axis := axes[name]) is None else array[(*(slice(None),) * axis, own_rows)]
            for name, array in inputs.items()
        }


def join(signature: ModelSignature, parts: Sequence[Mapping[str, Array]], rows: Sequence[int]) -> dict[str, Array]:
    """Concatenate the outputs of `chunks` of ``rows`` rows each; an output without batch axis is that of the first.

    Raises `RowsDoNotFollowError` if an output has another number of rows than its chunk.
    """
    axes = {spec.name: spec.batch_axis for spec in signature.outputs}
    for part, expected in zip(parts, rows, strict=True):
        for name, array in part.items():
            if (axis := axes[name]) is not None:
                _require_rows(name, array, axis, expected)
    return {
        name: array if (axis := axes[name]) is None else np.concatenate([part[name] for part in parts], axis=axis)
        for name, array in parts[0].items()
    }
