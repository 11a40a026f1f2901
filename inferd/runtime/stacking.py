"""Several requests into one run and its outputs back to each of them. Pure: knows no session.

Rows are counted along each tensor's ``batch_axis``. A request's rows are copied once, into the stacked array; on the
way out each request gets views.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np

from inferd.runtime.signature import Array, ModelSignature, Tensors


class RowsDoNotFollowError(Exception):
    """An output of a batch has another number of rows than the batch; the text says which."""


def stack(signature: ModelSignature, batch: Sequence[Tensors]) -> dict[str, Array]:
    """Put the rows of ``batch`` one behind the other; the requests must have equal stack keys.

    Shared inputs are taken from the first request; optional ones are there in all requests or in none. A single request
    is handed on without a copy.
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
    """Give each request its rows of ``outputs`` as views; ``rows`` says how many, in the order they were stacked.

    Every request gets the whole of an output without a batch axis, and a single one everything as it is. Raises
    `RowsDoNotFollowError` if an output has another number of rows than went in.
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
        for part, its_rows in zip(parts, slices, strict=True):
            part[name] = array[(*before, its_rows)]
    return parts


def _require_rows(name: str, array: Array, axis: int, expected: int) -> None:
    if array.ndim <= axis or array.shape[axis] != expected:
        msg = f'output "{name}": expected {expected} rows along axis {axis}, got shape {list(array.shape)}'
        raise RowsDoNotFollowError(msg)


def chunks(signature: ModelSignature, inputs: Tensors, max_rows: int) -> Iterator[dict[str, Array]]:
    """Cut a request into pieces of at most ``max_rows`` rows, as views; shared inputs go with every piece."""
    axes = {name: signature.input(name).batch_axis for name in inputs}
    rows = next(inputs[name].shape[axis] for name, axis in axes.items() if axis is not None)
    for start in range(0, rows, max_rows):
        its_rows = slice(start, start + max_rows)
        yield {
            name: array if (axis := axes[name]) is None else array[(*(slice(None),) * axis, its_rows)]
            for name, array in inputs.items()
        }


def join(signature: ModelSignature, parts: Sequence[Mapping[str, Array]], rows: Sequence[int]) -> dict[str, Array]:
    """Put the outputs of `chunks`, of so many ``rows`` each, together again; a shared one is that of the first part.

    Raises `RowsDoNotFollowError` if an output has another number of rows than went in.
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
