"""Convert elements of a column to the datatype of a tensor. Values that do not fit are reported, never changed.

The one conversion that loses digits is to floats of the model's size, which rounds to the nearest as NumPy does.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from inferd.dtypes import BYTES, rounded
from inferd.plain_text import clipped, escaped
from inferd.runtime.signature import Array, TensorSpec

#: The most characters of a value in an error.
_SHOWN = 60

#: True for each element that does not fit; None if all fit.
Unfit = NDArray[np.bool_] | None


def shown(scalar: pa.Scalar) -> str:
    """Return an element as text for an error, clipped and without control characters."""
    try:
        value = scalar.as_py()
    except UnicodeDecodeError:
        value = scalar.cast(pa.large_binary()).as_py()
    return escaped(clipped(str(value) if isinstance(value, Decimal) else repr(value), _SHOWN))


def elements(leaves: pa.Array, spec: TensorSpec) -> tuple[Array, Unfit]:
    """Return ``leaves`` in the datatype of ``spec``, and the mask of those that do not fit, nulls included.

    In their place are zeros or empty texts.
    """
    nulls = leaves.is_null().to_numpy(zero_copy_only=False) if leaves.null_count else None
    values, unfit = _texts(leaves) if spec.datatype is BYTES else _numbers(leaves, spec.datatype.numpy)
    if nulls is None:
        return values, unfit
    return values, nulls if unfit is None else nulls | unfit


def _numbers(leaves: pa.Array, target: np.dtype[Any]) -> tuple[Array, Unfit]:
    if leaves.null_count:
        leaves = pc.fill_null(leaves, pa.scalar(0).cast(leaves.type))
    if pa.types.is_decimal(leaves.type):
        # Arrow casts 256 bits to all others exactly; types whose scale leaves no digit for 0 fail.
        if target.kind in "biu":
            return _whole_decimals(leaves, target)
        leaves = leaves.cast(pa.float64())
    numbers = leaves.to_numpy(zero_copy_only=False)
    if numbers.dtype == target:
        return numbers, None
    if target.kind in "biu":
        unfit = _not_whole(numbers, target)
        return (numbers.astype(target), None) if unfit is None else (np.where(unfit, 0, numbers).astype(target), unfit)
    return _floats(numbers, target)


def _not_whole(numbers: NDArray[Any], target: np.dtype[Any]) -> Unfit:
    """Return the mask of ``numbers`` that are no integer (or boolean 0 or 1) in the range of ``target``."""
    low, high = (0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
    if numbers.dtype.kind == "b":
        return None
    if numbers.dtype.kind == "f":
        if numbers.dtype.itemsize < 4:
            # Half floats cannot represent the bounds of integers.
            numbers = numbers.astype(np.float32)
        # The largest integer may not be a float of this size; the next one, a power of two, always is.
        with np.errstate(invalid="ignore"):
            fits = (numbers >= float(low)) & (numbers < float(high + 1)) & (np.floor(numbers) == numbers)
        return _marked(~fits)
    # Compared in the numbers' own type: no type holds the bounds of both int64 and uint64.
    own = np.iinfo(numbers.dtype)
    unfit = np.zeros(len(numbers), np.bool_)
    if own.min < low:
        unfit |= numbers < numbers.dtype.type(low)
    if own.max > high:
        unfit |= numbers > numbers.dtype.type(high)
    return _marked(unfit)


def _floats(numbers: NDArray[Any], target: np.dtype[Any]) -> tuple[Array, Unfit]:
    with np.errstate(over="ignore"):
        values = rounded(numbers, target)
    if numbers.dtype.kind != "f":
        # Only half floats have a smaller range than 64-bit integers.
        unfit = _marked(np.isinf(values)) if target == np.float16 else None
    elif numbers.dtype.itemsize < target.itemsize:
        unfit = None
    else:
        unfit = _marked(np.isinf(values) & np.isfinite(numbers))
    if unfit is not None:
        values[unfit] = 0
    return values, unfit


def _whole_decimals(leaves: pa.Array, target: np.dtype[Any]) -> tuple[Array, Unfit]:
    wide = pa.uint64() if target.kind == "u" else pa.int64()
    try:
        numbers = leaves.cast(wide).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        low, high = (0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
        values = leaves.to_pylist()
        fits = _each(values, lambda value: low <= value <= high and value == int(value))
        whole = [int(value) if fit else 0 for value, fit in zip(values, fits.tolist(), strict=True)]
        return np.array(whole, target), _marked(~fits)
    unfit = _not_whole(numbers, target)
    return (numbers if unfit is None else np.where(unfit, 0, numbers)).astype(target), unfit


def _texts(leaves: pa.Array) -> tuple[Array, Unfit]:
    contents = leaves.cast(pa.large_binary())
    values: Array = contents.to_numpy(zero_copy_only=False)
    unfit = None
    try:
        # Readers do not verify UTF-8, and ONNX Runtime takes nothing else.
        contents.cast(pa.large_string())
    except pa.ArrowInvalid:
        unfit = ~_each(values.tolist(), _is_text)
    empty = contents.is_null().to_numpy(zero_copy_only=False) if contents.null_count else None
    for marked in (empty, unfit):
        if marked is not None:
            values[marked] = b""
    return values, unfit


def _is_text(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _each(values: list[Any], fits: Callable[[Any], bool]) -> NDArray[np.bool_]:
    return np.fromiter(map(fits, values), np.bool_, len(values))


def _marked(unfit: NDArray[np.bool_]) -> Unfit:
    return unfit if unfit.any() else None
