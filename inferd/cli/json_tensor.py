"""From JSON that a person typed to an array of the type that the model declares. Pure."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.client import TensorInfo

#: The types that JSON's values have here, by numpy's kind of what they become; those of other kinds are floats.
_ACCEPTED: dict[str, set[type]] = {"O": {str}, "b": {bool}, "i": {int}, "u": {int}}


def to_array(spec: TensorInfo, value: object) -> NDArray[np.generic]:
    """Make an array of ``value``, a number, text or boolean or lists of them.

    A value with one dimension less than the model declares is taken to be a single row, and gets the batch dimension.
    Raises ValueError naming the input for elements that are not of the declared type, or lists that do not line up.
    """
    try:
        shape = _shape(value)
        array = _array(spec, list(_elements(value))).reshape(shape)
    except _MismatchError as error:
        msg = f'input "{spec.name}": {error}'
        raise ValueError(msg) from None
    if spec.batch_axis is not None and array.ndim == len(spec.shape) - 1:
        return np.expand_dims(array, spec.batch_axis)
    return array


class _MismatchError(Exception):
    """What is wrong, without the input's name."""


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        return ()
    inner = {_shape(item) for item in value}
    if len(inner) > 1:
        shapes = " and ".join(str(list(shape)) for shape in sorted(inner))
        msg = f"expected lists of one shape beside each other, got {shapes}"
        raise _MismatchError(msg)
    return (len(value), *(inner.pop() if inner else ()))


def _elements(value: object) -> Iterator[object]:
    if isinstance(value, list):
        for item in value:
            yield from _elements(item)
    else:
        yield value


def _array(spec: TensorInfo, elements: list[Any]) -> NDArray[np.generic]:
    accepted = _ACCEPTED.get(spec.dtype.kind, {int, float})
    for element in elements:
        # Exact types, because a Python bool is an int as well.
        if type(element) not in accepted:
            msg = f"expected {spec.datatype}, got {json.dumps(element)}"
            raise _MismatchError(msg)
    array: NDArray[np.generic] = np.empty(len(elements), dtype=spec.dtype)
    try:
        with np.errstate(over="raise"):
            array[:] = elements
    except (OverflowError, FloatingPointError) as error:
        msg = f"expected {spec.datatype}, got a number beyond its range: {error}"
        raise _MismatchError(msg) from None
    return array
