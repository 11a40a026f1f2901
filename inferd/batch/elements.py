"""Elements of a column as those of a tensor, in its datatype. What does not fit is told apart, never changed silently.

Numbers with a decimal point become floats of the model's size, rounded as NumPy does; nothing else loses anything.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from inferd.batch.column_types import is_binary
from inferd.dtypes import BYTES
from inferd.plain_text import clipped, escaped
from inferd.runtime.signature import Array, TensorSpec

#: Characters of a value that an error shows.
_SHOWN = 60


def shown(value: object) -> str:
    """Return a value for an error, clipped and without control characters."""
    return escaped(clipped(repr(value), _SHOWN))


def elements(leaves: pa.Array, spec: TensorSpec) -> tuple[Array, NDArray[np.bool_] | None]:
    """Return ``leaves`` in the datatype of ``spec``, and which of them do not fit, None for none.

    Those that are null or do not fit become zeros or empty texts.
    """
    if spec.datatype is BYTES:
        return _texts(leaves)
    if pa.types.is_decimal(leaves.type):
        leaves = leaves.cast(pa.float64())
    if leaves.null_count:
        leaves = pc.fill_null(leaves, pa.scalar(0).cast(leaves.type))
    numbers = leaves.to_numpy(zero_copy_only=False)
    target = spec.datatype.numpy
    if numbers.dtype == target:
        return numbers, None
    if target.kind == "b":
        unfit = (numbers != 0) & (numbers != 1)
    elif target.kind in "iu":
        unfit = _unfit_integers(numbers, target)
    else:
        return _floats(numbers, target)
    if not unfit.any():
        return numbers.astype(target), None
    return np.where(unfit, 0, numbers).astype(target), unfit


def _unfit_integers(numbers: NDArray[Any], target: np.dtype[Any]) -> NDArray[np.bool_]:
    bounds = np.iinfo(target)
    if numbers.dtype.kind == "b":
        return np.zeros(len(numbers), np.bool_)
    if numbers.dtype.kind == "f":
        # The largest of 64 bits are no floats; the next one is a power of two.
        is_inside = (numbers >= float(bounds.min)) & (numbers < float(bounds.max) + (bounds.bits < 54))
        unfit: NDArray[np.bool_] = ~(is_inside & (np.floor(numbers) == numbers))
        return unfit
    # Each bound in the numbers' own type, as none holds those of both int64 and uint64.
    own = np.iinfo(numbers.dtype)
    unfit = np.zeros(len(numbers), np.bool_)
    if own.min < bounds.min:
        unfit |= numbers < numbers.dtype.type(bounds.min)
    if own.max > bounds.max:
        unfit |= numbers > numbers.dtype.type(bounds.max)
    return unfit


def _floats(numbers: NDArray[Any], target: np.dtype[Any]) -> tuple[Array, NDArray[np.bool_] | None]:
    with np.errstate(over="ignore"):
        values = numbers.astype(target)
    unfit = np.isinf(values.astype(np.float32) if target.kind == "V" else values)
    if unfit.any() and numbers.dtype.kind == "f":
        unfit &= np.isfinite(numbers)
    if not unfit.any():
        return values, None
    values[unfit] = 0
    return values, unfit


def _texts(leaves: pa.Array) -> tuple[Array, NDArray[np.bool_] | None]:
    unfit = _no_texts(leaves) if is_binary(leaves.type) else None
    values = np.empty(len(leaves), object)
    values[:] = [text or b"" for text in leaves.cast(pa.large_binary()).to_pylist()]
    if unfit is not None:
        values[unfit] = b""
    return values, unfit


def _no_texts(leaves: pa.Array) -> NDArray[np.bool_] | None:
    """Return which elements are no UTF-8 text, which ONNX Runtime cannot take; None if all are."""
    try:
        leaves.cast(pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return np.fromiter((not _is_text(each) for each in leaves.to_pylist()), np.bool_, len(leaves))
    return None


def _is_text(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
